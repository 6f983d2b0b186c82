"""`ablate` with other systems than the base's, in equal time, for real and tiny."""

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml

from lit_mimdit import cli
from lit_mimdit.ablation import command
from lit_mimdit.ablation.cost import cost, seconds_per_megapixel
from lit_mimdit.ablation.run import effective, progress, run
from lit_mimdit.ablation.runs import Run
from lit_mimdit.ablation.study import Study
from lit_mimdit.systems.classical import Classical
from lit_mimdit.systems.regression import Regression

MINUTES = 0.01
REGRESSION = {
    "class_path": "lit_mimdit.systems.regression.Regression",
    "init_args": {
        "widths": [4, 6],
        "blocks": 1,
        "tile": 32,
        "overlap": 8,
        "optimizer": {"lr": 1e-2, "schedule": "cosine"},
    },
}
SMALL = {"dim": 8, "num_blocks": [1, 1, 1, 1], "heads": [1, 1, 1, 1], "n_feats": 8}
SMALL |= {
    "optimizer": {"lr": 1e-3},
    "num_refinement_blocks": 1,
    "n_encoder_res": 1,
    "n_denoise_res": 1,
    "tile": 64,
    "overlap": 8,
}
MEDIAN = {
    "class_path": "lit_mimdit.systems.classical.Classical",
    "init_args": {"method": "median"},
}


def diffir(**arguments) -> dict:
    """Lines of a small DiffIR."""
    kind = "lit_mimdit.systems.diffir.DiffIR"
    return {"model": {"class_path": kind, "init_args": SMALL | arguments}}


STAGES = {
    "lines": diffir(stage=2, phase="joint"),
    "before": [
        {
            "name": "stage1",
            "lines": diffir(stage=1),
            "share": 0.5,
            "gives": "model.init_args.first_stage",
        },
        {
            "name": "prior",
            "lines": diffir(stage=2, phase="prior"),
            "share": 0.2,
            "gives": "model.init_args.init",
        },
    ],
}


def run_here(runs: list[Run], study: Study, jobs: int, threads: int) -> dict[str, str]:
    """All runs in this process, one by one: test_command.py has those in processes of their own."""
    for one in runs:
        one.write_plan(study)
        assert run(one.folder) == 0, one.name
    return {}


@pytest.fixture(scope="module")
def league(tiny_settings, write_settings, tmp_path_factory) -> Path:
    """A finished study of MiM-DiT, a regression from a whole experiment, and a classical tool."""
    folder = tmp_path_factory.mktemp("league")
    write_settings(folder / "base.yaml", tiny_settings)
    experiment = {"model": REGRESSION, "data": {"init_args": {"crop": 5}}, "trainer": {"x": 1}}
    (folder / "regression.yaml").write_text(yaml.safe_dump(experiment))
    study = {
        "base": "base.yaml",
        "full": "mimdit",
        "seeds": [0],
        "metrics": ["psnr"],
        "minutes": MINUTES,
        "settings": {"trainer": {"limit_val_batches": 0}},
        "variants": {
            "mimdit": {},
            "regression": {"file": "regression.yaml", "take": ["model"]},
            "median": {"lines": {"model": MEDIAN}},
            "diffir": STAGES,
        },
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "run_all", run_here)
        args = ["ablate", "-c", str(folder / "study.yaml"), "-o", str(folder / "out")]
        assert cli.main(args) == 0
    return folder / "out"


def run_of(league: Path, name: str) -> Path:
    return league / "runs" / name / "seed0"


def test_every_run_trains_for_its_time_and_says_so(league):
    for name in ("mimdit", "regression"):
        found = json.loads((run_of(league, name) / "cost.json").read_text())
        held = progress(run_of(league, name) / "checkpoints/last.ckpt")
        assert found["seconds"] == held["seconds"] >= 60 * MINUTES
        assert found["steps"] == held["steps"] > 0
    tool = json.loads((run_of(league, "median") / "cost.json").read_text())
    assert tool["seconds"] is tool["steps"] is tool["trained_parameters"] is None
    assert not (run_of(league, "median") / "log").exists(), "nothing was trained"


