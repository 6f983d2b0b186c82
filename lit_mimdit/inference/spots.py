"""Bounds detail that the degraded image rules out: spots that a sampler draws into a smooth sky.

One token of the noise can make prior and branch see an object where there is none. The spot has far
more contrast than anything else that the same restoration makes of equally smooth surroundings.
Let s be the mean over channels of the local deviation of detail, d = x - box_25(x):

    s = sqrt(box_13(mean_c d^2)),   e = s_degraded + EPSILON,   usual = Q95(s_restored / e) e
    object^2 = max_25(max(0, s_degraded^2 - (OBJECT median(s_degraded))^2))
    allowed^2 = (LOOSE usual)^2 + (GAIN object)^2

Where s_restored is more than allowed, detail is scaled down to what is usual, the more the larger
the excess. What rises above the noise of the degraded image is an object, and may gain contrast.
All other pixels keep their bits.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

COARSE, WINDOW = 25, 13  # pixels
EPSILON = 1.5 / 255  # less is not seen
OBJECT, GAIN = 1.5, 10.0
LOOSE = 1.6
RAMP = 4.0  # how soon the whole excess is taken: 1 / RAMP above what is allowed
SAMPLES = 1 << 20  # values that quantiles are taken of


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
    half = side // 2
    rows = F.avg_pool2d(planes, (1, side), 1, (0, half), count_include_pad=False)
    return F.avg_pool2d(rows, (side, 1), 1, (half, 0), count_include_pad=False)


def largest(planes: Tensor, side: int) -> Tensor:
    """The largest of the side x side pixels around each pixel of planes (B, C, H, W)."""
    rows = F.max_pool2d(planes, (1, side), stride=1, padding=(0, side // 2))
    return F.max_pool2d(rows, (side, 1), stride=1, padding=(side // 2, 0))


def detail(image: Tensor) -> Tensor:
    """Detail (B, C, H, W) of images, finer than COARSE pixels."""
    return image - box(image, COARSE)


def deviation(details: Tensor) -> Tensor:
    """Local deviation (B, 1, H, W) of details (B, C, H, W)."""
    return box(details.square().mean(1, keepdim=True), WINDOW).clamp(min=0).sqrt()


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
    details = detail(restored)
    made, given = deviation(details), deviation(detail(lq))
    usual = quantile(made / (given + EPSILON), 0.95) * (given + EPSILON)
    rest = given.square() - (OBJECT * quantile(given, 0.5)).square()
    shown = GAIN**2 * largest(rest.clamp(min=0), COARSE)  # an object has a faint rim
    allowed = ((LOOSE * usual).square() + shown).sqrt().clamp(min=EPSILON)
    excess = (RAMP * (made / allowed - 1.0)).clamp(0, 1)
    if not excess.any():
        return restored
    kept = (usual.square() + shown).sqrt() / made.clamp(min=EPSILON)
    return (restored - excess * (1.0 - kept).clamp(min=0) * details).clamp(0, 1)
