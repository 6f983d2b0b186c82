"""Padding, cropping and tiles."""

import pytest
import torch

from lit_mimdit.models.padding import pad_to_multiple
from lit_mimdit.systems.sizes import centre_crop, in_tiles


def test_padding_reflects_right_and_below():
    x = torch.arange(12.0).view(1, 1, 3, 4)
    padded = pad_to_multiple(x, 5)
    assert padded[0, 0, 0].tolist() == [0, 1, 2, 3, 2]
    assert padded[0, 0, :, 0].tolist() == [0, 4, 8, 4, 0]
    assert pad_to_multiple(torch.rand(1, 3, 17, 30), 16, 32).shape[-2:] == (32, 32)
    assert pad_to_multiple(torch.rand(1, 3, 5, 40), 16, 32).shape[-2:] == (32, 48), "the least side"
    assert pad_to_multiple(x, 8)[0, 0, 0].tolist() == [0, 1, 2, 3, 2, 1, 0, 1], "more than once"


def test_a_size_that_fits_is_left_alone():
    x = torch.rand(1, 3, 16, 8)
    assert torch.equal(pad_to_multiple(x, 8), x) and torch.equal(centre_crop(x, 8), x)


def test_the_centre_is_kept():
    x = torch.arange(7.0).expand(9, 7)
    assert centre_crop(x, 4).shape == (8, 4)
    assert centre_crop(x, 4)[0].tolist() == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="no multiple of 16 inside"):
        centre_crop(x, 16)


@pytest.mark.parametrize("size", [(20, 33), (8, 40), (5, 5), (16, 16)])
def test_tiles_cover_every_pixel_and_are_averaged(size):
    x = torch.rand(1, 3, *size)
    torch.testing.assert_close(in_tiles(lambda tile: 2 * tile, x, 16, 4), 2 * x)
    seen = []
    in_tiles(lambda tile: seen.append(tile.shape[-2:]) or tile, x, 16, 4)
    assert set(seen) == {(min(16, *size),) * 2}


def test_overlaps_have_the_mean_of_both_tiles():
    numbers = iter([1.0, 3.0])
    result = in_tiles(
        lambda tile: torch.full_like(tile, next(numbers)), torch.zeros(1, 1, 8, 12), 8, 4
    )
    assert result[0, 0, 0].tolist() == [1.0] * 4 + [2.0] * 4 + [3.0] * 4
