"""The small copy: its size, its means, and that tiles take its light and keep their own detail."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from lit_mimdit import cli
from lit_mimdit.inference.corrector import Corrector
from lit_mimdit.inference.layout import Layout
from lit_mimdit.inference.overview import anchor, shrink, small_size
from lit_mimdit.inference.restorer import Restorer
from lit_mimdit.inference.sampler import SamplingConfig
from lit_mimdit.models.fidelity import Fidelity


@pytest.mark.parametrize(
    "size, expected",
    [
        ((1080, 1920), (72, 128)),
        ((2000, 2000), (128, 128)),
        ((4000, 200), (128, 8)),
        ((9000, 10), (128, 8)),
    ],
)
def test_small_sizes(size, expected):
    assert small_size(*size, 128, 8) == expected


def test_shrinking_takes_means():
    image = torch.rand(1, 3, 12, 20)
    torch.testing.assert_close(
        shrink(image, (3, 5)), image.unflatten(2, (3, 4)).unflatten(4, (5, 4)).mean((3, 5))
    )


def test_tiles_take_the_light_and_keep_the_detail():
    generator = torch.Generator().manual_seed(0)
    detail = 0.1 * torch.rand(1, 3, 128, 128, generator=generator) - 0.05
    patchwork = 0.5 + detail
    patchwork[..., :64] -= 0.2  # the left tiles think it is darker
    even = torch.full((1, 3, 64, 64), 0.5)
    result = anchor(patchwork, even)
    left, right = result[..., 8:56].mean(), result[..., 72:120].mean()
    assert abs(left - 0.5) < 0.01 and abs(right - 0.5) < 0.01
    kept = torch.corrcoef(torch.stack([result[..., 8:56].flatten(), detail[..., 8:56].flatten()]))[
        0, 1
    ]
    assert kept > 0.95


def test_an_even_result_that_agrees_stays_as_it_is():
    image = torch.full((1, 3, 40, 56), 0.3)
    torch.testing.assert_close(anchor(image, torch.full((1, 3, 16, 24), 0.3)), image)


def test_the_restorer_anchors_large_images_only(restorer):
    config = replace(restorer.config, tile=32, overlap=8)
    plain, with_it = (
        Restorer(restorer.network, restorer.vae, restorer.scheduler, c)
        for c in (config, replace(config, overview=48))
    )
    seeds = torch.tensor([1, 2])
    for size, differs in (((40, 48), False), ((56, 72), True)):
        lq = torch.rand(2, 3, *size)
        counted = []
        found = with_it(lq, seeds, progress=counted.append)[0]
        assert torch.equal(found, plain(lq, seeds)[0]) != differs
        assert (
            sum(counted) == 2 * with_it.evaluations(*size)
            if not differs
            else with_it.evaluations(*size) > plain.evaluations(*size)
        )
    small = shrink(lq, small_size(*size, 48, restorer.multiple))
    whole = replace(config, tile=64, overview=0)
    restored_small = Restorer(restorer.network, restorer.vae, restorer.scheduler, whole)(
        small, seeds
    )[0]
    torch.testing.assert_close(
        found, anchor(plain(lq, seeds)[0], restored_small), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    "size",
    [(24, 32), (40, 56), (64, 72)],
    ids=["smaller than a tile", "in tiles", "larger than the small copy"],
)
def test_several_samples_give_the_light_of_their_mean_to_images_of_any_size(restorer, size):
    config = replace(restorer.config, tile=32, overlap=8)
    plain, with_it = (
        Restorer(restorer.network, restorer.vae, restorer.scheduler, c)
        for c in (config, replace(config, overview=64, overview_samples=3))
    )
    lq, seeds, counted = (
        torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)),
        torch.tensor([1, 7]),
        [],
    )
    found = with_it(lq, seeds, progress=counted.append)[0]
    more = (
        2 if max(size) <= config.tile else 3
    )  # an image in one piece is the first sample of itself
    assert (
        sum(counted)
        == 2 * with_it.evaluations(*size)
        == 2 * (plain.evaluations(*size) + more * config.steps)
    )
    whole = Restorer(restorer.network, restorer.vae, restorer.scheduler, replace(config, tile=64))
    small = shrink(lq, small_size(*size, 64, restorer.multiple)) if max(size) > 64 else lq
    samples = [whole(small, seeds + number)[0] for number in range(3)]
    assert (samples[0] - samples[1]).abs().max() > 1e-3, "other noise"
    torch.testing.assert_close(
        found, anchor(plain(lq, seeds)[0], torch.stack(samples).mean(0)), rtol=0, atol=1e-5
    )


def test_behind_a_fidelity_network_a_large_image_is_sampled_reduced(restorer):
    network, generator = Fidelity((4, 4), 1), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    parts = restorer.network, restorer.vae, restorer.scheduler
    config = replace(restorer.config, tile=32, overlap=8)
    plain = Restorer(*parts, config)
    reduced = Restorer(*parts, replace(config, longest=48), corrector=Corrector(network))
    lq, seeds, counted = torch.rand(2, 3, 60, 96, generator=generator), torch.tensor([1, 7]), []
    found, routing = reduced(lq, seeds, counted.append)
    padded = torch.nn.functional.pad(lq, (0, 0, 0, 4), mode="reflect")
    small = shrink(padded, (32, 48))
    restored, decided = plain(small, seeds)
    large = torch.nn.functional.interpolate(restored, size=(64, 96), mode="bicubic").clamp(0, 1)
    expected = reduced.corrected(large, padded)[..., :60, :]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert sum(counted) == 2 * reduced.evaluations(60, 96) == 2 * plain.evaluations(32, 48)
    weights = [[one[0].inter.weights for one in some] for some in (routing, decided)]
    torch.testing.assert_close(*weights)
    again = [one[0].inter.weights for one in reduced.route(lq)]
    torch.testing.assert_close(again, weights[0])
    # who wants detail of the sample itself gets it
    for corrector in (None, Corrector(network, 0.5)):
        whole = Restorer(*parts, config, corrector=corrector)
        other = Restorer(*parts, replace(config, longest=48), corrector=corrector)
        assert torch.equal(whole(lq, seeds)[0], other(lq, seeds)[0])
        assert whole.evaluations(60, 96) == other.evaluations(60, 96)


def test_images_that_are_no_larger_are_not_reduced():
    for longest in (0, 96, 200):
        layout = Layout(SamplingConfig(longest=longest), 4, 8)
        assert layout.reduced_size(64, 96) == (64, 96)
    assert Layout(SamplingConfig(longest=88), 4, 8).reduced_size(64, 96) == (56, 88)


def test_restore_takes_it(branch_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 72, 3), np.uint8)).save("a.png")
    for out, side in (("off", "0"), ("on", "40")):
        assert (
            cli.main(
                [
                    "restore",
                    "a.png",
                    "-o",
                    out,
                    "--checkpoint",
                    str(branch_file),
                    "--tile",
                    "32",
                    "--overlap",
                    "8",
                    "--overview",
                    side,
                ]
            )
            == 0
        )
        assert json.loads((tmp_path / out / "restoration.json").read_text())["sampling"][
            "overview"
        ] == int(side)
    assert not np.array_equal(
        np.asarray(Image.open("off/a.png")), np.asarray(Image.open("on/a.png"))
    )


def test_impossible_sides_are_refused(restorer):
    with pytest.raises(ValueError, match="sampling.overview is -8"):
        SamplingConfig(overview=-8)
    with pytest.raises(ValueError, match="sampling.longest is -8"):
        SamplingConfig(longest=-8)
    with pytest.raises(ValueError, match="sampling.overview_samples is 0"):
        SamplingConfig(overview_samples=0)
    for side in (12, 1024):
        with pytest.raises(
            ValueError,
            match=(
                f"sampling.overview is {side} px: this backbone takes multiples of 8 px up to 64 px"
            ),
        ):
            Restorer(
                restorer.network,
                restorer.vae,
                restorer.scheduler,
                replace(restorer.config, overview=side),
            )
