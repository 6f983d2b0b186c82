"""Putting a Slurm job back into the queue."""

import os
import re
import signal
import subprocess
from collections.abc import Mapping

GOES_ON = (
    "RUNNING",
    "TIMEOUT",
)  # states in which a job that was told to end may start again; not CANCELLED, not PREEMPTED


def job_id(environ: Mapping[str, str] = os.environ) -> str | None:
    """Returns the id of the job that this process belongs to, as scontrol takes it; None outside
    Slurm.
    """
    if "SLURM_ARRAY_JOB_ID" in environ:
        return f"{environ['SLURM_ARRAY_JOB_ID']}_{environ['SLURM_ARRAY_TASK_ID']}"
    return environ.get("SLURM_JOB_ID")


def state_of(description: str) -> str:
    """Returns the state in what `scontrol show job` says; UNKNOWN if it says none."""
    match = re.search(r"JobState=(\w+)", description)
    return match[1] if match else "UNKNOWN"


def _scontrol(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["scontrol", *args], capture_output=True, text=True, timeout=60)


def requeue(number: int) -> str | None:
    """Puts this job back into the queue after signal `number`, and says what happened.

    None outside Slurm and after Ctrl-C.

    SIGUSR1 is only ever sent because somebody asked for it (`#SBATCH --signal=USR1@120`). SIGTERM
    also comes from scancel, which must be obeyed. It comes with a preemption, too, after which
    Slurm itself starts the job again. There the job's state decides.
    """
    job = job_id()
    if job is None or number == signal.SIGINT:
        return None
    try:
        if number == signal.SIGTERM:
            state = state_of(_scontrol("show", "job", job).stdout)
            if state not in GOES_ON:
                return f"Job {job} is {state}: it is left to Slurm."
        done = _scontrol("requeue", job)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"Job {job} could not be requeued ({error}); sbatch it again, and it goes on."
    if done.returncode:
        return (
            f"Job {job} could not be requeued ({done.stderr.strip()}); sbatch it again, and it"
            " goes on."
        )
    return f"Job {job} is back in the queue."
