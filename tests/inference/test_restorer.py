"""Any size comes back in its size, and how images are batched or tiled is no part of the result."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from skimage import data
from torch.utils._pytree import tree_leaves

from lit_mimdit.inference import loading
from lit_mimdit.inference.device import computes_bfloat16
from lit_mimdit.inference.guidance import conditioned
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.restorer import Restorer
from lit_mimdit.inference.run_record import inter_weights
from lit_mimdit.inference.sampler import SamplingConfig, sample
from lit_mimdit.models.branch_config import BranchConfig
from lit_mimdit.models.condition import Prompt
from lit_mimdit.models.latents import decode, encode
from lit_mimdit.models.network import MiMDiTNetwork
from lit_mimdit.models.padding import pad_to_multiple


def images(count: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(
        count, 3, height, width, generator=torch.Generator().manual_seed(height + width)
    )


def with_config(restorer: Restorer, **changes) -> Restorer:
    return Restorer(
        restorer.network, restorer.vae, restorer.scheduler, replace(restorer.config, **changes)
    )


@pytest.mark.parametrize("size", [(1, 1), (1, 37), (65, 30), (8, 8), (32, 32), (33, 40)])
def test_any_size_comes_back_in_its_size(restorer, size):
    lq, counted = images(1, *size), []
    restored, (routing,) = restorer(lq, torch.tensor([0]), progress=counted.append)
    assert (
        restored.shape == lq.shape
        and restored.isfinite().all()
        and 0 <= restored.min() <= restored.max() <= 1
    )
    assert sum(counted) == restorer.evaluations(*size)
    assert len(routing) == 3
    assert restorer.round_trip(lq).shape == lq.shape


def test_padding_mirrors_as_often_as_it_must_and_keeps_what_fits():
    row = torch.arange(1.0, 6.0).view(1, 1, 1, 5)
    assert pad_to_multiple(row, 8).shape == (1, 1, 8, 8)
    square = torch.arange(25.0).view(1, 1, 5, 5)
    assert torch.equal(
        pad_to_multiple(square, 8)[0, 0, :5, :], square[0, 0][:, [0, 1, 2, 3, 4, 3, 2, 1]]
    )
    assert pad_to_multiple(torch.ones(1, 1, 8, 16), 8).shape == (1, 1, 8, 16)


@pytest.mark.parametrize("size", [(24, 32), (40, 33)])
def test_an_image_is_restored_alone_as_in_company(restorer, size):
    """Whole images and tiled ones; each has the noise of its own seed."""
    lq, seeds = images(3, *size), torch.tensor([5, 6, 7])
    together, _ = restorer(lq, seeds)
    alone = torch.cat([restorer(lq[i : i + 1], seeds[i : i + 1])[0] for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)
    other, _ = restorer(lq[:1], seeds[1:2])
    assert (other - alone[:1]).abs().max() > 0.01


def test_decisions_are_known_of_every_image_and_every_tile(restorer):
    """A row a tile, whatever the groups of tiles; the first tile's decisions are those of the tile
    by itself.
    """
    small, large, seeds = images(3, 32, 32), images(2, 50, 70), torch.arange(3)
    whole = restorer(small, seeds)[1]
    assert [len(decisions[0].inter.weights) for decisions in whole] == [1, 1, 1]
    alone = restorer(small[1:2], seeds[1:2])[1][0]
    torch.testing.assert_close(whole[1][2].inter.weights, alone[2].inter.weights)
    tiles = restorer.evaluations(50, 70) // restorer.evaluations(32, 32)
    assert tiles > 2
    for group in (2, tiles):
        tiled = with_config(restorer, tile_batch=group)(large, seeds[:2])[1]
        assert [
            len(router.weights)
            for decisions in tiled
            for mim in decisions
            for router in (mim.inter, *mim.intra)
        ] == [tiles] * 2 * 3 * 5
        weights = tiled[1][0].inter.weights
        torch.testing.assert_close(
            torch.tensor(inter_weights(tiled[1])[0]), weights.mean(0), atol=1e-4, rtol=0
        )
        torch.testing.assert_close(
            weights,
            with_config(restorer, tile_batch=1)(large[1:], seeds[1:2])[1][0][0].inter.weights,
        )


def test_tile_batch_is_no_part_of_the_result(restorer):
    lq, seed = images(1, 50, 70), torch.tensor([1])
    one = with_config(restorer, tile_batch=1)(lq, seed)[0]
    torch.testing.assert_close(
        with_config(restorer, tile_batch=4)(lq, seed)[0], one, rtol=0, atol=1e-4
    )


def test_what_does_not_fit_into_the_memory_for_conditions_is_computed_again(restorer):
    """The same bits, whether all tiles' keys and values are kept, some, or none; 3 groups of 2
    tiles at 2 steps.
    """
    lq, seed, asked = images(1, 50, 70), torch.tensor([1]), []
    hook = restorer.network.branch.mims[0].register_forward_hook(lambda *_: asked.append(1))
    size = conditioned(
        restorer.network, torch.zeros(2, 16, 8, 8), restorer.network.prompt, 1.0
    ).size
    assert size == 2 * 2 * 3 * 16 * 16 * 4, "tiles x (key, value) x blocks x tokens x width x bytes"
    results, counts = [], []
    for kept in (3, 2, 0):
        asked.clear()
        results.append(with_config(restorer, condition_gb=kept * size / 2**30)(lq, seed))
        counts.append(len(asked))
    hook.remove()
    assert counts == [3, 3 + 1, 3 + 3], "at the second step only what was not kept"
    for image, (routing,) in results[1:]:
        assert torch.equal(image, results[0][0])
        assert all(
            torch.equal(a, b)
            for a, b in zip(tree_leaves(routing), tree_leaves(results[0][1][0]), strict=True)
        )


def test_cached_conditions_are_recomputed_ones_at_every_step(transformer):
    """To float32 precision, for every base and fusion.

    Nothing of a condition depends on time or on the noisy latent.
    """
    z_lq, noise = torch.randn(2, 2, 16, 8, 8, generator=torch.Generator().manual_seed(1))
    prompt = Prompt(torch.randn(1, 4, 12), torch.randn(1, 10))
    config, scheduler = (
        SamplingConfig(steps=4, solver="heun"),
        FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    for base, fusion in itertools.product(
        ("zero", "embed", "position", "reference"), ("concat", "concat_latent", "zero_gated")
    ):
        network = MiMDiTNetwork(
            transformer,
            BranchConfig(width=16, heads=2, window=2, base=base, fusion=fusion, zero_std=0.5),
            prompt,
        ).eval()
        if fusion == "zero_gated":
            torch.nn.init.constant_(network.branch.gates, 0.5)
        seen: dict[bool, list[torch.Tensor]] = {True: [], False: []}
        with torch.no_grad():
            kept = network.condition(z_lq)
            for cached, velocities in seen.items():

                def velocity(
                    x: torch.Tensor,
                    t: float,
                    cached=cached,
                    velocities=velocities,
                    network=network,
                    kept=kept,
                ) -> torch.Tensor:
                    velocities.append(
                        network(x, torch.full((2,), t), kept if cached else network.condition(z_lq))
                    )
                    return velocities[-1]

                sample(velocity, z_lq, noise, scheduler, config)
            bare = network(noise, torch.full((2,), 1.0), None)
        assert len(seen[True]) == len(seen[False]) == 7
        for step, (one, other) in enumerate(zip(seen[True], seen[False], strict=True)):
            torch.testing.assert_close(
                one, other, rtol=0, atol=1e-6, msg=f"{base}, {fusion}, evaluation {step}"
            )
        assert (seen[True][0] - bare).abs().max() > 0.01, "the condition counts"


class Local(torch.nn.Module):
    """A network whose velocity at a place depends on that place alone.

    Tiling must not change what it does.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.backbone, self.embeds, self.prompt = network.backbone, network.embeds, network.prompt

    def condition(self, z_lq: torch.Tensor, prompt):
        return type("Condition", (), {"routing": (), "z": z_lq})

    def forward(self, x: torch.Tensor, t: torch.Tensor, condition, prompt) -> torch.Tensor:
        return torch.tanh(x) * t.view(-1, 1, 1, 1) - condition.z


