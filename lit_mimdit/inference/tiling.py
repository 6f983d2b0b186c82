"""Large images in overlapping tiles that are blended where they meet: velocities at every step
(MultiDiffusion, arXiv 2302.08113), and what the VAE sees and says.

A box is (top, left, height, width).
"""

from collections.abc import Callable

import torch
from torch import Tensor

Box = tuple[int, int, int, int]


def positions(length: int, tile: int, overlap: int, multiple: int) -> tuple[int, list[int]]:
    """Returns the side of the tiles that cover `length`, and their first positions.

    There are as few tiles as a side of `tile` allows. Their side is the shortest with which so many
    still share `overlap`: less than `tile` where the last one would hang over. They are spread
    evenly and lie at multiples of `multiple`, of which `length` and `tile` are multiples, too.
    """
    if length <= tile:
        return length, [0]
    stride = max(multiple, (tile - overlap) // multiple * multiple)
    shared = tile - stride
    count = -(-(length - shared) // stride)
    side = -(-(length + (count - 1) * shared) // (count * multiple)) * multiple
    last = length - side
    return side, [round(index * last / (count - 1) / multiple) * multiple for index in range(count)]


def boxes(height: int, width: int, tile: int, overlap: int, multiple: int) -> list[Box]:
    """Returns tiles that cover height x width, all of one size; a side has at most `tile`."""
    (tall, rows), (wide, columns) = (
        positions(length, tile, overlap, multiple) for length in (height, width)
    )
    return [(top, left, tall, wide) for top in rows for left in columns]


def crop(plane: Tensor, box: Box) -> Tensor:
    """Returns the part `box` of (..., H, W)."""
    top, left, height, width = box
    return plane[..., top : top + height, left : left + width]


def crops(plane: Tensor | tuple[Tensor, ...], group: list[Box]) -> Tensor:
    """Returns the parts of a plane (1, C, H, W) at boxes of one size, (boxes, C, h, w).

    Of several planes, their channels lie one behind the other.
    """
    planes = plane if isinstance(plane, tuple) else (plane,)
    parts = [[crop(one, box) for one in planes] for box in group]
    return torch.cat([torch.cat(part, dim=1) for part in parts])


def joined(images: list[Tensor]) -> Tensor:
    """Returns images (1, C, H, W) as a batch; a single one itself, since a large one has no room
    for a copy.
    """
    return images[0] if len(images) == 1 else torch.cat(images)


def ramp(length: int, overlap: int) -> Tensor:
    """Returns weights of a tile along one axis, (length,).

    They rise over `overlap` positions, stay at 1 and fall again; none is 0.
    """
    position = torch.arange(length, dtype=torch.float32)
    edge = torch.minimum(position, length - 1 - position) + 1.0
    return (edge / (overlap + 1)).clamp(max=1.0)


def blend(
    plane: Tensor | tuple[Tensor, ...],
    source: list[Box],
    target: list[Box],
    overlap: int,
    batch: int,
    compute: Callable[[Tensor, int], Tensor],
) -> Tensor:
    """Returns the weighted mean of what `compute` makes of the tiles of one plane (1, C, H, W).

    Args:
        plane: cut at the boxes `source`, which all have one size. Several planes are cut alike.
        source: boxes in the plane.
        target: where each result goes in the output, in the output's own scale.
        overlap: width of the blended border, in the output's scale.
        batch: tiles computed at once.
        compute: (b, C, h, w) tiles and their group's number -> (b, C', h', w').
    """
    total: Tensor | None = None
    weights: Tensor | None = None
    height, width = (max(box[axis] + box[axis + 2] for box in target) for axis in (0, 1))
    weight = ramp(target[0][2], overlap)[:, None] * ramp(target[0][3], overlap)[None]
    for group, first in enumerate(range(0, len(source), batch)):
        values = compute(crops(plane, source[first : first + batch]), group)
        if total is None or weights is None:
            total, weight = values.new_zeros(1, values.shape[1], height, width), weight.to(values)
            weights = torch.zeros_like(total[:, :1])
        for value, box in zip(values, target[first : first + batch], strict=True):
            crop(total, box).add_(value * weight)
            crop(weights, box).add_(weight)
    assert total is not None and weights is not None, "a plane has tiles"
    return total.div_(weights)
