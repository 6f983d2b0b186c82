"""`ablate` for real, with everything tiny: what it shares, survives and repeats."""

import csv
import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from lit_mimdit import cli
from lit_mimdit.ablation.cost import cost
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.system_class import build_system
from lit_mimdit.inference.system_file import load_system
from lit_mimdit.models.network import MiMDiTNetwork
from lit_mimdit.systems.base import RestorationSystem

pytestmark = pytest.mark.usefixtures("processes")  # each run of a study is one

DENSE = {"lines": {"model": {"init_args": {"branch": {"intra": {"router": "dense"}}}}}}
SHARED = {"lines": {"model": {"init_args": {"branch": {"routers": "shared"}}}}}
BAD = {"lines": {"model": {"init_args": {"branch": {"heads": 3}}}}}


def study(
    tiny_settings,
    write_settings,
    folder: Path,
    steps: int,
    variants: dict,
    seeds: tuple[int, ...] = (0, 1),
) -> list[str]:
    """Writes a study with its base; its command."""
    write_settings(folder / "base.yaml", tiny_settings)
    settings = {
        "trainer": {"max_steps": steps, "limit_val_batches": 0},
        "model": {"init_args": {"versions": ["restored"]}},
    }
    values = {
        "base": "base.yaml",
        "full": "full",
        "seeds": list(seeds),
        "metrics": ["psnr", "ssim_y"],
        "settings": settings,
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(values | {"variants": variants}))
    return ["ablate", "-c", str(folder / "study.yaml"), "-o", str(folder / "out")]


@pytest.fixture(scope="module")
def done(tiny_settings, write_settings, tmp_path_factory) -> tuple[Path, list[str]]:
    """A study of 2 seeds with a variant that cannot be built, run to its end."""
    folder = tmp_path_factory.mktemp("ablation")
    command = study(
        tiny_settings,
        write_settings,
        folder,
        3,
        {"full": {}, "dense": DENSE, "shared": SHARED, "bad": BAD},
    )
    before = dict(os.environ)
    assert cli.main([*command, "--jobs", "2"]) == 1
    assert dict(os.environ) == before, "what is started later has as many threads as before"
    return folder / "out", command


def system_of_run(run: Path) -> RestorationSystem:
    """The trained system of a run."""
    return build_system(load_system(run / "checkpoints/last.ckpt"), "the run")


def first_loss(run: Path) -> float:
    events = EventAccumulator(str(next((run / "log").glob("events.*")))).Reload()
    return events.Scalars("train/loss")[0].value


def test_learning_curves_of_all_runs_are_written(done):
    rows = list(csv.DictReader((done[0] / "curves.csv").open(encoding="utf-8")))
    assert {(row["variant"], row["seed"]) for row in rows} == {
        (v, s) for v in ("full", "dense", "shared") for s in "01"
    }
    assert float(rows[0]["loss"]) == pytest.approx(
        first_loss(done[0] / "runs/full/seed0"), rel=1e-4
    )
    assert (done[0] / "curves.png").stat().st_size > 5000


def test_a_run_that_fails_is_named_and_the_others_are_done(done, capsys):
    out, command = done
    made = sorted(
        path.parent.relative_to(out / "runs").as_posix() for path in out.rglob("cost.json")
    )
    assert made == [
        f"{variant}/seed{seed}" for variant in ("dense", "full", "shared") for seed in (0, 1)
    ]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("test_summary.json")}
    assert cli.main(command) == 1, "again: only what failed is tried"
    said = capsys.readouterr()
    assert (
        "error: bad, seed 0: branch.width is 16 and branch.heads 3" in said.err
        and "| dense | 2 |" in said.out
    )
    assert {path: path.stat().st_mtime_ns for path in out.rglob("test_summary.json")} == before
    assert cli.main([*command, "--only", "dense"]) == 0


def test_runs_of_a_seed_share_pairs_order_and_noise(done):
    """With a Zero Linear of zeros the first loss depends on pairs, noise and times alone."""
    runs = done[0] / "runs"
    losses = {
        (variant, seed): first_loss(runs / variant / f"seed{seed}")
        for variant in ("full", "dense")
        for seed in (0, 1)
    }
    assert losses["full", 0] == losses["dense", 0] != losses["full", 1] == losses["dense", 1]


def test_shared_routers_travel_through_checkpoints_and_cost_less(done):
    """Their file holds them once, loads again, and averages like the rest."""
    restorers = [
        load_restorer(
            done[0] / f"runs/{name}/seed0/checkpoints/last.ckpt", None, torch.device("cpu")
        )
        for name in ("full", "shared")
    ]
    own, shared = (restorer.network.branch for restorer in restorers)
    file = load_system(done[0] / "runs/shared/seed0/checkpoints/last.ckpt").tensors
    assert shared.config.routers == "shared" and not any(
        "mims.1" in name and "router" in name for name in file
    )
    assert shared.mims[2].groups[1].router is shared.mims[0].groups[1].router
    assert torch.equal(shared.mims[2].router.project.weight, file["mims.0.router.project.weight"])
    assert (
        sum(p.numel() for p in shared.parameters())
        == sum(t.numel() for t in file.values())
        < sum(p.numel() for p in own.parameters())
    )


