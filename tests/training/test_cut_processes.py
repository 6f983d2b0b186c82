"""What test_cuts.py proves in one process, with real ones: two ranks, two loader workers, and runs
that change both. The ranks are forked, so that none of them imports torch anew."""

import json
from pathlib import Path

import cut_runs
import pytest
import torch
from cut_runs import Line, content, fit, read

ONE, TWO = ({"devices": ranks, "strategy": "ddp_fork"} for ranks in (1, 2))


class Writing(Line):
    """Notes in `folder` what the steps of each rank took, when a run ends."""

    folder: Path

    def on_train_end(self) -> None:
        with open(self.folder / f"taken-{self.global_rank}.jsonl", "a") as file:
            file.write(json.dumps(sorted(self.steps.items())) + "\n")


def fit_all(runs: list[tuple[Path, Path | None, dict]]) -> None:
    """Runs like `fit`, one after the other; each rank writes down what its steps took."""
    cut_runs.Line = Writing
    for folder, resume, options in runs:
        folder.mkdir(exist_ok=True)
        Writing.folder = folder
        fit(folder, resume, **options)


def taken(folder: Path) -> dict[int, list]:
    """What each step took, over all ranks and runs."""
    steps: dict[int, list] = {}
    for path in sorted(folder.glob("taken-*.jsonl")):
        for line in path.read_text().splitlines():
            for step, items in json.loads(line):
                steps.setdefault(step, []).extend(map(tuple, items))
    return {step: sorted(items) for step, items in steps.items()}


@pytest.fixture(scope="module")
def folder(in_fresh_process, tmp_path_factory) -> Path:
    """The folder of all runs below, which one new process starts: it imports torch once."""
    folder = tmp_path_factory.mktemp("cuts")
    whole, cut, single, changing = (
        folder / name for name in ("whole", "cut", "single", "changing")
    )
    runs = [
        (whole, None, {"workers": 2, "max_epochs": 3} | TWO),
        (cut, None, {"workers": 2, "max_epochs": 1} | TWO),
        (cut, cut / "last.ckpt", {"workers": 0, "max_steps": 3} | TWO),
        (cut, cut / "last.ckpt", {"workers": 2, "max_epochs": 3} | TWO),
        (single, None, {"max_steps": 5} | ONE),
        (changing, None, {"max_steps": 1} | ONE),
        (changing, changing / "last.ckpt", {"max_steps": 4} | TWO),
        (changing, changing / "last.ckpt", {"max_steps": 5, "workers": 2} | ONE),
    ]
    in_fresh_process(fit_all, runs)
    return folder


def test_two_ranks_with_workers_cut_twice_end_as_one_run(folder):
    """Cut at the end of an epoch and in the middle of the next, 2 steps an epoch; the second run
    has no workers."""
    whole, cut = folder / "whole", folder / "cut"
    assert content(read(cut / "last.ckpt")) == content(read(whole / "last.ckpt"))
    steps = taken(cut)
    assert steps == taken(whole)
    assert sorted(steps) == list(range(6)) and {len(items) for items in steps.values()} == {4}


def test_another_number_of_ranks_goes_on_with_the_same_samples(folder):
    """One process, then two, then one: the steps take what one process alone takes, and the weights
    differ by rounding only."""
    whole, cut = folder / "single", folder / "changing"
    assert taken(cut) == taken(whole)
    one, other = read(cut / "last.ckpt"), read(whole / "last.ckpt")
    assert (one["epoch"], one["global_step"]) == (other["epoch"], other["global_step"]) == (2, 5)
    for name, tensor in one["state_dict"].items():
        assert torch.allclose(tensor, other["state_dict"][name], atol=1e-5)
