"""fit --dry-run.

What it prints, that it reads nothing, and that its estimate is what a step really takes.
"""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lit_mimdit import cli
from lit_mimdit.estimate import Alive, Sizes, Step
from lit_mimdit.models.branch_config import BranchConfig, InterConfig, IntraConfig
from lit_mimdit.models.geometry import KNOWN, meta_backbone, read_geometry
from lit_mimdit.models.mim import MiM
from lit_mimdit.systems.mimdit import as_computed, collects
from lit_mimdit.training import dry_run
from lit_mimdit.training.dry_run import GIB, on_gpu, processes, stage_of
from lit_mimdit.training.strategy_memory import static

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import memory

MILLION = 10**6


@pytest.mark.parametrize("source, millions", list(zip(KNOWN, (2243.17, 8056.63), strict=True)))
def test_the_shipped_sizes_are_those_of_the_releases(source, millions):
    geometry = read_geometry(source)
    loaded = meta_backbone(source, geometry, torch.bfloat16)
    assert sum(p.numel() for p in loaded.transformer.parameters()) / 1e6 == pytest.approx(
        millions, abs=0.005
    )
    assert loaded.transformer.dtype == torch.bfloat16 and loaded.transformer.device.type == "meta"
    config = loaded.vae.config
    assert (
        config.latent_channels,
        config.scaling_factor,
        config.shift_factor,
        len(config.block_out_channels),
    ) == (16, 1.5305, 0.0609, 4)
    assert loaded.prompt.embeds.shape == (1, 333, 4096) and loaded.prompt.pooled.shape == (1, 2048)


def test_a_folder_says_its_own_sizes(backbone_folder):
    geometry = read_geometry(str(backbone_folder))
    assert (
        geometry.text_tokens == 4
        and geometry.transformer["num_layers"] == 3
        and geometry.vae["scaling_factor"] == 1.5305
    )


def test_it_prints_modules_parameters_memory_and_cards_and_makes_nothing(tiny, tmp_path, capsys):
    """On eight GPUs that are not there, and with data that are not there."""
    changes = {
        "data.init_args.root": "nowhere",
        "data.init_args.sample_data": False,
        "data.init_args.batch_size": 16,
        "model.init_args.backbone_quantize": "int8",
    }
    many = ["--trainer.devices", "8", "--trainer.strategy", "zero2", "--trainer.accelerator", "gpu"]
    assert cli.main(["fit", "-c", tiny(**changes), *many, "--dry-run"]) == 0
    said = capsys.readouterr().out
    for word in (
        "network.backbone.transformer_blocks",
        "network.branch",
        "vae",
        "GiB on each GPU (8 of them), 2 pairs of 32 px at once, zero2",
    ):
        assert word in said
    for row in (
        "frozen parameters",
        "trained parameters",
        "their gradients",
        "optimizer states",
        "activations",
        "TFLOP",
    ):
        assert row in said
    assert "<- this run" in said and "zero3_offload" in said
    assert "restore/train at 64 px, one image at once" in said
    lines = said.split("this card:")[1].splitlines()
    assert lines[1].split()[-2:] == ["80", "GB"]
    assert [line.split()[0] for line in lines[2:6]] == ["none", "nf4", "int8", "fp8"]
    assert all(line.split()[4:] == ["yes/yes"] * 6 for line in lines[2:6])
    assert [path.name for path in tmp_path.rglob("*")] == ["tiny.yaml"], (
        "neither weights, data, logs nor checkpoints"
    )


def test_the_step_is_that_of_each_strategy_on_its_kind_of_device(tiny, capsys, monkeypatch):
    """ZeRO-1 and -2 take the same step; ZeRO-3 and plain DDP another."""
    asked = []

    def simulated(kind, arguments, *, stage, gpu, **_):
        asked.append((stage, gpu))
        return Step(100 * stage * GIB, 0)

    monkeypatch.setattr(dry_run, "simulate", simulated)
    assert (
        cli.main(
            [
                "fit",
                "-c",
                tiny(),
                "--trainer.strategy",
                "zero2",
                "--trainer.accelerator",
                "gpu",
                "--dry-run",
            ]
        )
        == 0
    )
    rows = dict(
        line.split()[:2]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith(("  zero", "  ddp"))
    )
    found = {name: round(float(size.rstrip(",")) / 100) for name, size in rows.items()}
    assert found == {
        "ddp": 0,
        "zero1": 2,
        "zero1_offload": 2,
        "zero2": 2,
        "zero2_offload": 2,
        "zero3": 3,
        "zero3_offload": 3,
    }
    assert sorted(set(asked)) == [(0, True), (2, True), (3, True)] and len(asked) == 5, (
        "with and without checkpointing for its own, and of one image for the table of cards"
    )


@pytest.mark.parametrize(
    "changes, options, message",
    [
        (
            {},
            ["--trainer.strategy", "fsdp"],
            "the memory of trainer.strategy 'fsdp' is not known; it knows ddp, zero1",
        ),
        (
            {"data.init_args.batch_size": 4},
            ["--trainer.devices", "3"],
            "data.batch_size is 4, but 3 processes",
        ),
        ({"model.init_args.backbone": "./none"}, [], "model.backbone: there is no folder './none'"),
    ],
)
def test_what_it_cannot_estimate_is_named(tiny, capsys, changes, options, message):
    assert cli.main(["fit", "-c", tiny(**changes), *options, "--dry_run"]) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


def test_only_fit_has_a_dry_run(tiny, capsys):
    assert cli.main(["validate", "-c", tiny(), "--dry-run"]) == 2
    assert "--dry-run is of fit, not of validate" in capsys.readouterr().err


