"""Bounds detail that the degraded image rules out: spots that a sampler draws into a smooth sky.

One token of the noise can make prior and branch see an object where there is none. The spot has far
more contrast than anything else that the same restoration makes of equally smooth surroundings.
Let s be the mean over channels of the local deviation of detail, d = x - box_25(x):

    s = sqrt(box_13(mean_c d^2)),   e = s_degraded + EPSILON,   usual = Q95(s_restored / e) e
    object^2 = max_25(max(0, s_degraded^2 - (OBJECT median(s_degraded))^2))
    allowed^2 = (LOOSE usual)^2 + (GAIN object)^2

All of it is computed in strips of rows, since a photograph of 200 megapixels has no room for its
details beside it. Where s_restored is more than allowed, detail is scaled down to what is usual,
the more the larger the excess. What rises above the noise of the degraded image is an object, and
may gain contrast. All other pixels keep their bits.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

COARSE, WINDOW = 25, 13  # pixels
EPSILON = 1.5 / 255  # less is not seen
OBJECT, GAIN = 1.5, 10.0
LOOSE = 1.6
RAMP = 4.0  # how soon the whole excess is taken: 1 / RAMP above what is allowed
SAMPLES = 1 << 20  # values that quantiles are taken of
STRIP = 256  # rows computed at once


def record() -> dict[str, float]:
    """Returns what decides the bound, for records of what was restored under it."""
    return {
        "coarse": COARSE,
        "window": WINDOW,
        "epsilon": EPSILON,
        "object": OBJECT,
        "gain": GAIN,
        "loose": LOOSE,
        "ramp": RAMP,
    }


def box(planes: Tensor, side: int) -> Tensor:
    """Means over side x side pixels of planes (B, C, H, W); at the border, of those there are."""
    return _means(_means(planes, side, -1), side, -2)


# the sum of 25 neighbours is that of 16, 8 and 1, and that of 16 is twice that of 8
def _means(planes: Tensor, side: int, dim: int) -> Tensor:
    """Means over `side` neighbours, an odd number, along one axis."""
    length, half = planes.shape[dim], side // 2
    ends = (half, half) if dim == -1 else (0, 0, half, half)
    sums, size = F.pad(planes, ends), 1
    start = 0
    total: Tensor | None = None
    while True:
        if side & size:
            part = sums.narrow(dim, start, length)
            total = part.clone() if total is None else total.add_(part)
            start += size
        if 2 * size > side:
            break
        left = sums.shape[dim] - size
        sums, size = sums.narrow(dim, 0, left) + sums.narrow(dim, size, left), 2 * size
    assert total is not None
    place = torch.arange(length, device=planes.device)
    count = place.clamp(max=half) + place.flip(0).clamp(max=half) + 1
    return total.div_(count if dim == -1 else count[:, None])


def largest(planes: Tensor, side: int) -> Tensor:
    """The largest of the side x side pixels around each pixel of planes (B, C, H, W)."""
    return _maxima(_maxima(planes, side, -1), side, -2)


# the largest of 25 neighbours is that of the first 16 or of the last 16
def _maxima(planes: Tensor, side: int, dim: int) -> Tensor:
    """The largest of `side` neighbours, an odd number, along one axis."""
    half, size = side // 2, 1
    largest = F.pad(planes, (half, half) if dim == -1 else (0, 0, half, half), value=-math.inf)

    def of_two(apart: int) -> Tensor:
        left = largest.shape[dim] - apart
        return torch.maximum(largest.narrow(dim, 0, left), largest.narrow(dim, apart, left))

    while 2 * size <= side:
        largest, size = of_two(size), 2 * size
    return of_two(side - size) if side > size else largest


def detail(image: Tensor) -> Tensor:
    """Detail (B, C, H, W) of images, finer than COARSE pixels."""
    return image - box(image, COARSE)


def deviation(details: Tensor) -> Tensor:
    """Local deviation (B, 1, H, W) of details (B, C, H, W)."""
    return box(details.square().mean(1, keepdim=True), WINDOW).clamp(min=0).sqrt()


def strips(height: int, halo: int) -> Iterator[tuple[slice, slice, slice]]:
    """Yields rows that together are all of an image.

    Each time these are a strip, the strip with `halo` rows on both sides where there are any, and
    the strip within that.
    """
    for top in range(0, height, STRIP):
        bottom, first = min(top + STRIP, height), max(0, top - halo)
        yield (
            slice(top, bottom),
            slice(first, min(bottom + halo, height)),
            slice(top - first, bottom - first),
        )


def deviations(image: Tensor) -> Tensor:
    """Local deviation (B, 1, H, W) of the detail of images (B, 3, H, W)."""
    spread = image.new_empty(image.shape[0], 1, *image.shape[-2:])
    for rows, around, inner in strips(image.shape[-2], COARSE // 2 + WINDOW // 2):
        spread[:, :, rows] = deviation(detail(image[:, :, around]))[:, :, inner]
    return spread


def quantile(plane: Tensor, share: float) -> Tensor:
    """A quantile of each plane (B, 1, 1, 1), of at most SAMPLES pixels at even distances."""
    flat = plane.flatten(1)
    flat = flat[:, :: -(-flat.shape[1] // SAMPLES)]
    return torch.quantile(flat, share, dim=1)[:, None, None, None]


def without_spots(restored: Tensor, lq: Tensor) -> Tensor:
    """Returns restored images (B, 3, H, W) without detail that their degraded images rule out.

    Args:
        restored: in [0, 1].
        lq: degraded images of the same shape, in [0, 1].

    Returns:
        in [0, 1]; the same tensor if nothing exceeds what is allowed.
    """
    made, given = deviations(restored), deviations(lq)
    ratio = quantile(made / (given + EPSILON), 0.95)
    noise = (OBJECT * quantile(given, 0.5)).square()
    bounded = None
    for rows, around, inner in strips(restored.shape[-2], COARSE // 2):
        usual = ratio * (given[:, :, rows] + EPSILON)
        rest = given[:, :, around].square() - noise
        # an object has a faint rim
        shown = GAIN**2 * largest(rest.clamp(min=0), COARSE)[:, :, inner]
        allowed = ((LOOSE * usual).square() + shown).sqrt().clamp(min=EPSILON)
        excess = (RAMP * (made[:, :, rows] / allowed - 1.0)).clamp(0, 1)
        if not excess.any():
            continue
        kept = (usual.square() + shown).sqrt() / made[:, :, rows].clamp(min=EPSILON)
        details = detail(restored[:, :, around])[:, :, inner]
        taken = excess * (1.0 - kept).clamp(min=0) * details
        bounded = restored.clone() if bounded is None else bounded
        bounded[:, :, rows] = (restored[:, :, rows] - taken).clamp(0, 1)
    return restored if bounded is None else bounded
