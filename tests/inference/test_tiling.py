"""Tiles cover every place with weight, and blending agrees with what was not tiled."""

import itertools

import pytest
import torch

from lit_mimdit.inference.tiling import blend, boxes, crop, positions, ramp

SHAPES = [(8, 8), (16, 40), (72, 24), (64, 64), (200, 136), (8, 400)]
TILES = [(8, 0, 8), (32, 8, 8), (64, 56, 8), (48, 13, 16), (32, 31, 8), (64, 0, 8)]


@pytest.mark.parametrize("tile, overlap, multiple", TILES)
@pytest.mark.parametrize("height, width", SHAPES)
def test_boxes_cover_everything_have_one_size_and_lie_on_the_grid(
    height, width, tile, overlap, multiple
):
    height, width = -(-height // multiple) * multiple, -(-width // multiple) * multiple
    found = boxes(height, width, tile, overlap, multiple)
    covered = torch.zeros(height, width)
    for box in found:
        part = crop(covered, box)
        assert part.shape == found[0][2:], "all one size, none over the border"
        assert part.shape[0] <= min(tile, height) and part.shape[1] <= min(tile, width)
        part.add_(1)
    assert covered.min() >= 1 and len(set(found)) == len(found)
    assert all(n % multiple == 0 for box in found for n in box)


@pytest.mark.parametrize("length", range(40, 400, 8))
def test_neighbours_share_at_least_the_overlap_and_tiles_are_as_short_as_they_can(length):
    for tile, overlap in ((32, 8), (40, 24), (96, 17)):
        side, found = positions(length, tile, overlap, 8)
        assert found[0] == 0 and found[-1] == length - side
        assert all(0 < after - now <= side - overlap for now, after in itertools.pairwise(found))
        fewest = max(1, -(-(length - overlap) // (tile - overlap)))
        assert len(found) >= fewest and (overlap % 8 or len(found) == fewest)
        shorter = side - 8  # as many of these do not reach the end, or share too little
        assert len(found) * shorter - (len(found) - 1) * -(-overlap // 8) * 8 < length


def test_tiles_by_hand():
    assert positions(480, 96, 8, 8) == (88, [0, 80, 160, 232, 312, 392])
    assert positions(96, 96, 24, 8) == (96, [0]) and positions(40, 96, 24, 8) == (40, [0])
    assert positions(104, 96, 24, 8) == (64, [0, 40])


def test_the_ramp_by_hand():
    torch.testing.assert_close(ramp(6, 2), torch.tensor([1 / 3, 2 / 3, 1, 1, 2 / 3, 1 / 3]))
    assert torch.equal(ramp(4, 0), torch.ones(4))
    for length, overlap in itertools.product((1, 2, 7, 32), (0, 1, 5, 31)):
        assert ramp(length, overlap).min() > 0


def field(height: int, width: int) -> torch.Tensor:
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float32),
        torch.arange(width, dtype=torch.float32),
        indexing="ij",
    )
    return torch.stack([torch.full_like(y, 3.0), 0.5 * y - 0.25 * x + 1.0])[None]


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_tiles_that_agree_blend_to_what_they_agree_on(batch):
    plane = torch.cat([field(72, 40), torch.randn(1, 1, 72, 40)], dim=1)
    tiles = boxes(72, 40, 32, 8, 8)
    torch.testing.assert_close(
        blend(plane, tiles, tiles, 8, batch, lambda x, _: x), plane, rtol=0, atol=1e-5
    )


def test_results_of_another_scale_land_where_they_belong():
    """Every second place kept: a constant and a ramp come out as themselves."""
    plane = field(72, 40)
    tiles = boxes(72, 40, 32, 8, 8)
    half = [tuple(n // 2 for n in box) for box in tiles]
    result = blend(plane, tiles, half, 4, 2, lambda x, _: x[..., ::2, ::2])
    torch.testing.assert_close(result, plane[..., ::2, ::2], rtol=0, atol=1e-5)


def test_where_tiles_disagree_the_seam_is_a_slope():
    tiles = [(0, 0, 1, 8), (0, 4, 1, 8)]
    result = blend(
        torch.zeros(1, 1, 1, 12),
        tiles,
        tiles,
        4,
        1,
        lambda x, group: torch.full_like(x, float(group)),
    )
    weights = torch.tensor([0.2, 0.4, 0.6, 0.8])  # the second tile's, where both are
    expected = torch.cat([torch.zeros(4), weights / (weights + weights.flip(0)), torch.ones(4)])
    torch.testing.assert_close(result.flatten(), expected)


def test_groups_are_numbered_and_hold_at_most_a_batch():
    tiles, seen = boxes(32, 64, 16, 0, 8), []
    blend(
        torch.zeros(1, 1, 32, 64),
        tiles,
        tiles,
        0,
        3,
        lambda x, group: seen.append((group, len(x))) or x,
    )
    assert seen == [(0, 3), (1, 3), (2, 2)]
