"""The fidelity network.

What it is before and after training, its weight, and what its U-Net demands.
"""

import math

import pytest
import torch

from lit_mimdit.models import fidelity
from lit_mimdit.models.fidelity import GRAIN, Fidelity, grain, light
from lit_mimdit.models.scene_light import DOUBT, SURE
from lit_mimdit.models.unet import ResidualBlock, SceneUNet


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.rand(2, 3, 16, 24, generator=generator) for _ in range(2))


def _trained(module):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return module


def test_an_untrained_network_takes_the_mean(images):
    torch.testing.assert_close(
        Fidelity(widths=(4, 6), blocks=1)(*images), (images[0] + images[1]) / 2
    )


def test_shares_and_residual_by_hand(images):
    restored, lq = images
    network = Fidelity(widths=(4,), blocks=1)
    # what leaves is its bias, 4 pixels for each plane: the shares of light and detail, then the
    # residual
    with torch.no_grad():
        network.correction.leave.bias.copy_(
            torch.tensor([3.0] * 4 + [-1.0] * 4 + [0.1] * 4 + [0.0] * 4 + [-0.2] * 4)
        )
    of_light, of_detail = (1 / (1 + math.exp(-logit)) for logit in (3.0, -1.0))
    low = light(lq - restored)
    expected = (
        of_light * low
        + of_detail * (lq - restored - low)
        + torch.tensor([0.1, 0.0, -0.2])[:, None, None]
    )
    torch.testing.assert_close(network(restored, lq, weight=0.5), restored + 0.5 * expected)


def test_light_is_the_mean_of_cells_and_straight_between_their_centres():
    image = torch.zeros(1, 1, 8, 16)
    image[..., 8:] = torch.tensor([0.0, 2.0]).repeat(4)  # detail that is gone in the mean, 1
    expected = (torch.arange(16) - 3.5).div(8).clamp(0, 1)
    torch.testing.assert_close(light(image)[0, 0], expected.expand(8, 16))


def test_grain_is_what_a_pixel_differs_from_its_surroundings_enlarged():
    image = torch.full((1, 1, 4, 5), 0.3)
    image[..., 1, 2] += 0.009
    apart = torch.zeros(4, 5)
    apart[:3, 1:4] = -0.001
    apart[1, 2] = 0.008
    torch.testing.assert_close(grain(image)[0, 0], torch.tanh(GRAIN * apart), rtol=0, atol=1e-5)
    assert GRAIN / 255 < 0.25, "a step of 8 bits stays far from saturation"