def test_processes_and_stages():
    assert [processes(d, 2) for d in (4, "4", [0, 1, 2], "0,1")] == [8, 8, 6, 4]
    assert stage_of("zero3_offload_cpu") == ("zero3_offload", 3, True) and stage_of("auto") == (
        "ddp",
        0,
        False,
    )
    assert stage_of(
        {"class_path": "lit_mimdit.training.strategies.ZeRO", "init_args": {"stage": 1}}
    ) == ("zero1", 1, False)
    assert stage_of(
        {"class_path": "lightning.pytorch.strategies.DDPStrategy", "init_args": {}}
    ) == ("ddp", 0, False)


def test_bytes_by_strategy():
    """By hand: 100 M trained and 1,000 M frozen parameters in bfloat16, 4 processes."""
    sizes = Sizes(frozen_bytes=2000 * MILLION, frozen=1000 * MILLION, trained=100 * MILLION)
    common = {"world": 4, "precision": "bf16-mixed", "average": True}

    def found(stage: int, offload: bool = False, **changes) -> list[int]:
        kept = static(sizes, stage=stage, offload=offload, **(common | changes))
        return [
            round(n / MILLION)
            for n in (
                kept.frozen,
                kept.trained,
                kept.gradients,
                kept.optimizer,
                kept.average,
                kept.host,
            )
        ]

    assert found(0) == [
        2000,
        400,
        800,
        800,
        400,
        0,
    ], "32 bits everywhere; DDP's buckets double the gradients"
    assert found(0, world=1, average=False) == [2000, 400, 400, 800, 0, 0]
    assert found(1) == [
        2000,
        200,
        200 + 400,
        300,
        100,
        0,
    ], "16-bit copies, two buckets; a quarter of 12 bytes each; a quarter of the average"
    assert found(2) == [2000, 200, 50 + 400, 300, 100, 0]
    assert found(2, offload=True) == [2000, 200, 450, 0, 0, 400]
    assert found(3) == [
        500 + 2000,
        50,
        450,
        300,
        100,
        0,
    ], "a quarter kept, and up to 10^9 gathered at a time"


def test_only_the_chosen_sub_experts_are_computed():
    config = BranchConfig(width=16, heads=2, intra=IntraConfig(experts=4, top_k=2))
    assert (as_computed(config).intra.experts, as_computed(config).intra.router) == (2, "dense")
    dense = BranchConfig(width=16, heads=2, intra=IntraConfig(experts=4, router="dense"))
    assert as_computed(dense) == dense
    sparse = replace(dense, inter=InterConfig(router="top1"))
    assert as_computed(sparse) == dense, "an upper bound: which group an image takes is not known"


def test_new_storages_are_added_up_while_they_live_and_views_are_none():
    weight = torch.ones(256, 256)
    with Alive() as alive:
        transposed = weight.t()
        assert (alive.live, alive.peak) == (0, 0), "it was there"
        product = transposed @ weight
        assert alive.live == 4 * 256 * 256 and alive.flops == 2 * 256**3
        product.view(-1).add_(1)
        product = product[:1].clone()
        assert (alive.live, alive.peak) == (4 * 256, 4 * 256 * 256 + 4 * 256)
    assert len(product) == 1


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("kind", [torch.nn.Conv2d, torch.nn.ConvTranspose2d])
def test_a_convolution_of_groups_counts_no_products_between_them(kind, groups):
    """Forward and two gradients, by hand: 6 channels in, 12 out, 3 x 3 taps, stride 2."""
    convolution = kind(6, 12, 3, stride=2, padding=1, groups=groups, bias=False)
    x = torch.randn(5, 6, 8, 8, requires_grad=True)
    with Alive() as alive:
        convolution(x).sum().backward()
    # where the taps lie: at each output, or for a transposed one at each input
    positions = 4 * 4 if kind is torch.nn.Conv2d else 8 * 8
    once = 2 * 5 * positions * 9 * 6 * 12 // groups
    assert alive.flops == 3 * once


def test_a_gpu_collects_the_weights_of_each_image_except_for_left_out_groups_and_zero3():
    sparse = BranchConfig(width=16, heads=2, intra=IntraConfig(experts=4, top_k=2))
    assert (
        collects(sparse, gpu=True, stage=2)
        and not collects(sparse, gpu=True, stage=3)
        and not collects(sparse, gpu=False, stage=0)
    )
    assert not collects(replace(sparse, inter=InterConfig(router="top1")), gpu=True, stage=0)
    assert not collects(replace(sparse, intra=IntraConfig(experts=1, top_k=1)), gpu=True, stage=0)


def test_what_is_meant_for_gpus():
    zero = "lit_mimdit.training.strategies.ZeRO"
    found = [
        on_gpu(*pair)
        for pair in (
            ("auto", "auto"),
            ("gpu", {"class_path": zero}),
            ("cpu", "ddp"),
            ("auto", "zero2_cpu"),
        )
    ]
    assert found == [True, True, False, False] and not on_gpu(
        "auto", {"class_path": f"{zero}OnCPU"}
    )


@pytest.mark.usefixtures("takes_minutes")
@pytest.mark.parametrize("checkpointing, gpu", [(0, 0), (1, 0), (0, 1)])
def test_the_estimate_is_within_a_tenth_of_what_a_step_takes(checkpointing, gpu, monkeypatch):
    """Two real steps, also in the way of a GPU, by the script that gives the figures of
    docs/results/costs.md.
    """
    monkeypatch.setattr(MiM, "as_on_gpu", MiM.as_on_gpu)
    case = (8, 64, checkpointing, "32-true", gpu)
    activations, estimated = memory.estimate(*case)
    assert activations > (20 if checkpointing else 50) * memory.MIB
    assert estimated == pytest.approx(memory.measure(*case), rel=0.1)