def test_only_what_training_changes_is_scored_again(done, tiny, capsys):
    """`versions: [restored]`: the same scores as with all three, and no others."""
    summary = json.loads((done[0] / "runs/full/seed0/test/test_summary.json").read_text())
    assert summary["versions"] == ["restored"]
    assert cli.main(["test", "-c", tiny(**{"model.init_args.versions": ["degraded"]})]) == 2
    assert "restored must be among them" in capsys.readouterr().err


def test_gates_are_no_hindrance_to_the_counter(done):
    """Parameters that a module gives out as they are."""
    system = system_of_run(done[0] / "runs/full/seed0")
    network = system.network
    system.network = MiMDiTNetwork(
        network.backbone, replace(network.branch.config, fusion="zero_gated"), network.prompt
    )
    assert cost(system, 32)["branch_flops"] > 0
    assert all(p.requires_grad for p in system.network.branch.parameters())


def test_costs_are_those_of_the_trained_network(done):
    """The branch's products, counted by hand: a multiplication and an addition are two."""
    system = system_of_run(done[0] / "runs/full/seed0")
    for mim in system.network.branch.mims:
        mim.groups = nn.ModuleList([mim.groups[3]])
        mim.router.project, mim.router.top_k = nn.Linear(16, 1), 1
    tokens, width, outer, hidden = 16, 16, 16, 32  # 32 px, 8 px a token
    found = cost(system, 32)
    branch, whole = found["branch_flops"], found["forward_flops"]
    per_token = (
        outer * width + 2 * width * hidden + width * outer
    )  # projection, feed-forward, Zero Linear
    mim = (
        tokens * per_token + width * 1 + width * 2 + 2 * width * 4
    )  # and two routers, and one SE expert that squeezes to 4
    assert branch == 2 * (tokens * (16 * 2 * 2) * outer + 3 * mim), "patches, and three blocks"
    assert found["trained_parameters"] == sum(p.numel() for p in system.trained.parameters())
    assert whole > 3 * branch and found["image"] == "32 x 32"
    # 2 steps, with the branch once: the VAE comes on top
    assert found["restore_flops"] > 2 * (whole - branch) + branch


def scores(table: Path) -> list[dict[str, str]]:
    """Rows of results.csv without the columns that a clock filled in."""
    rows = csv.DictReader(table.open(encoding="utf-8"))
    return [{name: row[name] for name in row if not name.startswith("seconds")} for row in rows]


def test_a_killed_run_goes_on_and_ends_with_the_same_bits(
    processes, tiny_settings, write_settings, tmp_path
):
    """A run whose process gets kill -9 between two checkpoints.

    It is named, and the same command finishes it from there.
    """
    folders = [tmp_path / name for name in ("whole", "killed")]
    for folder in folders:
        folder.mkdir()
    whole, killed = (
        study(tiny_settings, write_settings, folder, 10, {"full": {}}, (0,)) for folder in folders
    )
    assert cli.main(whole) == 0
    run = folders[1] / "out/runs/full/seed0"
    process = processes.Popen(
        [sys.executable, "-m", "lit_mimdit", *killed], stderr=processes.PIPE, text=True
    )
    until = time.monotonic() + 280
    while not (run / "checkpoints/step=3.ckpt").is_file():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    os.kill(int((run / "pid").read_text()), signal.SIGKILL)
    error = process.communicate(timeout=280)[1]
    assert process.returncode == 1 and "full, seed 0: ended by signal 9" in error
    assert not (run / "cost.json").is_file() and not (run / "checkpoints/step=10.ckpt").is_file()
    assert cli.main(killed) == 0
    one, other = (
        load_system(folder / "out/runs/full/seed0/checkpoints/last.ckpt").tensors
        for folder in folders
    )
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    results = [scores(folder / "out/results.csv") for folder in folders]
    assert results[0] == results[1] and "from" in (run / "log.txt").read_text()


def test_missing_test_images_are_told_before_the_first_run(
    tiny_settings, write_settings, tmp_path, capsys
):
    command = study(tiny_settings, write_settings, tmp_path, 3, {"full": {}})
    values = yaml.safe_load((tmp_path / "study.yaml").read_text())
    (tmp_path / "study.yaml").write_text(
        yaml.safe_dump(
            values | {"test": {"data": {"init_args": {"root": "gone", "sample_data": False}}}}
        )
    )
    assert cli.main(command) == 2
    assert (
        "there is no folder 'gone'" in capsys.readouterr().err
        and not (tmp_path / "out/runs").exists()
    )
    assert cli.main([*command, "--jobs", "0"]) == 2 and cli.main([*command, "--only", "fool"]) == 2
    assert "no variant 'fool'; it has full" in capsys.readouterr().err