def test_statistics_of_the_scene_by_hand_and_in_place_of_a_tiles_own(images):
    network = _trained(Fidelity(widths=(4,), blocks=1))
    seen = torch.cat([*(image - 0.5 for image in images), grain(images[1])], dim=1)
    correction = network.correction
    coarse = correction.before[0](correction.enter(torch.nn.functional.pixel_unshuffle(seen, 2)))
    flat = coarse.flatten(2)
    own = torch.cat([flat.mean(-1), flat.std(-1, correction=0)], dim=1)
    torch.testing.assert_close(network.statistics(*images), own, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(
        network.correct(*images, statistics=own), network(*images), rtol=1e-3, atol=1e-4
    )
    assert not torch.allclose(
        network.correct(*images, statistics=own.flip(0)), network(*images), atol=1e-3
    )


def test_the_weight_goes_from_the_restored_image_to_the_corrected_one(images):
    network = _trained(Fidelity(widths=(4, 6), blocks=1))
    none, half, whole = (network(*images, weight=w) for w in (0.0, 0.5, 1.0))
    assert torch.equal(none, images[0]) and not torch.allclose(whole, images[0], atol=1e-2)
    torch.testing.assert_close(half, (none + whole) / 2)


def test_both_images_count(images):
    restored, lq = images
    network = _trained(Fidelity(widths=(4,), blocks=1))
    change = network(restored, lq) - restored
    assert not torch.allclose(network(restored, lq.flip(-1)) - restored, change, atol=1e-3)
    assert not torch.allclose(network(restored.flip(-1), lq) - restored.flip(-1), change, atol=1e-3)


def test_every_parameter_learns(images):
    network = _trained(Fidelity(widths=(4, 6, 8), blocks=2))
    network(*images).square().mean().backward()
    assert all(
        parameter.grad is not None and parameter.grad.abs().max() > 0
        for parameter in network.parameters()
    )


def test_a_pixel_far_away_is_seen_on_coarse_levels_only():
    def reach(network):
        image = torch.zeros(1, 6, 64, 64, requires_grad=True)
        network(image)[0, 0, 32, 32].backward()
        rows = image.grad.abs().sum((0, 1, 3)).nonzero().flatten()
        return int(rows.max() - rows.min()) + 1

    # by hand: 6 convolutions of 3 on pixels of 2 see 13 of them; beside them, blocks on pixels of 4
    # see further
    assert reach(_trained(SceneUNet(2, 4, (4,), 1))) == 26
    assert reach(_trained(SceneUNet(2, 4, (4, 4), 1))) > 26


def test_residual_block_by_hand():
    block = _trained(ResidualBlock(2))
    x = torch.randn(1, 2, 5, 5, generator=torch.Generator().manual_seed(2))
    first = torch.nn.functional.conv2d(x, block.first.weight, block.first.bias, padding=1)
    gelu = first * 0.5 * (1 + torch.erf(first / 2**0.5))
    torch.testing.assert_close(
        block(x),
        x + torch.nn.functional.conv2d(gelu, block.second.weight, block.second.bias, padding=1),
    )


@pytest.mark.parametrize(
    "settings",
    [{"widths": (), "blocks": 1}, {"widths": (0,), "blocks": 1}, {"widths": (4,), "blocks": 0}],
)
def test_impossible_networks_are_refused(settings):
    with pytest.raises(ValueError, match="give at least one level"):
        Fidelity(**settings)


def test_a_cleaner_comes_before_all_else(images):
    restored, lq = images
    network = _trained(Fidelity((4, 6), 1, gain=True, cleaner=((6, 4), 1, True)))
    cleaner = network.cleaner
    cleaned = cleaner(lq, lq)
    assert (cleaned - lq).abs().max() > 0.1
    torch.testing.assert_close(network.cleaned(lq), cleaned)
    alone = Fidelity((4, 6), 1, gain=True)
    alone.correction.load_state_dict(network.correction.state_dict())
    torch.testing.assert_close(network(restored, lq, 0.5), alone(restored, cleaned, 0.5))
    torch.testing.assert_close(network.correct(restored, lq), alone(restored, lq))


def test_a_deblurrer_comes_behind_the_cleaner(images, monkeypatch):
    """And before the light; each sees what the one before it leaves."""
    monkeypatch.setattr(fidelity, "BLURRED", (0.0, 1e-9))
    monkeypatch.setattr(fidelity, "SHARPER", (0.0, 1e-9))
    sizes = (6, 4), 1, False
    network = _trained(Fidelity((4, 6), 1, cleaner=sizes, light=(4, 1), deblurrer=sizes))
    first, second = network.cleaner, network.deblurrer
    clean = first(images[1], images[1])
    sharp = second(clean, clean)
    assert (sharp - clean).abs().max() > 0.1
    torch.testing.assert_close(network.cleaned(images[1]), network.lit(sharp)[0])
    monkeypatch.setattr(fidelity, "BLURRED", (1e9, 2e9))
    torch.testing.assert_close(network.cleaned(images[1]), network.lit(clean)[0])
    network.looks_in(torch.bfloat16)
    assert second.correction.enter.weight.dtype == torch.bfloat16
    assert Fidelity((4,), 1, deblurrer=((4, 4, 4, 4), 1, False)).multiple == 16


def test_a_deblurrer_counts_as_far_as_it_changes_a_scene():
    """Rows that alternate sharpen it; the differences along both axes are 0.02 in the mean."""
    low, high = fidelity.BLURRED
    rows, columns = torch.arange(16.0)[:, None], torch.arange(20.0)
    flat = (0.3 + 0.008 * rows + 0.012 * columns).expand(1, 3, 16, 20)
    for change, share in ((low - 0.1, 0.0), ((low + high) / 2, 0.5), (high + 0.1, 1.0)):
        sharp = flat + 0.02 * change * (torch.arange(16)[:, None] % 2 * 2 - 1)
        assert sharp.diff(dim=-2).abs().mean() > 1.1 * 0.008
        expected = flat + share * (sharp - flat)
        torch.testing.assert_close(fidelity.deblurred(sharp, flat), expected, atol=1e-5, rtol=0)
    two = torch.cat([sharp, flat + 0.02 * (low - 0.1)])
    each = fidelity.deblurred(two, torch.cat([flat, flat]))
    torch.testing.assert_close(each, torch.cat([sharp, flat]), msg="each scene by itself")


def test_a_deblurrer_that_smooths_counts_nothing():
    """By how much a scene's differences grow: not, by half of what is asked for, by twice."""
    noisy = torch.rand(1, 3, 16, 20, generator=torch.Generator().manual_seed(0))
    low, high = fidelity.SHARPER
    for growth, share in ((0.5, 0.0), ((low + high) / 2, 0.5), (2 * high - low, 1.0)):
        other = 1 + growth * noisy  # brighter by far, so it changes enough
        expected = noisy + share * (other - noisy)
        torch.testing.assert_close(fidelity.deblurred(other, noisy), expected, atol=1e-3, rtol=0)


def test_the_multiple_is_that_of_both():
    assert Fidelity((4,), 1, cleaner=((4, 4, 4, 4), 1, False)).multiple == 16
    assert (
        Fidelity((4,), 1).multiple == 8 and Fidelity((4,), 1).cleaned(one := torch.rand(1)) is one
    )


def test_the_light_counts_as_far_as_it_probably_helps(images, monkeypatch):
    network = Fidelity(widths=(4,), blocks=1, light=(4, 1))
    better = torch.tensor([0.1, (DOUBT + SURE) / 2])
    monkeypatch.setattr(network.scene_light, "lit", lambda seen: (1 - seen, better))
    lq = images[1]
    lit, probability = network.lit(lq)
    assert probability is better
    expected = torch.stack([lq[0], (lq[1] + 1 - lq[1]) / 2])
    torch.testing.assert_close(lit, expected)
    torch.testing.assert_close(network.cleaned(lq), lit)
    assert Fidelity(widths=(4,), blocks=1).lit(lq) == (lq, None)
