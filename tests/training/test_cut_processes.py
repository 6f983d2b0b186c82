"""What tests/training/test_cuts.py proves in one process, with real processes: two ranks, two
loader workers, and runs that change both."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cut_runs import content, read

PROGRAM = """
import json, sys
from pathlib import Path
from cut_runs import fit
folder, resume, options = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
module, trainer, _ = fit(folder, Path(resume) if resume else None, **options)
taken = folder / f"taken-{trainer.global_rank}.jsonl"
with open(taken, "a") as file:
    file.write(json.dumps(sorted(module.steps.items())) + "\\n")
"""


def run(folder: Path, resume: Path | None, **options) -> None:
    """A run in processes of its own; Lightning starts the other ranks."""
    here = [str(Path(__file__).parent), os.getcwd()]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(here), "OMP_NUM_THREADS": "1"}
    program = folder / "program.py"
    folder.mkdir(exist_ok=True)
    program.write_text(PROGRAM)
    subprocess.run(
        [sys.executable, program, folder, resume or "", json.dumps(options)],
        check=True, env=environment, timeout=300, capture_output=True, text=True,
    )  # fmt: skip


def taken(folder: Path) -> dict[int, list]:
    """What each step took, over all ranks and runs."""
    steps: dict[int, list] = {}
    for path in sorted(folder.glob("taken-*.jsonl")):
        for line in path.read_text().splitlines():
            for step, items in json.loads(line):
                steps.setdefault(step, []).extend(map(tuple, items))
    return {step: sorted(items) for step, items in steps.items()}


@pytest.mark.slow
def test_two_ranks_with_workers_cut_twice_end_as_one_run(tmp_path):
    """Cut at the end of an epoch and in the middle of the next, 2 steps an epoch; the second run
    has no workers."""
    ranks = {"devices": 2, "strategy": "ddp"}
    run(tmp_path / "whole", None, workers=2, max_epochs=3, **ranks)
    cut = tmp_path / "cut"
    run(cut, None, workers=2, max_epochs=1, **ranks)
    run(cut, cut / "last.ckpt", workers=0, max_steps=3, **ranks)
    run(cut, cut / "last.ckpt", workers=2, max_epochs=3, **ranks)
    assert content(read(cut / "last.ckpt")) == content(read(tmp_path / "whole/last.ckpt"))
    steps = taken(cut)
    assert steps == taken(tmp_path / "whole")
    assert sorted(steps) == list(range(6)) and {len(items) for items in steps.values()} == {4}


@pytest.mark.slow
def test_another_number_of_ranks_goes_on_with_the_same_samples(tmp_path):
    """One process, then two, then one: the steps take what one process alone takes, and the weights
    differ by rounding only."""
    run(tmp_path / "whole", None, max_steps=5)
    cut = tmp_path / "cut"
    run(cut, None, max_steps=1)
    run(cut, cut / "last.ckpt", max_steps=4, devices=2, strategy="ddp")
    run(cut, cut / "last.ckpt", max_steps=5, workers=2)
    assert taken(cut) == taken(tmp_path / "whole")
    one, other = read(cut / "last.ckpt"), read(tmp_path / "whole/last.ckpt")
    assert (one["epoch"], one["global_step"]) == (other["epoch"], other["global_step"]) == (2, 5)
    for name, tensor in one["state_dict"].items():
        assert torch.allclose(tensor, other["state_dict"][name], atol=1e-5)
