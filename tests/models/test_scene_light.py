"""The light of a scene: its cells against numpy, and what it makes of images."""

import numpy as np
import pytest
import torch

from lit_mimdit.models import scene_light
from lit_mimdit.models.scene_light import SceneLight, cells, seen, statistics, trust


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def trained(seed=1):
    network, generator = SceneLight(8, 2), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network


def test_cells_by_hand():
    images = random(2, 3, 16, 24)
    found = cells(images).numpy()
    assert found.shape == (2, 8, 2, 3)
    cell = images[1, :, 8:16, 16:24].numpy()
    np.testing.assert_allclose(found[1, :3, 1, 2], cell.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found[1, 3:6, 1, 2], cell.std((1, 2)), rtol=1e-4)
    assert found[1, 6, 1, 2] == np.sort(cell.min(0).ravel())[3]
    assert found[1, 7, 1, 2] == np.sort(cell.max(0).ravel())[60]


def test_what_is_seen_is_near_one_in_size():
    for images in (torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8), random(1, 3, 8, 8)):
        planes = seen(cells(images))
        assert planes.shape == (1, 15, 1, 1) and planes.abs().max() <= 2
    assert not torch.equal(seen(cells(torch.full((1, 3, 8, 8), 0.002))), planes)


def test_cells_of_a_lit_image_are_scaled_and_shifted():
    images = 0.3 * random(1, 3, 16, 16)
    held, lit = cells(images), cells(2 * images + 0.1)
    torch.testing.assert_close(lit[:, :3], 2 * held[:, :3] + 0.1)
    torch.testing.assert_close(lit[:, 3:6], 2 * held[:, 3:6])


def test_an_untrained_network_changes_nothing():
    images = random(2, 3, 40, 24)
    torch.testing.assert_close(SceneLight(8, 1).lit(images)[0], images)


def test_gain_and_offset_by_hand(monkeypatch):
    network, images = SceneLight(8, 1), random(1, 3, 16, 16) / 4
    gain, offset = torch.full((1, 3, 2, 2), 3.0), torch.full((1, 3, 2, 2), 0.1)
    offset[..., 1] = 0.2
    monkeypatch.setattr(network, "forward", lambda held: (gain, offset, torch.tensor([0.0])))
    lit, better = network.lit(images)
    # straight between the centres of the cells, at 3.5 and 11.5
    shift = (torch.arange(16) - 3.5).div(8).clamp(0, 1) * 0.1 + 0.1
    torch.testing.assert_close(lit, (3 * images + shift).clamp(0, 1))
    assert better.item() == 0.5


def test_any_size_and_a_large_scene_by_its_reduced_copy(monkeypatch):
    network, asked = trained(), []
    original = network.forward
    monkeypatch.setattr(network, "forward", lambda held: asked.append(held.shape) or original(held))
    for height, width in ((8, 8), (9, 30), (100, 50)):
        lit, better = network.lit(random(2, 3, height, width))
        assert lit.shape == (2, 3, height, width) and lit.min() >= 0 and lit.max() <= 1
        assert better.shape == (2,) and (better > 0).all() and (better < 1).all()
    monkeypatch.setattr(scene_light, "LONGEST", 32)
    images = random(1, 3, 48, 64)
    small = torch.nn.functional.avg_pool2d(images, 2)
    lit, better = network.lit(images)
    assert asked[-1] == (1, 8, 3, 4)
    torch.testing.assert_close(better, network.lit(small)[1])
    strip = network.lit(random(1, 3, 8, 640))[0]  # too low to be reduced
    assert strip.shape == (1, 3, 8, 640)


def test_values_a_cleaner_has_left_outside_of_the_range_are_no_harm():
    images = torch.full((1, 3, 16, 16), -0.05)  # no logarithm has that
    lit, better = trained().lit(images)
    assert lit.isfinite().all() and better.isfinite().all()


def test_the_whole_scene_is_seen():
    network, images = trained(), random(1, 3, 64, 64)
    other = images.clone()
    other[..., 56:, 56:] = 0
    first, second = network(cells(images)), network(cells(other))
    assert not torch.allclose(first[0][..., 0, 0], second[0][..., 0, 0], atol=1e-6)
    assert not torch.allclose(first[2], second[2], atol=1e-6)


def test_statistics_by_hand():
    planes = random(2, 3, 4, 5)
    found = statistics(planes)
    torch.testing.assert_close(found[:, :3], planes.mean((2, 3)))
    expected = planes.flatten(2).std(2, correction=0)
    torch.testing.assert_close(found[:, 3:], expected, rtol=1e-3, atol=1e-4)


def test_every_parameter_learns():
    network = trained()
    gain, offset, logit = network(cells(random(2, 3, 32, 32)))
    (gain.square().mean() + offset.square().mean() + logit.square().mean()).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


def test_trust_lies_between_its_bounds():
    found = trust(torch.tensor([0.1, 0.4, 0.5, 0.6, 0.9]), (0.4, 0.6))
    assert found.shape == (5, 1, 1, 1)
    torch.testing.assert_close(found.flatten(), torch.tensor([0, 0, 0.5, 1, 1]))


@pytest.mark.parametrize("sizes", [(0, 1), (7, 1), (8, 0)])
def test_sizes_are_checked(sizes):
    with pytest.raises(ValueError, match="give an even width"):
        SceneLight(*sizes)