def test_tiling_changes_nothing_for_a_local_velocity(restorer, monkeypatch):
    """The latent after all steps, tiled and in one piece; encoder and decoder are not local and are
    left out.
    """
    from lit_mimdit.inference import latent_restorer, tiled_vae
    from lit_mimdit.inference import restorer as module

    def latent(vae, image: torch.Tensor) -> torch.Tensor:
        return image[..., ::4, ::4].repeat(1, 6, 1, 1)[:, :16]

    def pixels(vae, z: torch.Tensor) -> torch.Tensor:
        return z[:, :3].repeat_interleave(4, -1).repeat_interleave(4, -2)

    for place in (module, tiled_vae):
        monkeypatch.setattr(place, "encode", latent)
    for place in (latent_restorer, tiled_vae):
        monkeypatch.setattr(place, "decode", pixels)
    network = Local(restorer.network)
    config = SamplingConfig(steps=3, tile=64, overlap=8, tile_batch=2)
    lq, seed = images(1, 56, 64), torch.tensor([1])
    whole = Restorer(network, restorer.vae, restorer.scheduler, config)(lq, seed)[0]
    tiled = Restorer(network, restorer.vae, restorer.scheduler, replace(config, tile=24))(lq, seed)[
        0
    ]
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5)


def test_the_shipped_network_leaves_no_seam_where_tiles_meet():
    """Against the same image in one piece.

    The difference may be smooth (tiles see less of the scene), but must not jump at a border.
    """
    shipped = load_restorer(None, None, torch.device("cpu"))
    photo = torch.from_numpy(data.coffee()[100:228, 150:278].copy()).permute(2, 0, 1)[None] / 255
    dark, seed = 0.35 * photo, torch.tensor([0])
    shipped = with_config(shipped, overview=0, steps=2)
    whole = with_config(shipped, tile=128, overlap=0)(dark, seed)[0]

    def jumps(overlap: int) -> torch.Tensor:
        apart = with_config(shipped, tile=64, overlap=overlap)(dark, seed)[0] - whole
        across = apart.diff(dim=-1).abs().mean((0, 1, 2)), apart.diff(dim=-2).abs().mean((0, 1, 3))
        return torch.stack([steps / steps.mean() for steps in across])

    blended, cut = jumps(32), jumps(0)
    assert blended.max() < 3 < 5 < cut[:, 63].min(), (
        "without overlap there is a seam between the pixels 63 and 64"
    )
    assert blended[:, [31, 63, 95]].mean() < 1.6, (
        "tiles begin or end here; with weights that do not fade it is 1.95"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 3},
        {"solver": "heun"},
        {"start": "lq", "strength": 0.5},
        {"tile": 16},
        {"overlap": 16},
        {"colour": "adain"},
        {"colour": "wavelet"},
    ],
)
def test_every_setting_changes_the_result(restorer, change):
    lq, seed = images(1, 40, 48), torch.tensor([1])
    assert not torch.equal(with_config(restorer, **change)(lq, seed)[0], restorer(lq, seed)[0])
    if "strength" in change:
        same = with_config(restorer, start="lq", strength=1.0)(lq, seed)[0]
        torch.testing.assert_close(same, restorer(lq, seed)[0])


