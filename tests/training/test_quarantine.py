"""A broken sample costs neither the run nor its record; too many of them do."""

import csv
import shutil
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_mimdit import cli


def broken_copy(data_root: Path, tmp_path: Path) -> Path:
    root = Path(shutil.copytree(data_root, tmp_path / "broken"))
    sorted((root / "train" / "05Noise" / "GT").iterdir())[0].write_bytes(b"")
    return root


def test_a_broken_sample_is_listed_once_and_counted_and_training_goes_on(tiny, data_root, tmp_path):
    changes = {
        "data.init_args.root": str(broken_copy(data_root, tmp_path)),
        "data.init_args.max_broken": 0.2,
        "data.init_args.workers": 2,
    }
    assert (
        cli.main(
            [
                "fit",
                "-c",
                tiny(**changes, **{"trainer.max_steps": 8, "trainer.limit_val_batches": 0}),
            ]
        )
        == 0
    )
    with open("runs/quickstart/version_0/quarantine.csv", newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["id"] == "train/05Noise/0021" and "zero bytes" in row["reason"]
    (events,) = Path("runs/quickstart/version_0").glob("events.*")
    assert EventAccumulator(str(events)).Reload().Scalars("data/broken")[-1].value == 1


def test_too_many_broken_samples_stop_the_run_with_a_line(tiny, data_root, tmp_path, capsys):
    changes = {
        "data.init_args.root": str(broken_copy(data_root, tmp_path)),
        "trainer.limit_val_batches": 0,
    }  # 1 of 10 is more than 1%
    assert cli.main(["fit", "-c", tiny(**changes)]) == 2
    said = capsys.readouterr().err
    assert (
        "1 of 10 training samples cannot be read, more than data.max_broken = 0.01 allows" in said
        and "quarantine.csv" in said
    )
