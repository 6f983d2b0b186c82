"""A real Slurm of two nodes: from `sbatch` to the finished run, through SIGUSR1 and the queue."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kit.starter import PATIENCE, environment
from real_runs import HERE, assert_same_run

SUBMIT = HERE.parents[1] / "experiments" / "cluster" / "submit.sbatch"
CPUS = "--ntasks-per-node 1 --gpus-per-node 0 --cpus-per-task 1"
JOB = f"""
set -e
job=$(sbatch --parsable {CPUS} {SUBMIT} tiny.yaml --trainer.strategy zero2_cpu)
running() {{ [ "$(squeue --noheader --jobs $job --format %T 2> /dev/null)" ]; }}
until [ -e halted ]; do running; sleep 0.1; done
scancel --signal USR1 $job  # as Slurm itself does before the time limit
until grep -q 'Stopping after this step' slurm-$job.out; do running; sleep 0.1; done
touch go
while running; do sleep 0.2; done
scontrol show job $job
"""


def test_a_job_is_requeued_after_sigusr1_and_ends_as_a_run_that_nothing_disturbed(
    watched, undisturbed, tmp_path
):
    missing = [
        name for name in ("slurmctld", "slurmd", "sbatch", "munged") if shutil.which(name) is None
    ]
    if missing or os.geteuid() != 0:
        pytest.skip(
            f"needs root and Debian's slurm-wlm and munge; missing: {', '.join(missing) or 'root'}"
        )
    watched(tmp_path)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = environment() | {"PATH": path, "MASTER_ADDR": "127.0.0.1", "HALT": "0:3"}
    command = [
        "timeout",
        "-k",
        "30",
        str(2 * PATIENCE),
        str(HERE / "two_nodes.sh"),
        "bash",
        "-c",
        JOB,
    ]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
    (output,) = tmp_path.glob("slurm-*.out")
    said = output.read_text(errors="replace")
    assert done.returncode == 0 and "JobState=COMPLETED" in done.stdout, (
        f"{done.stdout[-2000:]}{done.stderr[-2000:]}{said[-3000:]}"
    )
    assert (
        "Restarts=1" in done.stdout
        and "is back in the queue." in said
        and "resume: going on from" in said
    )
    assert_same_run(tmp_path, undisturbed)
    records = [
        json.loads(path.read_text())
        for path in sorted(tmp_path.glob("runs/quickstart/version_*/run.json"))
    ]
    job = output.stem.removeprefix("slurm-")
    assert [(r["job"], r["nodes"], r["restarts"], r["processes"]) for r in records] == [
        (job, ["node1", "node2"], i, 2) for i in (0, 1)
    ]
