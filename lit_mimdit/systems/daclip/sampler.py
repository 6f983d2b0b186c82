"""Restores with DA-CLIP: the picture for CLIP, the first state and the reverse steps.

Source: arXiv 2310.01018; the posterior step: arXiv 2404.09732.
"""

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision import transforms

from lit_mimdit.systems.daclip.objective import SDE, at, drift_step, posterior_mean

Mode = Literal["posterior", "sde", "ode"]
Noise = Callable[[Tensor, Tensor], Tensor]  # (x_t, network time (B,)) -> predicted noise
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's


def clip_pixels(image: np.ndarray, size: int = 224) -> Tensor:
    """Returns what CLIP sees of a uint8 RGB image (H, W, 3): its centre square, (3, size, size).

    The shorter side becomes `size` by Pillow's bicubic filter. CLIP sees nothing of the rest.
    """
    look = transforms.Compose(
        [
            transforms.Resize(size, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    return look(Image.fromarray(image))


def clip_view(images: Tensor, size: int = 224) -> Tensor:
    """Returns what CLIP sees of images (B, 3, H, W) in [0, 1], (B, 3, size, size).

    Training takes it. `clip_pixels` rounds to grey levels, and clamps after each axis, which
    differs at sharp edges alone.
    """
    height, width = images.shape[-2:]
    short = min(height, width)
    shape = [size * height // short, size * width // short]
    seen = F.interpolate(images.float(), shape, mode="bicubic", antialias=True).clamp(0, 1)
    top, left = (round((side - size) / 2) for side in shape)
    return normalised(seen[..., top : top + size, left : left + size])


def normalised(seen: Tensor) -> Tensor:
    """Returns images (B, 3, S, S) in [0, 1] with CLIP's mean and deviation taken out."""
    mean, std = (seen.new_tensor(value)[:, None, None] for value in (MEAN, STD))
    return (seen - mean) / std


# x_T = mu + lambda z
def first_state(sde: SDE, mu: Tensor, noise: Tensor) -> Tensor:
    """Returns the state that sampling starts from, (B, 3, H, W)."""
    return mu + sde.scale * noise


# x0 = mu + (x - mu - bar_t eps_hat) exp(Theta_t dt)
def clean_estimate(sde: SDE, x: Tensor, mu: Tensor, t: Tensor, predicted: Tensor) -> Tensor:
    """Returns the clean image that the predicted noise implies; not clamped."""
    grown = torch.exp(at(sde.cumulated, t, x) * sde.dt)
    return mu + (x - mu - at(sde.bar, t, x) * predicted) * grown


# posterior: mean(x, x0) + std_t z
# sde:       x - (theta (mu - x) - sigma^2 s) dt - sigma sqrt(dt) z
# ode:       x - (theta (mu - x) - sigma^2 s / 2) dt
def reverse_step(
    sde: SDE, x: Tensor, mu: Tensor, t: Tensor, predicted: Tensor, noise: Tensor | None, mode: Mode
) -> Tensor:
    """Returns x_{t-1} for the predicted noise at steps `t` (B,); `ode` takes no `noise`."""
    if mode not in ("posterior", "sde", "ode"):
        raise ValueError(f"mode is {mode!r}: choose among posterior, sde and ode")
    if mode == "ode":
        return drift_step(sde, x, mu, t, predicted / 2)
    assert noise is not None, "only the ode has no noise"
    if mode == "posterior":
        mean = posterior_mean(sde, x, mu, t, clean_estimate(sde, x, mu, t, predicted))
        return mean + at(sde.std, t, x) * noise
    deviation = at(sde.sigma, t, x) * sde.dt**0.5
    return drift_step(sde, x, mu, t, predicted) - deviation * noise


def trajectory(
    sde: SDE,
    network: Noise,
    mu: Tensor,
    x_T: Tensor,
    mode: Mode = "posterior",
    noises: Iterator[Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Yields the state after each reverse step, from step n down to the restored image.

    Args:
        mu: degraded image (B, 3, H, W), RGB in [0, 1].
        noises: one tensor a step; drawn with `generator` if None.

    The restored image is the last state, clamped to [0, 1]. Any size works, and no tiles are used.
    """
    x = x_T
    for step in range(sde.steps, 0, -1):
        t = torch.full((len(x),), step, device=x.device)
        predicted = network(x, sde.time.to(x)[t])
        noise = None
        if mode != "ode":
            noise = (
                torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
                if noises is None
                else next(noises)
            )
        x = reverse_step(sde, x, mu, t, predicted, noise, mode)
        yield x
