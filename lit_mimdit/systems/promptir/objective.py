"""PromptIR's objective, optimizer and learning rate, as its code trains them."""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPOCHS = 120


def loss(restored: Tensor, clean: Tensor) -> Tensor:
    """Returns the mean absolute difference.

        L = mean |restored - clean|

    restored, clean: (B, 3, H, W), RGB; clean in [0, 1].
    """
    return F.l1_loss(restored, clean)


def optimizer(parameters: Iterable[nn.Parameter], lr: float = 2e-4) -> torch.optim.AdamW:
    """Returns AdamW with the default weight decay of 0.01, as the code has it."""
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=0.01)


def learning_rate(
    epoch: int, lr: float = 2e-4, warmup: int = 15, period: int = 150, late: bool = True
) -> float:
    """Returns the learning rate during an epoch, counted from 0.

        f(t) = lr t / (warmup - 1)                                            for t < warmup
        f(t) = lr / 2 (1 + cos(pi (t - warmup) / (period - warmup)))          from there

    The official hook steps one epoch late, so epoch e has f(max(e - 1, 0)): the first two epochs
    learn nothing. With `late=False`, epoch e has f(e + 1), and no epoch is lost.
    """
    t = max(epoch - 1, 0) if late else epoch + 1
    if t < warmup:
        return lr * t / (warmup - 1)
    return lr / 2 * (1 + math.cos(math.pi * (t - warmup) / (period - warmup)))