def test_tiles_must_suit_the_backbone(restorer):
    for tile in (36, 72):
        with pytest.raises(
            ValueError,
            match=f"sampling.tile is {tile} px: this backbone takes multiples of 8 px up to 64 px",
        ):
            with_config(restorer, tile=tile)


def test_the_vae_is_not_cut_where_the_transformer_is(restorer):
    """An image of many transformer tiles goes through the VAE in one piece, up to the VAE's own,
    larger tile.
    """
    image = images(1, 96, 64)
    small = with_config(restorer, tile=32, overlap=8)
    torch.testing.assert_close(
        small.round_trip(image),
        decode(restorer.vae, encode(restorer.vae, image)),
        rtol=0,
        atol=1e-4,
    )


@pytest.mark.parametrize("size", [(32, 24), (29, 30), (50, 70)])
def test_routing_while_sampling_is_routing_in_one_forward(restorer, size):
    """The routers are asked once an image or tile, whatever the steps, and `route` asks the same;
    whole, padded and tiled images.
    """
    lq, asked = images(2, *size), []

    def count(module, args, routing):
        asked.append(len(routing.weights))

    mims = restorer.network.branch.mims
    hooks = [mim.router.register_forward_hook(count) for mim in mims]
    try:
        sampled = with_config(restorer, steps=5)(lq, torch.tensor([0, 1]))[1]
    finally:
        for hook in hooks:
            hook.remove()
    tiles = len(restorer.layout.boxes(*pad_to_multiple(lq, 8).shape[-2:])) if max(size) > 32 else 1
    assert sum(asked) == 2 * tiles * len(hooks), "not once more at any step"
    for one, other in zip(sampled, restorer.route(lq), strict=True):
        assert len(one[0].inter.weights) == tiles
        for mine, theirs in zip(tree_leaves(one), tree_leaves(other), strict=True):
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("dtype", "has", "expected"),
    [("auto", True, "bfloat16"), ("auto", False, "float32"), (None, True, "float32")],
)
def test_auto_takes_bfloat16_where_the_processor_has_it(
    branch_file, monkeypatch, dtype, has, expected
):
    monkeypatch.setattr(loading, "computes_bfloat16", lambda device: has)
    restorer = load_restorer(branch_file, device="cpu", dtype=dtype)
    assert restorer.network.backbone.dtype == restorer.vae.dtype == getattr(torch, expected)
    assert restorer.record()["backbone"]["dtype"] == expected
    corrected = load_restorer("package", device="cpu", dtype=dtype, fidelity="package")
    behind = corrected.corrector.network
    assert behind.correction.enter.weight.dtype == getattr(torch, expected)
    assert behind.cleaner.correction.enter.weight.dtype == getattr(torch, expected)
    assert behind.scene_light.leave.weight.dtype == torch.float32