def test_trainings_that_come_first_share_the_time_and_hand_on_what_they_learned(league):
    folder = run_of(league, "diffir")
    trainings = {"before/stage1": 0.5, "before/prior": 0.2, "": 0.3}
    held = {name: progress(folder / name / "checkpoints/last.ckpt") for name in trainings}
    for name, share in trainings.items():
        assert held[name]["seconds"] >= 60 * MINUTES * share and held[name]["steps"] > 0
    found = json.loads((folder / "cost.json").read_text())
    for key in ("steps", "seconds"):
        assert found[key] == pytest.approx(sum(one[key] for one in held.values()))
    given = effective(folder / "log")["model"]["init_args"]
    assert Path(given["first_stage"]) == folder / "before/stage1/checkpoints/last.ckpt"
    assert Path(given["init"]) == folder / "before/prior/checkpoints/last.ckpt"
    prior = effective(folder / "before/prior/log")["model"]["init_args"]
    assert prior["first_stage"] == given["first_stage"] and prior["init"] is None
    first = effective(folder / "before/stage1/log")["model"]["init_args"]
    assert first["first_stage"] is None and first["init"] is None
    # killed before its costs were written, the run goes on and trains nothing anew
    (folder / "cost.json").unlink()
    assert run(folder) == 0
    again = json.loads((folder / "cost.json").read_text())
    assert (again["steps"], again["seconds"]) == (found["steps"], found["seconds"])


def test_tables_leave_empty_what_does_not_apply(league):
    rows = list(csv.DictReader((league / "results.csv").open(encoding="utf-8")))
    cells = {row["variant"]: row for row in rows if row["degradation"] == "all"}
    empty = {name: {key for key, cell in row.items() if cell == ""} for name, row in cells.items()}
    backbone = {"branch_flops", "forward_flops", "branch_flops_of_full", "forward_flops_of_full"}
    network = {"trained_parameters", "restore_flops", "restore_flops_of_full", "steps", "seconds"}
    assert backbone <= empty["regression"] and not network & empty["regression"]
    assert backbone | network <= empty["median"]
    assert not (backbone | network) & empty["mimdit"]
    assert backbone | network | {"seconds_per_megapixel"} <= empty.pop("degraded")
    assert all(float(cells[name]["seconds_per_megapixel"]) > 0 for name in empty)
    text = (league / "results.md").read_text()
    assert "Every run trained for 0.01 min" in text
    line = next(line for line in text.splitlines() if line.startswith("| median |"))
    assert line.split("|")[3:7] == [" - "] * 4


def test_the_routers_of_a_system_without_are_told_in_one_line(league, tmp_path, capsys, data_root):
    checkpoint = run_of(league, "regression") / "checkpoints/last.ckpt"
    args = ["--data", str(data_root / "test"), "--checkpoint", str(checkpoint)]
    assert cli.main(["routing", *args, "-o", str(tmp_path / "routing")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "it holds Regression, which has no routers; give one of a MiM branch" in said
    tests = [str(run_of(league, name) / "test") for name in ("regression", "median")]
    for number, folder in enumerate(tests):
        assert cli.main(["report", folder, "-o", str(tmp_path / f"report{number}")]) == 0
        text = (tmp_path / f"report{number}" / "report.md").read_text()
        assert "No routers: this system has none." in text


def test_cost_of_a_convolution_by_hand():
    """A network of one 3 x 3 convolution from 3 to 3 channels on 16 x 16 pixels."""
    system = Regression(widths=(4,), blocks=1)
    system.network = torch.nn.Conv2d(3, 3, 3, padding=1)
    system.network.multiple = 1
    found = cost(system, 16)
    assert found["restore_flops"] == 2 * 16 * 16 * 3 * 3 * 9
    assert found["trained_parameters"] == 3 * 3 * 9 + 3
    assert found["branch_flops"] is found["forward_flops"] is None
    assert all(parameter.requires_grad for parameter in system.network.parameters())
    tool = cost(Classical("median"), 16)
    assert tool["trained_parameters"] is tool["restore_flops"] is None
    assert tool["seconds_per_megapixel"] > 0


def test_seconds_a_megapixel_by_hand():
    """The fastest of 3, 2 and 9 s, for 200 x 100 pixels; then patience ends."""
    now, durations = [0.0], iter([3.0, 2.0, 9.0])

    def restorer(image, seeds):
        now[0] += next(durations)

    image = torch.zeros(1, 3, 200, 100)
    assert seconds_per_megapixel(restorer, image, lambda: now[0]) == pytest.approx(100.0)
