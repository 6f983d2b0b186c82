"""Overlapping tiles of an image: where they lie, and which of them a region needs."""

from typing import NamedTuple


class Region(NamedTuple):
    """A rectangle of an image, pixels."""

    top: int
    left: int
    height: int
    width: int


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """Returns where tiles of `tile` pixels start along a side of `length`.

    They are as few as cover it, spread evenly, with neighbours sharing `overlap` or more.
    """
    if length <= tile:
        return [0]
    count = -(-(length - tile) // (tile - overlap)) + 1
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def boxes(height: int, width: int, tile: int | None, overlap: int = 0) -> list[Region]:
    """Returns tiles that cover an image, row by row; one box of the whole image if `tile` is None.

    A shorter side is its tile's side.
    """
    if tile is None:
        return [Region(0, 0, height, width)]
    if not 0 <= overlap < tile:
        raise ValueError(
            f"overlap is {overlap}: it must be 0 or more and smaller than the tile of {tile} pixels"
        )
    rows, columns = starts(height, tile, overlap), starts(width, tile, overlap)
    size = min(tile, height), min(tile, width)
    return [Region(top, left, *size) for top in rows for left in columns]


def shared(one: Region, other: Region) -> Region | None:
    """Returns what two boxes share, None if nothing."""
    top, left = max(one.top, other.top), max(one.left, other.left)
    bottom, right = (
        min(one.top + one.height, other.top + other.height),
        min(one.left + one.width, other.left + other.width),
    )
    return Region(top, left, bottom - top, right - left) if bottom > top and right > left else None
