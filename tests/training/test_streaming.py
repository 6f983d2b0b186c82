"""Training from shards by several processes.

Every sample once an epoch, `kill -9` leaves no trace, faults are reported once.
"""

import csv
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml
from kit.checkpoints import tensors

from lit_mimdit.data.shards.source import ShardSource

LAST = "runs/quickstart/checkpoints/last.ckpt"


@pytest.fixture
def run(starter, tiny, shard_root, tmp_path):
    """Runs `fit --ckpt_path last` in a folder of the test, one process a rank; the same command
    goes on where it was killed.
    """

    def start(
        folder: str, ranks: int, workers: int, kill_at: int = -1, **changes
    ) -> list[list[str]]:
        (tmp_path / folder).mkdir(exist_ok=True)
        # 10 pairs, 2 steps of 4 an epoch: step 3 ends in the middle of the second epoch
        values = {"train": str(shard_root), "workers": workers, "window": 2, "augment": "dihedral"}
        changes = (
            {f"data.init_args.{key}": value for key, value in values.items()}
            | {"trainer.limit_val_batches": 0}
            | changes
        )
        if ranks > 1:
            changes |= {
                "trainer.devices": ranks,
                "trainer.strategy": "ddp_find_unused_parameters_true",
            }
        settings = yaml.safe_load(Path(tiny(**changes)).read_text())
        kept = (
            "ModelCheckpoint",
            "EMA",
            "BrokenSamples",
        )  # pictures and histograms have tests of their own
        callbacks = [
            entry
            for entry in settings["trainer"]["callbacks"]
            if entry["class_path"].rsplit(".", 1)[-1] in kept
        ]
        settings["trainer"]["callbacks"] = [{"class_path": "kit.watch.Watch"}, *callbacks]
        (tmp_path / folder / "tiny.yaml").write_text(yaml.safe_dump(settings))
        args = ["fit", "-c", "tiny.yaml", "--ckpt_path", "last"]
        statuses = starter.statuses(tmp_path / folder, args, ranks, KILL_AT=kill_at)
        said = (tmp_path / folder / "output.txt").read_text()
        assert statuses == [0 if kill_at < 0 else -signal.SIGKILL] * ranks, said[-3000:]
        return [
            (tmp_path / folder / f"given-{rank}.txt").read_text().splitlines()
            for rank in range(ranks)
        ]

    return start


def steps(lines: list[str]) -> dict[int, str]:
    """What was given in each step; the same if it was given twice."""
    found: dict[int, str] = {}
    for line in lines:
        number, _, rest = line.partition(" ")
        assert found.setdefault(int(number), rest) == rest, (
            f"step {number} was done again with something else"
        )
    return found


def ids(line: str) -> list[str]:
    return line.split(" ")[1].split(",")


@pytest.mark.parametrize("ranks, kills", [(1, ((2, 2), (0, 3), (2, 4))), (2, ((2, 1), (0, 4)))])
def test_kill_9_after_any_step_and_the_same_command_again(run, tmp_path, ranks, kills):
    """One run killed again and again, with 0 and 2 workers: before the first checkpoint, right
    behind it, later. Ids, crops, turns, noise, parameters and moments are those of the run that
    nobody killed."""
    whole = [steps(rank) for rank in run("whole", ranks, workers=2)]
    assert [sorted(rank) for rank in whole] == [list(range(6))] * ranks
    for epoch in range(3):
        seen = [
            name
            for rank in whole
            for step in (2 * epoch, 2 * epoch + 1)
            for name in ids(rank[step])
        ]
        assert len(seen) == len(set(seen)) == 8, (
            "each sample once an epoch over all ranks and workers"
        )
    assert (
        len({ids(whole[0][2 * epoch])[0] + ids(whole[0][2 * epoch])[1] for epoch in range(3)}) > 1
    ), "the order differs by epoch"
    for workers, kill_at in kills:
        interrupted = run("killed", ranks, workers, kill_at)
        assert max(map(int, (line.split()[0] for line in interrupted[0]))) == kill_at
    assert [steps(rank) for rank in run("killed", ranks, workers=2)] == whole
    one, other = tensors(tmp_path / "whole" / LAST), tensors(tmp_path / "killed" / LAST)
    assert one.keys() ^ other.keys() == set()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_another_number_of_ranks_goes_on_with_the_next_sample(run):
    """Two ranks with a batch of 2 each, killed in the second epoch; one process with two
    accumulated batches of 2 ends it.
    """
    two = run("elastic", 2, 0, kill_at=4)
    before = [ids(line.partition(" ")[2]) for rank in two for line in rank if line.startswith("2 ")]
    Path("elastic/given-0.txt").unlink()
    accumulate = {"trainer.accumulate_grad_batches": 2, "data.init_args.micro_batch": 2}
    (one,) = run("elastic", 1, 2, **accumulate)
    after = [ids(line.partition(" ")[2]) for line in one if line.split()[1] == "1"]
    seen = [name for batch in before + after for name in batch]
    assert len(after) >= 2 and len(seen) == len(set(seen)) >= 8, "no sample of the epoch twice"
    together = [
        sorted(
            name
            for rank in two
            for line in rank
            if line.startswith("3 ")
            for name in ids(line.partition(" ")[2])
        )
    ]
    assert not together[0] or sorted(after[0] + after[1]) == together[0], (
        "the batch that was lost is the next one"
    )


def test_what_two_ranks_meet_is_reported_once(run, shard_root, tmp_path):
    """A damaged pair, which one rank meets in one epoch and perhaps the other in the next; a cache
    that none of their workers can use.
    """
    damaged = Path(shutil.copytree(shard_root, tmp_path / "damaged"))
    source = ShardSource(str(shard_root))
    tar = damaged / source.manifest.shards[1].name
    data = bytearray(tar.read_bytes())
    for tile in range(4):  # all tiles of the shard's first pair
        data[int(source._index(1).spans[tile, 0, 0]) + 30] ^= 255
    tar.write_bytes(data)
    (tmp_path / "file").touch()
    broken = source.about(source.indices(1)[0]).id
    changes = {
        "train": str(damaged),
        "cache_dir": str(tmp_path / "file" / "cache"),
        "max_broken": 0.2,
    }
    seen = run(
        "faults",
        2,
        2,
        **{f"data.init_args.{key}": value for key, value in changes.items()},
        **{"trainer.max_steps": 8},
    )
    given = [name for rank in seen for line in rank for name in ids(line.partition(" ")[2])]
    assert len(given) == 8 * 4 and broken not in given, (
        "another takes its place, and no batch is smaller"
    )
    with open(
        "faults/runs/quickstart/version_0/quarantine.csv", newline="", encoding="utf-8"
    ) as file:
        rows = {row["id"]: row["reason"] for row in csv.DictReader(file)}
        file.seek(0)
        assert len(file.readlines()) == 1 + len(rows)
    assert (
        rows.keys() == {"cache", broken}
        and "Not a directory" in rows["cache"]
        and "checksum" in rows[broken]
    )
    said = Path("faults/output.txt").read_text()
    assert said.count(f"not read: {broken}: ") == 1 and said.count("mended: cache: ") == 1
