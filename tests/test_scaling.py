"""benchmarks/scaling.py.

Its formulas against values by hand, and its count of operations against one by hand.
"""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import operations
import scaling

from lit_mimdit.models.branch_config import BranchConfig, IntraConfig
from lit_mimdit.models.geometry import read_geometry

MACHINE = scaling.Machine("by hand", peak=100e12, nvlink=100e9, network=10e9)
ASSUMED = scaling.Assumed(
    mfu=0.5,
    network_share=1.0,
    hop=0.0,
    pair_bytes=1e6,
    store_read=1e9,
    store_write=1e9,
    decode=0.01,
    cores=4.0,
    restart=100.0,
    gpu_hours=1000.0,
    every_steps=100,
)


def test_times_by_hand():
    assert scaling.compute_time(10e12, 5, MACHINE, 0.5) == pytest.approx(1.0)
    assert scaling.all_reduce_time(8e9, 1, MACHINE, 1.0, 1.0) == 0
    assert scaling.all_reduce_time(8e9, 8, MACHINE, 1.0, 1.0) == pytest.approx(2 * 7 / 8 * 0.08)
    assert scaling.all_reduce_time(8e9, 8, MACHINE, 0.5, 1.0) == pytest.approx(4 * 7 / 8 * 0.08)
    # four nodes: each GPU 2 x 3/4 of its 1 GB at 10 GB/s, and 6 hops
    assert scaling.all_reduce_time(8e9, 32, MACHINE, 1.0, 0.001) == pytest.approx(
        0.14 + 0.15 + 0.006
    )
    assert scaling.data_time(2, 100, 1e6, ASSUMED) == pytest.approx(0.2), "200 MB from the store"
    assert scaling.data_time(200, 2, 1e6, ASSUMED) == pytest.approx(0.5), (
        "200 pairs of 10 ms on 4 cores"
    )
    assert scaling.store_limit(10e12, MACHINE, 1e6, ASSUMED) == pytest.approx(200), (
        "5 pairs/s a GPU of 1,000 pairs/s"
    )
    assert scaling.checkpoint_time(10**9, ASSUMED) == pytest.approx(16.0)
    assert scaling.lost_share(1000, 300, 80_000) == pytest.approx(0.01)
    assert scaling.best_interval(50, 10_000) == pytest.approx(1000.0)


def test_a_row_by_hand_and_what_limits_it():
    row = scaling.row(MACHINE, 8, 5, 10e12, 10**8, 1e6, ASSUMED)
    assert (row.compute, row.reduce, row.data) == pytest.approx((1.0, 2 * 7 / 8 * 0.002, 0.04))
    assert row.checkpoint == pytest.approx(0.016)
    # 100 steps of 1.016 s between checkpoints; a failure each 1000 h / 8
    assert row.between_failures == 450_000 and row.failures == pytest.approx(
        1.016 * (50.8 + 100) / 450_000
    )
    assert row.step == pytest.approx(1.016 + row.failures) and row.limit == "checkpoints", (
        "what is hidden costs nothing"
    )
    assert row.best_steps == pytest.approx((2 * 1.6 * 450_000) ** 0.5 / 1.016)
    slow = scaling.row(MACHINE, 1024, 5, 10e12, 10**8, 1e6, ASSUMED)
    assert slow.data == pytest.approx(5.12) and slow.step > 5.12 and slow.limit == "data", (
        "waits for the store"
    )
    for key, changes in {
        "gradients": {"network_share": 0.001},
        "restarts": {"gpu_hours": 1.0},
    }.items():
        assert (
            scaling.row(MACHINE, 8, 5, 10e12, 10**8, 1e6, replace(ASSUMED, **changes)).limit == key
        )
    assert "| 8 | 5 |" in scaling.table([row, slow]) and "| 100% | checkpoints |" in scaling.table(
        [row, slow]
    )


def test_operations_of_the_backbone_by_hand():
    """Three blocks of width 64, 64 image and 333 text tokens; matrix products only."""
    medium = read_geometry("stabilityai/stable-diffusion-3.5-medium")
    sizes = medium.transformer | {
        "num_layers": 3,
        "attention_head_dim": 16,
        "num_attention_heads": 4,
        "caption_projection_dim": 64,
        "joint_attention_dim": 32,
        "pooled_projection_dim": 16,
        "pos_embed_max_size": 16,
        "dual_attention_layers": (),
    }
    geometry = replace(medium, transformer=sizes)
    branch = BranchConfig(
        width=32, heads=4, window=4, groups=["spatial"], intra=IntraConfig(experts=4, top_k=2)
    )
    d, n, t = 64, 64, 333
    attention = 4 * d * (n + t) * (2 * n + t)  # the condition's keys and values are a third part
    image, text = (
        2 * d * d * n * (4 + 8),
        2 * d * d * t * (4 + 8),
    )  # q, k, v, output; feed-forward of 4 d
    modulation = 2 * d * 6 * d
    blocks = (
        3 * (attention + image + modulation)
        + 2 * (text + modulation)
        + 2 * d * d * t * 3
        + 2 * d * 2 * d
    )  # the last keeps no text
    ends = (
        2 * n * 64 * d
        + 2 * t * 32 * d
        + 2 * (256 * d + d * d + 16 * d + d * d)
        + 2 * d * 2 * d
        + 2 * n * d * 64
    )
    counted = operations.step_operations(branch, 128, geometry, checkpointing=False)
    assert counted["backbone"] == pytest.approx(blocks + ends, rel=1e-6)
    more = operations.step_operations(branch, 128, geometry, checkpointing=True)
    assert {k: more[k] for k in ("branch", "backbone", "VAE")} == {
        k: counted[k] for k in ("branch", "backbone", "VAE")
    }
    again = more["backward"] - counted["backward"]
    assert blocks < again <= blocks + counted["branch"], (
        "the blocks are computed again, and the branch but for its keys and values"
    )
    wider = operations.step_operations(
        replace(branch, intra=IntraConfig(experts=8, top_k=2)), 128, geometry, checkpointing=False
    )
    assert wider == counted, "experts that are not chosen cost nothing"
