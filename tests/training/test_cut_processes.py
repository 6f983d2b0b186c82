"""What test_cuts.py proves in one process, with real ones: two ranks, two loader workers, and runs
that change both. The ranks are forked, so that none of them imports torch anew."""

import json
from pathlib import Path

import cut_runs
import pytest
import torch
from cut_runs import Line, content, fit, read

RANKS = {"devices": 2, "strategy": "ddp_fork"}


@pytest.fixture
def run(monkeypatch):
    """A run like `fit`, each of whose ranks writes down what its steps took."""

    def start(folder: Path, resume: Path | None = None, **options) -> None:
        class Writing(Line):
            def on_train_end(self) -> None:
                with open(folder / f"taken-{self.global_rank}.jsonl", "a") as file:
                    file.write(json.dumps(sorted(self.steps.items())) + "\n")

        folder.mkdir(exist_ok=True)
        monkeypatch.setattr(cut_runs, "Line", Writing)
        fit(folder, resume, **options)

    return start


def taken(folder: Path) -> dict[int, list]:
    """What each step took, over all ranks and runs."""
    steps: dict[int, list] = {}
    for path in sorted(folder.glob("taken-*.jsonl")):
        for line in path.read_text().splitlines():
            for step, items in json.loads(line):
                steps.setdefault(step, []).extend(map(tuple, items))
    return {step: sorted(items) for step, items in steps.items()}


def test_two_ranks_with_workers_cut_twice_end_as_one_run(tmp_path, run):
    """Cut at the end of an epoch and in the middle of the next, 2 steps an epoch; the second run
    has no workers."""
    run(tmp_path / "whole", workers=2, max_epochs=3, **RANKS)
    cut = tmp_path / "cut"
    run(cut, workers=2, max_epochs=1, **RANKS)
    run(cut, cut / "last.ckpt", workers=0, max_steps=3, **RANKS)
    run(cut, cut / "last.ckpt", workers=2, max_epochs=3, **RANKS)
    assert content(read(cut / "last.ckpt")) == content(read(tmp_path / "whole/last.ckpt"))
    steps = taken(cut)
    assert steps == taken(tmp_path / "whole")
    assert sorted(steps) == list(range(6)) and {len(items) for items in steps.values()} == {4}


def test_another_number_of_ranks_goes_on_with_the_same_samples(tmp_path, run):
    """One process, then two, then one: the steps take what one process alone takes, and the weights
    differ by rounding only."""
    run(tmp_path / "whole", max_steps=5)
    cut = tmp_path / "cut"
    run(cut, max_steps=1)
    run(cut, cut / "last.ckpt", max_steps=4, **RANKS)
    run(cut, cut / "last.ckpt", max_steps=5, workers=2)
    assert taken(cut) == taken(tmp_path / "whole")
    one, other = read(cut / "last.ckpt"), read(tmp_path / "whole/last.ckpt")
    assert (one["epoch"], one["global_step"]) == (other["epoch"], other["global_step"]) == (2, 5)
    for name, tensor in one["state_dict"].items():
        assert torch.allclose(tensor, other["state_dict"][name], atol=1e-5)
