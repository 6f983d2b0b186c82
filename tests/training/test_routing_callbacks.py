"""The routing callbacks in real runs.

What TensorBoard holds, on one process and on two, and that they change nothing.
"""

import re
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from lit_mimdit import cli
from lit_mimdit.models.branch_config import BranchConfig, IntraConfig
from lit_mimdit.routing.records import Records
from lit_mimdit.routing.tally import BINS, Tally, tallies_of
from lit_mimdit.training import callbacks

KINDS = ["0_spatial", "1_channel", "2_swin", "3_se"]
GUIDANCE = {"histograms": 0, "images": 0, "scalars": 0, "tensors": 0}


class Events:
    """All that the event files of a run's folder hold."""

    def __init__(self, folder: Path) -> None:
        self.files = [
            EventAccumulator(str(file), size_guidance=GUIDANCE).Reload()
            for file in sorted(folder.rglob("events.*"))
        ]

    def tags(self, kind: str) -> set[str]:
        return {tag for file in self.files for tag in file.Tags()[kind]}

    def scalars(self, tag: str) -> dict[int, float]:
        return {
            e.step: e.value
            for file in self.files
            if tag in file.Tags()["scalars"]
            for e in file.Scalars(tag)
        }

    def histograms(self, tag: str) -> dict[int, tuple[float, float, list[float]]]:
        found = [
            e
            for file in self.files
            if tag in file.Tags()["histograms"]
            for e in file.Histograms(tag)
        ]
        return {
            e.step: (e.histogram_value.num, e.histogram_value.sum, list(e.histogram_value.bucket))
            for e in found
        }

    def images(self, tag: str) -> list[int]:
        return [
            e.step for file in self.files if tag in file.Tags()["images"] for e in file.Images(tag)
        ]


@pytest.fixture(scope="module")
def run(pictured_settings, write_settings, tmp_path_factory) -> Path:
    """A run of 6 steps with two validations, and a test of its checkpoint; the working directory
    was its folder.
    """
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        config = write_settings(folder / "tiny.yaml", pictured_settings)
        assert cli.main(["fit", "-c", config]) == 0
        assert (
            cli.main(["test", "-c", config, "--ckpt_path", "runs/quickstart/checkpoints/last.ckpt"])
            == 0
        )
    return folder


@pytest.fixture(scope="module")
def events(run) -> Events:
    return Events(run / "runs")


def test_histograms_of_all_and_of_each_degradation(events):
    tags = events.tags("histograms")
    for stage, steps in (("train", [2, 4, 6]), ("val", [3, 6]), ("test", [0])):
        for block in range(3):
            for kind in KINDS:
                whole = events.histograms(f"inter_moe_{stage}/block_{block:02d}_{kind}")
                parts = [
                    events.histograms(f"inter_moe_{stage}_{name}/block_{block:02d}_{kind}")
                    for name in ("01Blur", "05Noise")
                ]
                assert sorted(whole) == steps and len(whole[steps[0]][2]) in (BINS, BINS + 1)
                for step in steps:
                    assert whole[step][0] == sum(part[step][0] for part in parts if step in part)
                    assert whole[step][1] == pytest.approx(
                        sum(part[step][1] for part in parts if step in part)
                    )
                for expert in range(2):
                    assert f"intra_moe_{stage}/block_{block:02d}_{kind}_expert_{expert}" in tags
    assert events.histograms("inter_moe_val/block_00_0_spatial")[3][0] == 2, "two validation images"


def test_curves_are_consistent(events):
    for stage, step in (("train", 4), ("val", 3), ("test", 0)):
        weights = [events.scalars(f"inter_weight_{stage}/block_01_{kind}")[step] for kind in KINDS]
        assert sum(weights) == pytest.approx(1, abs=1e-5)
        number, total, _ = events.histograms(f"inter_moe_{stage}/block_01_2_swin")[step]
        assert weights[2] == pytest.approx(total / number, rel=1e-5)
        shares = [
            events.scalars(f"sub_expert_share_{stage}/block_02_3_se_expert_{expert}")[step]
            for expert in range(2)
        ]
        assert sum(shares) == pytest.approx(1), "top 1 of 2"
        assert 0 < events.scalars(f"router_entropy_{stage}/block_00_inter")[step] <= 1 + 1e-6
        assert 1 <= events.scalars(f"effective_experts_{stage}/block_00_intra_1_channel")[step] <= 2
        by_kind = [
            events.scalars(f"inter_weight_by_degradation_{stage}/{name}_0_spatial").get(step)
            for name in ("01Blur", "05Noise")
        ]
        assert all(0 < value < 1 for value in by_kind if value is not None) and any(by_kind)


