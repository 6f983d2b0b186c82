"""The training of DiT4SR: rectified flow at SD3's shifted times, judged on the clean latent.

Source: arXiv 2503.23580, and the training script of SD3 that it is built on (arXiv 2403.03206).
Latents are (B, C, H, W); x is clean, eps is noise.
"""

import torch
from torch import Tensor

SHIFT = 3.0  # of the noise levels, towards noise (SD3 at 1024 pixels)
STEPS = 1000  # of the scheduler


# sigma = 3 s / (1 + 2 s)    (arXiv 2403.03206, eq. 23 with alpha = 3)
def shifted(s: Tensor) -> Tensor:
    """Returns the noise level of an unshifted one, both in [0, 1]."""
    return SHIFT * s / (1 + (SHIFT - 1) * s)


# s = 1 - index/1000, sigma = shifted(s), time = 1000 sigma
def training_sigmas(index: Tensor) -> Tensor:
    """Returns the noise level of steps 0 (pure noise) to 999 of the training schedule."""
    return shifted(1 - index.to(torch.float64) / STEPS)


# index = floor(1000 sigmoid(n)), n ~ N(0, 1)
def draw_index(normal: Tensor) -> Tensor:
    """Returns the training step (B,) that belongs to standard normal numbers (B,)."""
    return (torch.sigmoid(normal) * STEPS).long().clamp(max=STEPS - 1)


def _level(sigma: Tensor, like: Tensor) -> Tensor:
    return sigma.to(like)[:, None, None, None]


# z = (1 - sigma) x + sigma eps
def noisy(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Returns latents at the noise levels `sigma` (B,)."""
    level = _level(sigma, clean)
    return (1 - level) * clean + level * noise


# x_hat = z - sigma v
def implied_clean(z: Tensor, velocity: Tensor, sigma: Tensor) -> Tensor:
    """Returns the clean latent that a velocity points back to."""
    return z - _level(sigma, z) * velocity


# loss = mean (x_hat - x)^2 = mean sigma^2 (v - (eps - x))^2
def loss(z: Tensor, velocity: Tensor, sigma: Tensor, clean: Tensor) -> Tensor:
    """Returns the mean squared error of the implied clean latent, a scalar; every level counts
    with weight 1.
    """
    return (implied_clean(z, velocity, sigma) - clean).square().mean()
