"""AirNet's objective, optimizer and learning rate, as its code trains them."""

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPOCHS = 1000
ENCODER_EPOCHS = 100  # of them, at the start; only the encoder learns
CONTRAST = 0.1
PATCH = 128
PAIR = 1  # beside a sample's seed: its crops are not drawn with the numbers of its first crop


def cut_pair(images: Tensor, patch: int, seeds: Tensor) -> tuple[Tensor, Tensor]:
    """Returns two square crops of each image, at places that its seed draws.

    images: (B, C, H, W), larger than `patch` pixels. seeds: (B,), not negative.
    Raises ValueError if the crops could lie at one place only, as they would then be equal.
    """
    height, width = images.shape[-2:]
    if min(height, width) < patch or max(height, width) == patch:
        raise ValueError(
            f"AirNet compares two crops of {patch} px of an image, and gets {height} x {width} px;"
            f" set data.crop to {2 * patch} or more, or model.init_args.patch to less"
        )
    pairs: tuple[list[Tensor], list[Tensor]] = ([], [])
    for image, seed in zip(images, seeds.tolist(), strict=True):
        draw = np.random.default_rng((seed, PAIR))
        for crops in pairs:
            top, left = draw.integers(height - patch + 1), draw.integers(width - patch + 1)
            crops.append(image[:, top : top + patch, left : left + patch])
    return torch.stack(pairs[0]), torch.stack(pairs[1])


def contrastive(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the cross entropy of the logits, (B, 1 + K), whose labels are 0."""
    return F.cross_entropy(logits, labels)


def contrastive_per_image(logits: Tensor) -> Tensor:
    """Returns the cross entropy of each row of the logits, (B,), whose right class is 0."""
    labels = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    return F.cross_entropy(logits, labels, reduction="none")


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
