"""The error that is smooth near zero, with nothing but PyTorch: a machine that is lent for minutes
has little else.
"""

from torch import Tensor


# e = mean sqrt(d^2 + s^2) - s, and mean |d| for s = 0
def charbonnier_per_image(apart: Tensor, smooth: float) -> Tensor:
    """Returns the error of each image, (B,), by its differences (B, 3, H, W).

    Source: Charbonnier et al., ICIP 1994.

    Args:
        apart: differences d of image and reference.
        smooth: s, a difference below which one counts by its square; 0 is the L1.
    """
    if smooth == 0:  # the root has no slope at zero
        return apart.abs().mean((1, 2, 3))
    return ((apart.square() + smooth**2).sqrt() - smooth).mean((1, 2, 3))
