"""The mean-reverting SDE of DA-CLIP and its two losses, as pure functions.

Source: IR-SDE, Luo et al., arXiv 2301.11699; DA-CLIP, arXiv 2310.01018.

    dx = theta_t (mu - x) dt + sigma_t dw

mu is the degraded image. Tables hold steps 0..n; step 0 is the clean image.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Shape = Literal["cosine", "linear", "constant"]


# cosine: theta_j = 1 - a(j)/a(0), a(j) = cos^2((j/(n+2) + 0.008)/1.008 pi/2), j = 1..n+1
# linear: theta from 0.1/(n+1) to 20/(n+1);  constant: 1
def thetas(steps: int, shape: Shape, dtype: torch.dtype = torch.float64) -> Tensor:
    """Returns the speed of mean reversion at steps 0..`steps`, (steps + 1,)."""
    if shape == "constant":
        return torch.ones(steps + 1, dtype=dtype)
    if shape == "linear":
        return torch.linspace(0.1 / (steps + 1), 20 / (steps + 1), steps + 1, dtype=dtype)
    if shape == "cosine":
        j = torch.arange(steps + 3, dtype=dtype)
        a = torch.cos((j / (steps + 2) + 0.008) / 1.008 * math.pi / 2) ** 2
        return 1 - a[1:-1] / a[0]
    raise ValueError(f"schedule is {shape!r}: choose among cosine, linear and constant")


@dataclass(frozen=True)
class SDE:
    """The tables of the SDE, (n + 1,) each.

    Attributes:
        theta: speed of mean reversion.
        cumulated: Theta_t, its sum without step 0's own.
        dt: length of a step.
        sigma: diffusion.
        bar: standard deviation of x_t around its mean.
        std: standard deviation of the posterior step.
        scale: lambda, the noise level of the stationary distribution.
        time: what the network is told at each step, t T / n.
    """

    theta: Tensor
    cumulated: Tensor
    dt: float
    sigma: Tensor
    bar: Tensor
    std: Tensor
    scale: float
    time: Tensor

    @property
    def steps(self) -> int:
        return len(self.theta) - 1


# Theta_t = sum_{i<=t} theta_i - theta_0,  dt = -ln(eps)/Theta_n,  lambda = max_sigma/255
# sigma_t = lambda sqrt(2 theta_t),  bar_t = lambda sqrt(1 - exp(-2 Theta_t dt))
# std_t = lambda sqrt((1 - A^2)(1 - C^2)/(1 - B^2)),
#   A = exp(-theta_t dt), B = exp(-Theta_t dt), C = exp(-Theta_{t-1} dt)
def build_sde(
    max_sigma: float = 50.0,
    T: int = 100,
    schedule: Shape = "cosine",
    eps: float = 0.005,
    sample_T: int | None = None,
    dtype: torch.dtype = torch.float64,
) -> SDE:
    """Builds the tables; the arguments have the official names.

    Args:
        max_sigma: noise level in grey levels, or, below 1, as a fraction.
        T: steps in training.
        eps: what is left of the clean image at the last step.
        sample_T: steps in sampling, T if None. The network still hears times up to T.
        dtype: of the tables. The official ones are float32, which costs the last steps digits.
    """
    steps = sample_T or T
    if min(T, steps) < 1 or not 0 < eps < 1 or max_sigma <= 0:
        raise ValueError(
            f"T={T}, sample_T={sample_T}, eps={eps}, max_sigma={max_sigma} make no SDE; steps must "
            "be positive, eps between 0 and 1, max_sigma above 0"
        )
    scale = max_sigma / 255 if max_sigma >= 1 else max_sigma
    theta = thetas(steps, schedule, dtype)
    cumulated = theta.cumsum(0) - theta[0]
    dt = -math.log(eps) / cumulated[-1].item()
    decay, total = torch.exp(-theta * dt), torch.exp(-cumulated * dt)
    before = torch.cat([total[:1], total[:-1]])
    variance = (1 - decay**2) * (1 - before**2) / (1 - total**2)
    variance[0] = 0.0  # 0/0: no step begins at the clean image
    return SDE(
        theta,
        cumulated,
        dt,
        scale * torch.sqrt(2 * theta),
        scale * torch.sqrt(1 - total**2),
        scale * variance.clamp(min=1e-20 * dt).sqrt(),
        scale,
        torch.arange(steps + 1, dtype=dtype) * (T / steps),
    )


def at(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """Returns the entries `t` (B,) of a table as (B, 1, 1, 1) in the kind of `like`."""
    return table.to(like)[t][:, None, None, None]


# x_t = mu + (x_0 - mu) exp(-Theta_t dt) + bar_t z
def marginal(sde: SDE, clean: Tensor, mu: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """Returns x_t (B, 3, H, W) of clean images at steps `t` (B,)."""
    left = torch.exp(-at(sde.cumulated, t, clean) * sde.dt)
    return mu + (clean - mu) * left + at(sde.bar, t, clean) * noise


# x_{t-1} = x_t - (theta_t (mu - x_t) - sigma_t^2 s) dt,  s = -eps_hat/bar_t
def drift_step(sde: SDE, x: Tensor, mu: Tensor, t: Tensor, predicted: Tensor) -> Tensor:
    """Returns the mean of a reverse step of the SDE for the predicted noise."""
    score = -predicted / at(sde.bar, t, x)
    return x - (at(sde.theta, t, x) * (mu - x) - at(sde.sigma, t, x) ** 2 * score) * sde.dt


# mean = mu + A (1 - C^2)/(1 - B^2) (x - mu) + C (1 - A^2)/(1 - B^2) (x_0 - mu)
def posterior_mean(sde: SDE, x: Tensor, mu: Tensor, t: Tensor, clean: Tensor) -> Tensor:
    """Returns the mean of x_{t-1} given x_t and the clean image, t >= 1."""
    a = torch.exp(-at(sde.theta, t, x) * sde.dt)
    b = torch.exp(-at(sde.cumulated, t, x) * sde.dt)
    c = torch.exp(-at(sde.cumulated, t - 1, x) * sde.dt)
    own = a * (1 - c**2) / (1 - b**2)
    return mu + own * (x - mu) + c * (1 - a**2) / (1 - b**2) * (clean - mu)


# e_b = mean |x_{t-1}^SDE - x_{t-1}^opt|
def restoration_error(
    sde: SDE, x_t: Tensor, mu: Tensor, t: Tensor, predicted: Tensor, clean: Tensor
) -> Tensor:
    """Returns how far the predicted step of each image is from the best one, (B,)."""
    step = drift_step(sde, x_t, mu, t, predicted)
    return (step - posterior_mean(sde, x_t, mu, t, clean)).abs().mean((1, 2, 3))


# loss = mean_b e_b
def restoration_loss(
    sde: SDE, x_t: Tensor, mu: Tensor, t: Tensor, predicted: Tensor, clean: Tensor
) -> Tensor:
    """Returns the mean error of the predicted steps, a scalar (stage 2)."""
    return restoration_error(sde, x_t, mu, t, predicted, clean).mean()


# t = 1 + floor(T Phi(n)), n ~ N(0, 1)
def draw_step(normal: Tensor, steps: int) -> Tensor:
    """Returns steps (B,) from 1 to `steps`, each as likely, for standard normal numbers (B,)."""
    return 1 + (torch.special.ndtr(normal) * steps).long().clamp(max=steps - 1)


# rate = low + (1 - low) (1 + cos(pi u)) / 2, low = 1e-6 / 2e-4, u = share of 700,000 iterations
def learning_rate(iteration: int, iterations: int = 700_000) -> float:
    """Returns the factor of the highest rate at an iteration of stage 2, counted from 0."""
    low, share = 1e-6 / 2e-4, min(1.0, iteration / iterations)
    return low + (1 - low) * (1 + math.cos(math.pi * share)) / 2


# loss = (CE(s a b^T, diagonal) + CE(s b a^T, diagonal)) / 2, a and b of length 1
def clip_loss(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """Returns CLIP's contrastive loss of embeddings (B, E), a scalar.

    Args:
        scale: exp(logit scale); training keeps it in [1, 100].
    """
    return clip_errors(images, texts, scale).mean()


def clip_errors(
    images: Tensor,
    texts: Tensor,
    scale: Tensor,
    all_images: Tensor | None = None,
    all_texts: Tensor | None = None,
    first: int = 0,
) -> Tensor:
    """Returns the part of each pair in CLIP's contrastive loss, (B,).

    Args:
        images, texts: embeddings of this process's pairs, (B, E).
        scale: exp(logit scale).
        all_images, all_texts: of all processes, (N, E), among which a partner is looked for; those
            of this process unless given.
        first: place of this process's pairs in them.
    """
    images, texts = F.normalize(images, dim=1), F.normalize(texts, dim=1)
    every_image = images if all_images is None else F.normalize(all_images, dim=1)
    every_text = texts if all_texts is None else F.normalize(all_texts, dim=1)
    target = first + torch.arange(len(images), device=images.device)
    to_text = F.cross_entropy(scale * images @ every_text.T, target, reduction="none")
    to_image = F.cross_entropy(scale * texts @ every_image.T, target, reduction="none")
    return (to_text + to_image) / 2


# loss = clip(e_img, caption) + clip(e_deg, word)
def controller_loss(
    content: Tensor, degradation: Tensor, caption: Tensor, word: Tensor, scale: Tensor
) -> Tensor:
    """Returns the loss of the controller (stage 1).

    Equal words in a batch count as negatives, as published: N equal words cannot come below ln N.
    """
    return clip_loss(content, caption, scale) + clip_loss(degradation, word, scale)
