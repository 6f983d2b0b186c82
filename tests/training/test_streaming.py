"""Training from shards by several processes: every sample once an epoch, and `kill -9` leaves no trace."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

LAST = "runs/quickstart/checkpoints/last.ckpt"
TESTS = Path(__file__).parent


@pytest.fixture
def run(tiny, shard_root, tmp_path):
    """Runs `fit --ckpt_path last` in a process group of its own, in a folder of the test; the same command goes on where it was killed."""

    def start(folder: str, ranks: int, workers: int, kill_at: int = -1, **changes) -> list[list[str]]:
        (tmp_path / folder).mkdir(exist_ok=True)
        # 10 pairs, 2 steps of 4 an epoch: step 3 ends in the middle of the second epoch
        values = {"train": str(shard_root), "workers": workers, "window": 2, "augment": "dihedral"}
        changes = {f"data.init_args.{key}": value for key, value in values.items()} | {"trainer.limit_val_batches": 0} | changes
        if ranks > 1:
            changes |= {"trainer.devices": ranks, "trainer.strategy": "ddp_find_unused_parameters_true"}
        config = Path(tiny(**changes))
        settings = yaml.safe_load(config.read_text())
        settings["trainer"]["callbacks"].insert(0, {"class_path": "recorder.Recorder"})
        (tmp_path / folder / "tiny.yaml").write_text(yaml.safe_dump(settings))
        path = os.pathsep.join([str(TESTS), str(TESTS.parents[1]), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"KILL_AT": str(kill_at), "PYTHONPATH": path}
        command = [sys.executable, "-m", "lit_mimdit", "fit", "-c", "tiny.yaml", "--ckpt_path", "last"]
        with open(tmp_path / folder / "output.txt", "ab") as output:
            process = subprocess.Popen(
                command, cwd=tmp_path / folder, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                status = process.wait(timeout=400)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
        said = (tmp_path / folder / "output.txt").read_text()
        assert status == (0 if kill_at < 0 else -signal.SIGKILL), said[-3000:]
        return [(tmp_path / folder / f"seen-{rank}.txt").read_text().splitlines() for rank in range(ranks)]

    return start


def tensors(path: Path) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    found = dict(checkpoint["state_dict"])
    for index, state in checkpoint["optimizer_states"][0]["state"].items():
        found |= {f"optimizer {index} {key}": tensor for key, tensor in state.items()}
    return found


def steps(lines: list[str]) -> dict[int, str]:
    """What was given in each step; the same if it was given twice."""
    found: dict[int, str] = {}
    for line in lines:
        number, _, rest = line.partition(" ")
        assert found.setdefault(int(number), rest) == rest, f"step {number} was done again with something else"
    return found


def ids(line: str) -> list[str]:
    return line.split(" ")[1].split(",")


@pytest.mark.parametrize("ranks", [1, 2])
def test_kill_9_after_any_step_and_the_same_command_again(run, tmp_path, ranks):
    """Workers 0 and 2, killed before the first checkpoint, right behind it, and later: ids, crops, turns, noise and parameters."""
    whole = [steps(rank) for rank in run("whole", ranks, workers=2)]
    assert [sorted(rank) for rank in whole] == [list(range(6))] * ranks
    for epoch in range(3):
        seen = [name for rank in whole for step in (2 * epoch, 2 * epoch + 1) for name in ids(rank[step])]
        assert len(seen) == len(set(seen)) == 8, "each sample once an epoch over all ranks and workers"
    assert len({ids(whole[0][2 * epoch])[0] + ids(whole[0][2 * epoch])[1] for epoch in range(3)}) > 1, "the order differs by epoch"
    for workers, kill_at in ((2, 4), (0, 2)) if ranks == 2 else ((0, 4), (2, 3)):
        folder = f"killed-{workers}"
        interrupted = run(folder, ranks, workers, kill_at)
        assert max(map(int, (line.split()[0] for line in interrupted[0]))) == kill_at
        assert [steps(rank) for rank in run(folder, ranks, workers)] == whole
        one, other = tensors(tmp_path / "whole" / LAST), tensors(tmp_path / folder / LAST)
        assert one.keys() == other.keys() and [name for name in one if not torch.equal(one[name], other[name])] == []


def test_another_number_of_ranks_goes_on_with_the_next_sample(run):
    """Two ranks with a batch of 2 each, killed in the second epoch; one process with two accumulated batches of 2 ends it."""
    two = run("elastic", 2, 0, kill_at=4)
    before = [ids(line.partition(" ")[2]) for rank in two for line in rank if line.startswith("2 ")]
    Path("elastic/seen-0.txt").unlink()
    accumulate = {"trainer.accumulate_grad_batches": 2, "data.init_args.micro_batch": 2}
    (one,) = run("elastic", 1, 2, **accumulate)
    after = [ids(line.partition(" ")[2]) for line in one if line.split()[1] == "1"]
    seen = [name for batch in before + after for name in batch]
    assert len(after) >= 2 and len(seen) == len(set(seen)) >= 8, "no sample of the epoch twice"
    together = [sorted(name for rank in two for line in rank if line.startswith("3 ") for name in ids(line.partition(" ")[2]))]
    assert not together[0] or sorted(after[0] + after[1]) == together[0], "the batch that was lost is the next one"