def test_what_the_processor_has_is_what_the_kernel_says_of_it():
    flags = Path("/proc/cpuinfo")
    if not flags.is_file():
        pytest.skip("only Linux lists a processor's instructions in /proc/cpuinfo")
    words = set(flags.read_text().split())
    assert computes_bfloat16(torch.device("cpu")) == bool(words & {"avx512_bf16", "amx_tile"})
    assert not computes_bfloat16(torch.device("meta"))


def test_copies_of_an_image_are_sampled_together_as_one_by_one(restorer):
    """Only rounding differs; a hook wants the first alone."""
    lq, seeds = images(2, 32, 24), torch.tensor([3, 8])
    alone = with_config(restorer, overview=32, overview_samples=3, tile_batch=1)
    together = with_config(restorer, overview=32, overview_samples=3, tile_batch=6)
    expected, _ = alone(lq, seeds)
    counted = []
    found, routing = together(lq, seeds, progress=counted.append)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert len(routing) == 2 and sum(counted) == 2 * restorer.evaluations(32, 24) * 3
    assert set(counted) == {6}
    seen = []
    together.on_step = lambda step, time, latent: seen.append(len(latent)) or latent
    watched, _ = together(lq, seeds)
    torch.testing.assert_close(watched, expected, atol=1e-5, rtol=0)
    assert set(seen) == {2}
