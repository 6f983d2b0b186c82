"""AirNet's objective, optimizer and learning rate, as its code trains them."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPOCHS = 1000
ENCODER_EPOCHS = 100  # of them, at the start; only the encoder learns
CONTRAST = 0.1
PATCH = 128


def contrastive(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the cross entropy of the logits, (B, 1 + K), whose labels are 0."""
    return F.cross_entropy(logits, labels)


def loss(restored: Tensor, clean: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the loss of the second stage.

        L = mean |restored - clean| + 0.1 cross entropy(logits, labels)

    restored, clean: of the query crop, (B, 3, H, W). The first stage has the cross entropy alone.
    """
    return F.l1_loss(restored, clean) + CONTRAST * contrastive(logits, labels)


def optimizer(parameters: Iterable[nn.Parameter], lr: float = 1e-3) -> torch.optim.Adam:
    """Returns Adam over all parameters, for both stages, with default betas and no decay."""
    return torch.optim.Adam(parameters, lr=lr)


def learning_rate(epoch: int, lr: float = 1e-3, encoder_epochs: int = ENCODER_EPOCHS) -> float:
    """Returns the learning rate during an epoch, counted from 0.

        f(t) = lr 0.1^floor(t / 60)                                 for t < encoder_epochs
        f(t) = lr / 10 * 0.5^floor((t - encoder_epochs) / 125)      from there

    The official code sets it at the end of an epoch from that epoch's number, so epoch e has
    f(max(e - 1, 0)).
    """
    t = max(epoch - 1, 0)
    if t < encoder_epochs:
        return lr * 0.1 ** (t // 60)
    return lr / 10 * 0.5 ** ((t - encoder_epochs) // 125)
