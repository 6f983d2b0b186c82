"""One run of a study, `fit` then `test`, in the process it is called in.

A process killed in the middle leaves whole checkpoints; the same run goes on from the newest one.
A system that is not trained is only tested.
"""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

# what the commands load when they are called, so that a server of processes has it once
import lightning.pytorch.cli  # noqa: F401
import pyiqa  # noqa: F401
import yaml
from filelock import FileLock

import lit_mimdit.systems.mimdit  # noqa: F401
from lit_mimdit.ablation.cost import cost
from lit_mimdit.ablation.runs import BEFORE, COST, PLAN
from lit_mimdit.ablation.variants import Values, budget_of
from lit_mimdit.cli import main
from lit_mimdit.files import write_bytes
from lit_mimdit.inference.system_class import build_system
from lit_mimdit.inference.system_file import SystemFile, load_system, read_checkpoint
from lit_mimdit.systems.base import RestorationSystem
from lit_mimdit.training.callbacks.training_time import seconds_in
from lit_mimdit.training.resume import newest_valid

PID = "pid"  # in a run's folder: the process that works there


def run(folder: Path) -> int:
    """Train, test and measure; 0, or the exit status of the command that failed."""
    with FileLock(folder / "lock"):  # a process that outlived its parent may still be at work here
        (folder / PID).write_text(str(os.getpid()), encoding="utf-8")
        if (folder / COST).is_file():
            return 0
        plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        checkpoint, done = None, {"steps": None, "seconds": None}
        trainings = [
            (folder / BEFORE / name, args) for name, args in plan.get("before", {}).items()
        ]
        if "fit" in plan:
            done = {"steps": 0, "seconds": 0.0}
            for place, args in [*trainings, (folder, plan["fit"])]:
                if status := _command(args):
                    return status
                checkpoint, _ = newest_valid(place / "checkpoints")
                here = progress(checkpoint)
                missing = unfinished(here, effective(place / "log"))
                if missing is not None:
                    print(f"error: {missing}", file=sys.stderr)
                    return 1
                done = {name: total + (here[name] or 0) for name, total in done.items()}
        at = [] if checkpoint is None else ["--ckpt_path", str(checkpoint)]
        test = [*plan["test"], *at]
        if status := _command(test):
            return status
        settings = effective(folder / "test")
        measured = cost(_system(checkpoint, settings), settings["data"]["init_args"]["crop"])
        write_bytes(folder / COST, (json.dumps(measured | done, indent=1) + "\n").encode())
        return 0


def _command(args: list[str]) -> int:
    """Run a command of the package and say which."""
    print(shlex.join(["python", "-m", "lit_mimdit", *args]), flush=True)
    return main(args)


def effective(folder: Path) -> Values:
    """Returns the configuration that a command ran with, every default in it, from its log
    folder.
    """
    return yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))


def progress(checkpoint: Path | None) -> dict[str, Any]:
    """Returns optimizer steps and seconds of training that a run's newest checkpoint holds."""
    if checkpoint is None:
        return {"steps": 0, "seconds": 0.0}
    values = read_checkpoint(checkpoint)
    return {"steps": values["global_step"], "seconds": seconds_in(values)}


def unfinished(done: dict[str, Any], settings: Values) -> str | None:
    """Returns what a run lacks of its budget, in words, or None: of time if it has a budget of
    time, else of steps.
    """
    minutes = budget_of(settings)
    if minutes is not None:
        if (done["seconds"] or 0.0) >= 60 * minutes:
            return None
        return f"stopped after {done['seconds'] or 0.0:.0f} of {60 * minutes:.0f} s of training"
    wanted = settings["trainer"]["max_steps"]
    return None if done["steps"] >= wanted else f"stopped at step {done['steps']} of {wanted}"


def _system(checkpoint: Path | None, settings: Values) -> RestorationSystem:
    """The system that was tested, on the CPU."""
    if checkpoint is not None:
        return build_system(load_system(checkpoint), f"checkpoint {checkpoint}", trust=True)
    model = settings["model"]
    file = SystemFile(model["class_path"], model.get("init_args") or {}, {})
    return build_system(file, "model", trust=True)
