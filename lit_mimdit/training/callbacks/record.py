"""Writes what a run is into its folder when it starts."""

import json
import os
import platform
import socket
import subprocess
import sys
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist

import lit_mimdit
from lit_mimdit.files import write_bytes
from lit_mimdit.inference.run_record import commit
from lit_mimdit.training.slurm import job_id

NAME, DIFF = "run.json", "run.diff"


def difference() -> str:
    """Returns how the source tree differs from its commit, new files by name; "" without a
    repository.
    """
    if commit() is None:
        return ""
    git = ["git", "-C", str(Path(lit_mimdit.__file__).parents[1])]
    parts = [
        subprocess.run(
            [*git, *args], capture_output=True, text=True, timeout=60, errors="replace"
        ).stdout
        for args in (["diff", "HEAD"], ["ls-files", "--others", "--exclude-standard"])
    ]
    return parts[0] + "".join(
        f"new file, not in the repository: {name}\n" for name in parts[1].splitlines()
    )


@cache  # nothing is installed while a process runs
def packages() -> dict[str, str]:
    """Returns the versions of all installed packages, by name."""
    about = [distribution.metadata for distribution in distributions()]
    return dict(sorted((each["Name"], each["Version"]) for each in about if each["Name"]))


class RunRecord(L.Callback):
    """Writes run.json and run.diff beside the effective configuration, config.yaml.

    They hold command, job id, nodes, processes, strategy and the checkpoint it goes on from. They
    also hold the git commit, what differs from it, and the versions of all packages.
    """

    def on_fit_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> None:  # in setup nothing is resumed from yet
        # on every process: it is a broadcast; a logger may have no folder of its own
        log_dir = trainer.log_dir or trainer.default_root_dir
        hosts: list[Any] = [None] * trainer.world_size
        if trainer.world_size > 1:
            dist.all_gather_object(hosts, os.environ.get("SLURMD_NODENAME") or socket.gethostname())
        else:
            hosts = [socket.gethostname()]
        if trainer.fast_dev_run or not trainer.is_global_zero:
            return
        values = {
            "command": sys.argv,
            "job": job_id(),
            "restarts": int(
                os.environ.get("SLURM_RESTART_COUNT")
                or os.environ.get("TORCHELASTIC_RESTART_COUNT")
                or 0
            ),
            "nodes": list(dict.fromkeys(hosts)),
            "processes": trainer.world_size,
            "strategy": type(trainer.strategy).__name__,
            "precision": str(trainer.precision),
            "device": (
                torch.cuda.get_device_name()
                if torch.cuda.is_available()
                else platform.processor() or platform.machine()
            ),
            "resumed_from": None if trainer.ckpt_path is None else str(trainer.ckpt_path),
            "commit": commit(),
            "python": platform.python_version(),
            "packages": packages(),
        }
        folder = Path(log_dir)
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / NAME, (json.dumps(values, indent=1) + "\n").encode())
        write_bytes(folder / DIFF, difference().encode())
