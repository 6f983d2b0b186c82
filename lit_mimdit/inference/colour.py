"""Colours of a restored image brought back to those of the degraded one. Pure functions of images
(B, 3, H, W) in [0, 1].

Meant for degradations that leave colours alone (blur, noise, JPEG): they would bring back a dark or
hazy photograph's darkness or haze.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_mimdit.inference.sampler import Colour

LEVELS = 5  # of the wavelet decomposition
EPSILON = 1e-5  # added to a variance, for flat images


# y = std(s) (x - mean(x)) / std(x) + mean(s), std = sqrt(unbiased variance + 1e-5)
# (AdaIN: Huang and Belongie, arXiv 1703.06868, eq. 8; 1e-5: test scripts of AutoDIR and DiT4SR)
def adain(restored: Tensor, degraded: Tensor) -> Tensor:
    """Returns `restored` with the mean and deviation of each channel of `degraded`; not clamped."""
    moments = []
    for image in (restored, degraded):
        several = image.shape[-2:].numel() > 1  # one pixel has no unbiased variance
        variance = image.var((2, 3), keepdim=True, correction=int(several))
        moments.append(((variance + EPSILON).sqrt(), image.mean((2, 3), keepdim=True)))
    (own_std, own_mean), (std, mean) = moments
    return (restored - own_mean) / own_std * std + mean


# low_0 = x;  low_{i+1} = low_i * b_i, b_i = [1 2 1]^T [1 2 1] / 16 with 2^i - 1 zeros between its
# taps       (a trous, B1 spline)
def low_frequencies(image: Tensor, levels: int = LEVELS) -> Tensor:
    """Returns what is left of images after `levels` blurs, each twice as wide as the one before;
    edges are repeated.
    """
    taps = torch.tensor([0.25, 0.5, 0.25], dtype=image.dtype, device=image.device)
    channels = image.shape[1]
    for level in range(levels):
        step = 2**level
        for shape, pad in (((1, 1, 3, 1), (0, 0, step, step)), ((1, 1, 1, 3), (step, step, 0, 0))):
            kernel = taps.view(shape).expand(channels, -1, -1, -1)
            image = F.conv2d(
                F.pad(image, pad, mode="replicate"), kernel, dilation=step, groups=channels
            )
    return image


# y = x - low(x) + low(s)  (wavelet colour correction of StableSR, arXiv 2305.07015)
def wavelet(restored: Tensor, degraded: Tensor) -> Tensor:
    """High frequencies of `restored`, low frequencies of `degraded`."""
    return restored - low_frequencies(restored) + low_frequencies(degraded)


def correct(kind: Colour, restored: Tensor, degraded: Tensor) -> Tensor:
    """Returns restored images by one of these, in [0, 1]."""
    if kind == "none":
        return restored
    return {"adain": adain, "wavelet": wavelet}[kind](restored, degraded).clamp(0.0, 1.0)
