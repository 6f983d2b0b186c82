"""Objective, optimizer and learning rates of DGUNet, for its three published tasks."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Recipe:
    """The settings that each of the three tasks has of its own.

    epochs, batch, patch: sizes of the training.
    lr: learning rate after the warm-up.
    weight_decay: that of Adam.
    period: that of the cosine, in epochs after the warm-up.
    edge: weight of the edge term.
    clamp: whether pictures are clamped to [0, 1] before the loss.
    """

    epochs: int
    batch: int
    patch: int
    lr: float
    weight_decay: float
    period: int
    edge: float
    clamp: bool


RECIPES = {
    "deraining": Recipe(250, 16, 256, 2e-4, 0.0, 247, 0.05, False),
    "deblurring": Recipe(3000, 16, 256, 1e-4, 0.0, 2997, 0.05, False),
    "denoising": Recipe(80, 16, 128, 1e-4, 1e-8, 117, 0.0, True),
}
WARMUP, FLOOR = 3, 1e-6


def charbonnier_per_image(a: Tensor, b: Tensor) -> Tensor:
    """Returns a smooth mean absolute difference of each image, (B,).

    It is mean sqrt((a - b)^2 + 1e-6).
    """
    return ((a - b).square() + 1e-6).sqrt().mean((1, 2, 3))


def charbonnier(a: Tensor, b: Tensor) -> Tensor:
    """Returns the smooth mean absolute difference of all images together."""
    return charbonnier_per_image(a, b).mean()


def laplacian(x: Tensor) -> Tensor:
    """Returns what a pyramid of one level loses.

        L(x) = x - g(up(g(x)))

    g filters with k k^T, k = (0.05, 0.25, 0.4, 0.25, 0.05), and borders are replicated. `up` keeps
    the even rows and columns, times 4, and has zeros elsewhere. x is (B, C, H, W).
    """
    # float32 constants, as the published filter: float64 ones change the loss by 1e-10
    k = torch.tensor([0.05, 0.25, 0.4, 0.25, 0.05], device=x.device)
    kernel = torch.outer(k, k).to(x.dtype).expand(x.shape[1], 1, 5, 5)

    def g(u: Tensor) -> Tensor:
        return F.conv2d(F.pad(u, (2, 2, 2, 2), mode="replicate"), kernel, groups=u.shape[1])

    low = g(x)
    kept = torch.zeros_like(low)
    kept[..., ::2, ::2] = 4 * low[..., ::2, ::2]
    return x - g(kept)


def edge_per_image(a: Tensor, b: Tensor) -> Tensor:
    """Returns the Charbonnier difference of the Laplacians of each image, (B,)."""
    return charbonnier_per_image(laplacian(a), laplacian(b))


def edge(a: Tensor, b: Tensor) -> Tensor:
    """Returns the Charbonnier difference of the Laplacians of all images together."""
    return edge_per_image(a, b).mean()


def terms(pictures: Sequence[Tensor], clean: Tensor, recipe: Recipe) -> dict[str, Tensor]:
    """Returns the terms of the loss for each image, (B,); their sum is the loss.

        charbonnier = sum_s charbonnier(p_s, clean);  edge = edge_weight sum_s edge(p_s, clean)

    pictures: of every stage, each (B, 3, H, W). clean: the same shape, in [0, 1]. A recipe without
    an edge term has none here.
    """
    shown = [picture.clamp(0, 1) if recipe.clamp else picture for picture in pictures]
    terms = {"charbonnier": torch.stack([charbonnier_per_image(p, clean) for p in shown]).sum(0)}
    if recipe.edge:
        edges = torch.stack([edge_per_image(picture, clean) for picture in shown])
        terms["edge"] = recipe.edge * edges.sum(0)
    return terms


def loss(pictures: Sequence[Tensor], clean: Tensor, recipe: Recipe) -> Tensor:
    """Returns the loss of all stages with equal weights.

        L = sum_s [ charbonnier(p_s, clean) + edge_weight edge(p_s, clean) ]

    pictures: of every stage, each (B, 3, H, W). clean: the same shape, in [0, 1].
    """
    return torch.stack(list(terms(pictures, clean, recipe).values())).sum(0).mean()


def optimizer(parameters: Iterable[nn.Parameter], recipe: Recipe) -> torch.optim.Adam:
    """Returns Adam with betas 0.9 and 0.999 and eps 1e-8."""
    return torch.optim.Adam(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)


def learning_rate(epoch: int, recipe: Recipe) -> float:
    """Returns the learning rate during an epoch, counted from 0.

        lr (e + 1) / 3                                                  for e < 3
        floor + (lr - floor) c(e - 3) / c(1),  c(n) = 1 + cos(pi n / period)   from there

    The division by c(1) comes of how the official scheduler starts; it changes 4e-5 at most.
    """
    if epoch < WARMUP:
        return recipe.lr * (epoch + 1) / WARMUP

    def c(n: int) -> float:
        return 1 + math.cos(math.pi * n / recipe.period)

    return FLOOR + (recipe.lr - FLOOR) * c(epoch - WARMUP) / c(1)
