"""Colour correction as the published test scripts of AutoDIR and DiT4SR do it.

Pure functions of images (B, 3, H, W) in any range.
"""

from torch import Tensor

from lit_mimdit.inference.colour import wavelet

__all__ = ["adain", "wavelet"]

EPSILON = 1e-5  # of the variance


# y = std(s) (x - mean(x)) / std(x) + mean(s), std = sqrt(unbiased variance + 1e-5)
# (AdaIN: Huang and Belongie, arXiv 1703.06868, eq. 8)
def adain(restored: Tensor, degraded: Tensor) -> Tensor:
    """Returns `restored` with the mean and deviation of each channel of `degraded`; not clamped."""
    moments = [
        ((x.var((2, 3), keepdim=True) + EPSILON).sqrt(), x.mean((2, 3), keepdim=True))
        for x in (restored, degraded)
    ]
    (own_std, own_mean), (std, mean) = moments
    return (restored - own_mean) / own_std * std + mean