def test_pictures_of_every_degradation_and_of_table_6(events):
    for stage, steps in (("train", [2, 4, 6]), ("val", [3, 6]), ("test", [0])):
        assert (
            sorted(set(events.images(f"routing_{stage}/table_6")))
            == steps
            == sorted(set(events.images(f"routing_{stage}/sub_expert_shares")))
        )
        for name in ("01Blur", "05Noise"):
            assert events.images(f"routing_{stage}_by_degradation/{name}")


def test_every_chart_of_the_page_shows_a_curve(events):
    tag = "custom_scalars__config__"
    tensors = [
        e for file in events.files if tag in file.Tags()["tensors"] for e in file.Tensors(tag)
    ]
    layout = layout_pb2.Layout.FromString(tensors[-1].tensor_proto.string_val[0])
    assert [c.title[:1] for c in layout.category] == list("123456") and layout.category[1].chart[
        0
    ].title == "blur (01Blur)"
    known = events.tags("scalars")
    for category in layout.category:
        for chart in category.chart:
            assert (
                any(re.match(pattern, tag) for pattern in chart.multiline.tag for tag in known)
                or "dead" in chart.title
            ), chart.title


def test_names_sort_as_the_model_is_built(events):
    tags = sorted(tag for tag in events.tags("histograms") if tag.startswith("inter_moe_train/"))
    assert tags == [
        f"inter_moe_train/block_{block:02d}_{kind}" for block in range(3) for kind in KINDS
    ]


def test_hyper_parameters_and_final_metrics(events):
    started, metrics = [], set()
    for file in events.files:
        for tag, content in (file.summary_metadata or {}).items():
            data = (
                plugin_data_pb2.HParamsPluginData.FromString(content.plugin_data.content)
                if tag.startswith("_hparams_")
                else None
            )
            if data is not None and data.HasField("session_start_info"):
                started.append(dict(data.session_start_info.hparams))
            if data is not None and data.HasField("experiment"):
                metrics |= {info.name.tag for info in data.experiment.metric_infos}
    assert (
        len(started) == 2
        and {"train/loss", "val/psnr_restored", "test/psnr_restored", "test/ssim_y_restored"}
        <= metrics
    )
    assert metrics <= events.tags("scalars"), "every metric has its curve"
    values = started[0]
    assert (
        values["branch.intra.experts"].number_value == 2
        and values["optimizer.lr"].number_value == 1e-3
    )
    assert (
        values["data.batch_size"].number_value == 4
        and values["flow.weighting"].string_value == "velocity"
    )
    assert (
        values["branch.chained"].number_value == 1 and values["trainer.max_steps"].number_value == 6
    )


def without_callbacks(settings: dict, *names: str) -> dict:
    kept = [
        c
        for c in settings["trainer"]["callbacks"]
        if c["class_path"].rsplit(".", 1)[-1] not in names
    ]
    return {"trainer.callbacks": kept}


