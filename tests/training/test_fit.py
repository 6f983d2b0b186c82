"""One real run of the command, looked at from every side."""

import csv
import io
import math
import re
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils._pytree import tree_leaves

from lit_mimdit import cli
from lit_mimdit.inference.system_file import load_system
from lit_mimdit.models.backbone import load_backbone

GOLDEN = [2.85479, 2.67556, 2.74709]


@pytest.fixture(scope="module")
def run(tiny_settings, write_settings, tmp_path_factory) -> tuple[Path, str]:
    """Folder and output of a run of 6 steps with two validations."""
    folder, output = tmp_path_factory.mktemp("run"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(output):
        patch.chdir(folder)
        assert cli.main(["fit", "-c", write_settings(folder / "tiny.yaml", tiny_settings)]) == 0
    return folder, output.getvalue()


@pytest.fixture(scope="module")
def events(run) -> list[EventAccumulator]:
    files = sorted((run[0] / "runs" / "quickstart" / "version_0").glob("events.*"))
    loaded = [
        EventAccumulator(str(file), size_guidance={"histograms": 0, "images": 0}) for file in files
    ]
    return [events.Reload() for events in loaded]


def scalars(events: list[EventAccumulator], tag: str) -> dict[int, float]:
    return {
        e.step: e.value for one in events if tag in one.Tags()["scalars"] for e in one.Scalars(tag)
    }


def test_the_first_losses_are_the_known_ones(events):
    losses = scalars(events, "train/loss")
    found = [losses[step] for step in sorted(losses)[:3]]
    assert found == pytest.approx(GOLDEN, rel=2e-3), (
        f"the first losses are {[round(x, 5) for x in found]}, they were {GOLDEN}. If this change"
        " was meant to alter numbers (data order, noise, network, objective, optimizer), say so in"
        " CHANGELOG.md and write the new ones here; if not, it is a defect"
    )


def test_tensorboard_holds_what_a_researcher_looks_at(events):
    assert len(scalars(events, "train/loss")) == 6
    by_time = {
        tag for one in events for tag in one.Tags()["scalars"] if tag.startswith("train/loss_t")
    }
    assert by_time and all(
        math.isfinite(v) for tag in by_time for v in scalars(events, tag).values()
    )
    rates = scalars(events, "lr-Adam") or scalars(events, "lr-Adam/rest")
    assert sorted(rates.values())[-1] == pytest.approx(1e-3) and len(set(rates.values())) > 2
    norms = scalars(events, "train/gradient_norm")
    assert len(norms) == 6 and all(0 < value < math.inf for value in norms.values())
    assert all(value > 0 for value in scalars(events, "train/images_per_s").values()) and scalars(
        events, "train/images_per_s"
    )
    for version in ("degraded", "restored", "vae_round_trip"):
        assert {2, 5} <= scalars(events, f"val/psnr_{version}").keys(), (
            "after steps 3 and 6, counted from 0"
        )
        assert scalars(events, f"val/ssim_rgb_{version}")


def test_tensorboard_holds_pictures_of_both_validations(events):
    pictures = [
        e
        for one in events
        if "samples/lq_restored_gt" in one.Tags()["images"]
        for e in one.Images("samples/lq_restored_gt")
    ]
    assert {e.step for e in pictures} == {3, 6}
    assert all((e.width, e.height) == (3 * 32 + 8, 2 * 36 + 4) for e in pictures)


def test_tensorboard_holds_the_inter_moe_weights_of_every_block_and_group(events):
    kinds = ["0_spatial", "1_channel", "2_swin", "3_se"]
    for block in range(3):
        for kind in kinds:
            tag = f"inter_moe_train/block_{block:02d}_{kind}"
            histograms = [
                e for one in events if tag in one.Tags()["histograms"] for e in one.Histograms(tag)
            ]
            assert [e.step for e in histograms] == [2, 4, 6]
            assert all(
                e.histogram_value.num == 8 and 0 < e.histogram_value.sum < 8 for e in histograms
            ), "validation does not count here"


def test_the_screen_shows_the_modules_and_the_final_table(run):
    said = run[1]
    assert (
        "network.backbone" in said
        and "network.branch" in said
        and "Trainable params" in said
        and "Non-trainable params" in said
    )
    table = said[said.index("val: PSNR (dB) and SSIM of 2 images") :]
    assert all(
        word in table
        for word in (
            "01Blur",
            "05Noise",
            "all",
            "degraded",
            "restored",
            "vae_round_trip",
            "95% interval",
        )
    )
    assert said.index("Trainable params") < said.index("val: PSNR")
    assert said.count("val: PSNR") == 1, "the table is the end, not every validation"
    assert "loss=" in said and "images_per_s=" in said and "6/6" in said


def test_the_csv_has_every_image(run):
    with open(run[0] / "runs" / "quickstart" / "version_0" / "val_scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["val/01Blur/0001", "val/05Noise/0005"] and float(
        rows[0]["restored_psnr"]
    ) > 0


def test_a_checkpoint_holds_the_branch_and_nothing_frozen(run):
    path = run[0] / "runs" / "quickstart" / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    names = checkpoint["state_dict"].keys()
    assert names and all(name.startswith("network.branch.") for name in names)
    (average,) = [
        state["average"]
        for name, state in checkpoint["callbacks"].items()
        if name.startswith("EMA")
    ]
    assert average.keys() == names
    optimizer = checkpoint["optimizer_states"][0]
    assert sum(len(group["params"]) for group in optimizer["param_groups"]) == len(names)
    assert len(optimizer["state"]) == len(names), (
        "a sub-expert that no image chose has a gradient of 0"
    )
    assert "loops" in checkpoint and checkpoint["rng"].dtype == torch.uint8
    moved = [
        name for name in names if not torch.equal(average[name], checkpoint["state_dict"][name])
    ]
    assert len(moved) > len(names) / 2, "the average lags behind the parameters,"
    for name in names:  # by less than 6 steps of at most 1e-3
        torch.testing.assert_close(average[name], checkpoint["state_dict"][name], rtol=0, atol=6e-3)


def test_restoring_takes_the_average(run):
    path = run[0] / "runs" / "quickstart" / "checkpoints" / "last.ckpt"
    checkpoint, file = torch.load(path, weights_only=True), load_system(path)
    (average,) = [
        state["average"]
        for name, state in checkpoint["callbacks"].items()
        if name.startswith("EMA")
    ]
    assert all(
        torch.equal(file.tensors[name.removeprefix("network.branch.")], tensor)
        for name, tensor in average.items()
    )
    assert file.sampling["steps"] == 2 and file.arguments["branch"]["width"] == 16


def test_the_size_of_a_checkpoint_is_that_of_its_tensors(tiny):
    """Within 5%, at a width where tensors outweigh their names.

    No tensor is a view of a larger one, nothing else is stored.
    """
    changes = {
        "model.init_args.branch.width": 160,
        "trainer.max_steps": 1,
        "trainer.limit_val_batches": 0,
    }
    assert cli.main(["fit", "-c", tiny(**changes)]) == 0
    path = Path("runs/quickstart/checkpoints/last.ckpt")
    leaves = tree_leaves(torch.load(path, weights_only=True))
    needed = sum(leaf.nbytes for leaf in leaves if isinstance(leaf, torch.Tensor))
    parameters = sum(p.nbytes for p in torch.load(path, weights_only=True)["state_dict"].values())
    assert path.stat().st_size == pytest.approx(needed, rel=0.05)
    assert 4_000_000 < parameters < needed < 4.01 * parameters, (
        "parameters, average, and at most two moments"
    )


def test_a_bare_fast_dev_run_leaves_nothing_behind(tiny, tmp_path):
    assert cli.main(["fit", "-c", tiny(), "--trainer.fast_dev_run"]) == 0
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["tiny.yaml"]


def test_export_writes_the_average_and_init_starts_from_it(run, tiny, capsys):
    last = run[0] / "runs" / "quickstart" / "checkpoints" / "last.ckpt"
    assert cli.main(["export", str(last), "-o", "branch.safetensors", "--dtype", "float32"]) == 0
    assert "branch.safetensors: 0.0" in capsys.readouterr().out
    ours, theirs = load_system("branch.safetensors"), load_system(last)
    assert all(torch.equal(ours.tensors[name], tensor) for name, tensor in theirs.tensors.items())
    config = tiny(
        **{
            "model.init_args.init": "branch.safetensors",
            "trainer.limit_train_batches": 0,
            "trainer.limit_val_batches": 0,
        }
    )
    assert cli.main(["validate", "-c", config, "--trainer.limit_val_batches", "2"]) == 0
    scores = next(Path("runs").rglob("val_scores.csv")).read_text()
    assert (
        scores == (run[0] / "runs" / "quickstart" / "version_0" / "val_scores.csv").read_text()
    ), "the trained branch, its average"


def test_validate_and_test_take_the_average_of_a_checkpoint(run, tiny, capsys):
    last = str(run[0] / "runs" / "quickstart" / "checkpoints" / "last.ckpt")
    assert cli.main(["validate", "-c", tiny(), "--ckpt_path", last]) == 0
    scores = next(Path("runs").rglob("val_scores.csv")).read_text()
    assert scores == (run[0] / "runs" / "quickstart" / "version_0" / "val_scores.csv").read_text()
    assert cli.main(["test", "-c", tiny(), "--ckpt_path", last]) == 0
    assert "test: PSNR (dB) and SSIM of 2 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"model.init_args.branch.width": 32},
            "does not fit model.branch: parameters .* of another shape .such as",
        ),
        ({"model.init_args.branch.fusion": "zero_gated"}, "1 missing .such as gates"),
        ({"model.init_args.branch.intra": {"experts": 1, "top_k": 1}}, "unknown .such as"),
    ],
)
def test_a_checkpoint_of_another_branch_is_refused_by_name(run, tiny, capsys, change, message):
    last = run[0] / "runs" / "quickstart" / "checkpoints" / "last.ckpt"
    assert cli.main(["fit", "-c", tiny(**change), "--ckpt_path", str(last)]) == 2
    assert re.search(f"^error: .*{message}", capsys.readouterr().err.strip().splitlines()[-1])


def test_a_checkpoint_of_another_backbone_is_refused(run, tiny, make_backbone, tmp_path, capsys):
    other = make_backbone(tmp_path / "other", num_layers=2)
    last = run[0] / "runs" / "quickstart" / "checkpoints" / "last.ckpt"
    assert (
        cli.main(
            [
                "fit",
                "-c",
                tiny(**{"model.init_args.backbone": str(other)}),
                "--ckpt_path",
                str(last),
            ]
        )
        == 2
    )
    assert "which has another geometry than" in capsys.readouterr().err.strip().splitlines()[-1]
    assert load_backbone(str(other)).identity.name == str(other)
