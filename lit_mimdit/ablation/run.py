"""One run of a study, `fit` then `test`, in the process it is called in.

A process killed in the middle leaves whole checkpoints; the same run goes on from the newest one.
"""

import json
import os
import shlex
import sys
from pathlib import Path

import lightning.pytorch.cli  # noqa: F401  what the commands load when they are called, so that a server of processes has it once
import pyiqa  # noqa: F401
import torch
import yaml
from filelock import FileLock

import lit_mimdit.systems.mimdit  # noqa: F401
from lit_mimdit.ablation.cost import cost
from lit_mimdit.ablation.runs import COST, PLAN
from lit_mimdit.cli import main
from lit_mimdit.files import write_bytes
from lit_mimdit.inference.restore import load_restorer
from lit_mimdit.inference.system_file import read_checkpoint
from lit_mimdit.training.resume import newest_valid

PID = "pid"  # in a run's folder: the process that works there


def run(folder: Path) -> int:
    """Train, test and measure; 0, or the exit status of the command that failed."""
    with FileLock(folder / "lock"):  # a process that outlived its parent may still be at work here
        (folder / PID).write_text(str(os.getpid()), encoding="utf-8")
        if (folder / COST).is_file():
            return 0
        plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        print(shlex.join(["python", "-m", "lit_mimdit", *plan["fit"]]), flush=True)
        if status := main(plan["fit"]):
            return status
        checkpoint, _ = newest_valid(folder / "checkpoints")
        settings = yaml.safe_load((folder / "log" / "config.yaml").read_text(encoding="utf-8"))
        step, wanted = (
            (read_checkpoint(checkpoint)["global_step"] if checkpoint else 0),
            settings["trainer"]["max_steps"],
        )
        if step < wanted:
            print(f"error: stopped at step {step} of {wanted}", file=sys.stderr)
            return 1
        test = [*plan["test"], "--ckpt_path", str(checkpoint)]
        print(shlex.join(["python", "-m", "lit_mimdit", *test]), flush=True)
        if status := main(test):
            return status
        found = cost(
            load_restorer(checkpoint, None, torch.device("cpu")),
            settings["data"]["init_args"]["crop"],
        )
        write_bytes(folder / COST, (json.dumps(found, indent=1) + "\n").encode())
        return 0