def test_they_are_plug_ins_that_change_nothing(run, tiny, tiny_settings):
    """Without them the run ends with the same bits."""
    names = ("RoutingHistograms", "RoutingScalars", "Hyperparameters")
    assert cli.main(["fit", "-c", tiny(**without_callbacks(tiny_settings, *names))]) == 0
    assert not [
        tag
        for kind in ("histograms", "images", "scalars")
        for tag in Events(Path("runs")).tags(kind)
        if "rout" in tag or "moe" in tag
    ]
    ours, theirs = (
        torch.load(f / "runs/quickstart/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for f in (Path(), run)
    )
    assert ours.keys() == theirs.keys() and all(
        torch.equal(ours[name], theirs[name]) for name in ours
    )
    for name in ("base", "latent", "mimdit"):
        source = (Path(cli.__file__).parent / "systems" / f"{name}.py").read_text()
        code = re.sub('""".*?"""', "", source, flags=re.DOTALL)
        assert "lit_mimdit.routing" not in code and "lit_mimdit.training.callbacks" not in code


def test_validation_does_not_move_what_training_counts(run, events, tiny):
    assert cli.main(["fit", "-c", tiny(**{"trainer.limit_val_batches": 0})]) == 0
    alone = Events(Path("runs"))
    for tag in (tag for tag in events.tags("histograms") if "_train" in tag):
        assert alone.histograms(tag) == events.histograms(tag)


def test_two_processes_are_one(starter, tiny, tiny_settings, data_root, tmp_path):
    """The same 8 training samples and 5 validation images, an odd number, dealt out to one process
    and to two.
    """
    lines = (data_root / "train.txt").read_text().splitlines(keepends=True)
    (tmp_path / "odd.txt").write_text("".join(lines[:3] + lines[-2:]))
    changes = {
        "model.init_args.optimizer.lr": 1e-12,
        "trainer.max_steps": 2,
        "trainer.val_check_interval": 2,
    }
    changes |= {"data.init_args.val": str(tmp_path / "odd.txt")}
    config = tiny(
        **changes,
        **without_callbacks(tiny_settings, "ModelCheckpoint", "SamplePictures"),
    )
    found = []
    for devices, strategy in ((1, "auto"), (2, "ddp_find_unused_parameters_true")):
        folder = tmp_path / str(devices)
        options = ["--trainer.devices", str(devices), "--trainer.strategy", strategy]
        options += ["--trainer.logger.init_args.save_dir", str(folder)]
        starter.run_ranks(tmp_path, ["fit", "-c", config, *options], devices)
        found.append(Events(folder))
    one, two = found
    tags = {tag for tag in one.tags("histograms") if "_train" in tag or "_val" in tag}
    assert tags == set(two.tags("histograms")) and len(tags) > 100
    assert (
        one.histograms("inter_moe_val/block_00_0_spatial")[2][0] == 5
        and one.histograms("inter_moe_train/block_00_0_spatial")[2][0] == 8
    )
    for tag in tags:
        for step, (number, total, bins) in one.histograms(tag).items():
            other = two.histograms(tag)[step]
            assert (other[0], other[2]) == (number, bins) and other[1] == pytest.approx(
                total, rel=1e-5
            ), tag
    curves = [
        tag
        for tag in one.tags("scalars")
        if re.match("inter_weight|sub_expert|router_|effective", tag)
    ]
    assert len(curves) > 100
    for tag in curves:
        assert two.scalars(tag) == pytest.approx(one.scalars(tag), rel=1e-4, abs=1e-6), tag


def tallies(chosen: np.ndarray) -> dict[str, Tally]:
    """Of images that chose these sub-experts, all with equal Inter weights."""
    count = len(chosen)
    return tallies_of(
        Records(
            [(str(i), i) for i in range(count)],
            ["01Blur"] * count,
            np.full((count, 1, 2), 0.5),
            chosen / 2,
            chosen,
        )
    )


def test_a_dead_expert_is_warned_of_once():
    chosen = np.zeros((200, 1, 2, 4), np.float32)
    chosen[..., :2] = 1
    module = SimpleNamespace(
        branch_config=BranchConfig(8, 2, groups=["spatial", "swin"], intra=IntraConfig(4, 2))
    )
    trainer = SimpleNamespace(loggers=[], global_step=50)
    callback = callbacks.RoutingScalars(every_n_steps=1)
    with pytest.warns(
        UserWarning,
        match=r"step 50: dead sub-experts.* \(4\): block 0 spatial 2, .*of the last 200 images",
    ) as caught:
        callback.show(trainer, module, "train", tallies(chosen))
    assert len(caught) == 2 and "the same way (2)" in str(caught[1].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        callback.show(trainer, module, "train", tallies(chosen))
        chosen[:50, ...] = [0, 0, 1, 1]
        callback.show(trainer, module, "train", tallies(chosen))
    chosen[...] = [0, 0, 1, 1]
    with pytest.warns(
        UserWarning,
        match=r"\(4\): block 0 spatial 0, block 0 spatial 1, block 0 swin 0, block 0 swin 1 ",
    ):
        callback.show(trainer, module, "train", tallies(chosen))
