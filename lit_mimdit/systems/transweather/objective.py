"""TransWeather's objective, optimizer and learning rate, as its code trains them."""

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PERCEPTUAL = 0.04
EPOCHS = 200
BATCH = 18
PATCH = 256


def perceptual_per_image(
    restored: Tensor, clean: Tensor, features: Callable[[Tensor], Sequence[Tensor]]
) -> Tensor:
    """Returns the mean over feature maps of their mean squared difference, for each image, (B,).

        P = 1/K sum_k mean (phi_k(restored) - phi_k(clean))^2

    restored, clean: (B, 3, H, W). They go in as they are: the published code applies no ImageNet
    normalisation. features: phi, for example lit_mimdit.systems.vgg.VGGFeatures.
    """
    with torch.no_grad():
        targets = features(clean)
    pairs = zip(features(restored), targets, strict=True)
    return torch.stack([(f - target).square().flatten(1).mean(1) for f, target in pairs]).mean(0)


def perceptual(
    restored: Tensor, clean: Tensor, features: Callable[[Tensor], Sequence[Tensor]]
) -> Tensor:
    """Returns the perceptual term of all images together."""
    return perceptual_per_image(restored, clean, features).mean()


def smooth_l1_per_image(restored: Tensor, clean: Tensor) -> Tensor:
    """Returns mean h(restored - clean) of each image, (B,).

    h(d) = d^2 / 2 for |d| < 1, else |d| - 1/2.
    """
    return F.smooth_l1_loss(restored, clean, reduction="none").flatten(1).mean(1)


def loss(restored: Tensor, clean: Tensor, features: Callable[[Tensor], Sequence[Tensor]]) -> Tensor:
    """Returns smooth L1 plus 0.04 times the perceptual term.

        L = mean h(restored - clean) + 0.04 P,  h(d) = d^2 / 2 for |d| < 1, else |d| - 1/2

    restored: (B, 3, H, W) in (-1, 1). clean: the same shape, in [0, 1].
    """
    smooth = smooth_l1_per_image(restored, clean).mean()
    return smooth + PERCEPTUAL * perceptual(restored, clean, features)


def optimizer(parameters: Iterable[nn.Parameter], lr: float = 2e-4) -> torch.optim.Adam:
    """Returns Adam with its default betas and no weight decay."""
    return torch.optim.Adam(parameters, lr=lr)


def learning_rate(epoch: int, lr: float = 2e-4, halve: int = 100) -> float:
    """Returns the learning rate during an epoch, counted from 0: lr 2^-floor(epoch / halve)."""
    return lr * 0.5 ** (epoch // halve)
