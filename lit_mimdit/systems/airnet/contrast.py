"""AirNet's contrastive encoder, trained with a momentum copy and a queue of earlier embeddings.

Source: "All-In-One Image Restoration for Unknown Corruption" (CVPR 2022); the queue is that of MoCo
(CVPR 2020). All leaky ReLUs have slope 0.1.
"""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.1
MOMENTUM = 0.999
TEMPERATURE = 0.07


class ResidualBlock(nn.Module):
    """LReLU(BN(conv3x3(LReLU(BN(conv3x3(x))))) + BN(conv1x1(x))), without biases.

    stride: of the first convolution and of the shortcut.
    """

    def __init__(self, channels: int, out: int, stride: int):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(channels, out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(out),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(out, out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(out),
        )
        self.shortcut = nn.Sequential(
            nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.backbone(x) + self.shortcut(x), SLOPE)


class Encoder(nn.Module):
    """Embeds a degraded image, and gives the features by which the restorer is steered.

    widths: channels of the features at full, 1/2 and 1/4 resolution. dim: of the embedding.
    """

    def __init__(self, widths: Sequence[int], dim: int):
        super().__init__()
        self.pre = ResidualBlock(3, widths[0], 1)
        self.stages = nn.Sequential(
            *(ResidualBlock(before, after, 2) for before, after in zip(widths, widths[1:]))
        )
        self.mlp = nn.Sequential(
            nn.Linear(widths[-1], dim), nn.LeakyReLU(SLOPE), nn.Linear(dim, dim)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the embedding (B, dim) with norm 1, and the features (B, C, H, W)."""
        inter = self.pre(x)
        pooled = self.stages(inter).mean(dim=(-2, -1))
        return F.normalize(self.mlp(pooled), dim=1), inter


class Contrast(nn.Module):
    """A query encoder, its momentum copy for keys, and a queue of earlier keys.

        key <- 0.999 key + 0.001 query                  parameters only, before each use
        logits = [q . k, q Q] / 0.07                    Q is the queue before it takes k

    widths, dim: of the encoders. length: K, columns of the queue.
    """

    queue: Tensor
    queue_ptr: Tensor

    def __init__(self, widths: Sequence[int], dim: int, length: int):
        super().__init__()
        self.encoder_q = Encoder(widths, dim)
        self.encoder_k = copy.deepcopy(self.encoder_q).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(dim, length), dim=0))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    def forward(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns logits (B, 1 + K), whose right class is 0; labels (B,); the query's features.

        query, key: two crops of each of B images, (B, 3, H, W). The key encoder and the queue
        advance by one step.
        Raises ValueError unless B divides K.
        """
        self.demand_even(len(query))
        self.follow()
        logits, inter, keys = self.compare(query, key)
        self.enqueue(keys)
        return logits, torch.zeros(len(query), dtype=torch.long, device=query.device), inter

    def compare(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns logits (B, 1 + K), whose right class is 0; the query's features; keys (B, dim).

        Neither the key encoder's parameters nor the queue change.
        """
        q, inter = self.encoder_q(query)
        with torch.no_grad():
            k, _ = self.encoder_k(key)
        positive = (q * k).sum(dim=1, keepdim=True)
        # a copy, as the queue changes before the backward pass
        logits = torch.cat((positive, q @ self.queue.clone()), dim=1) / TEMPERATURE
        return logits, inter, k

    def demand_even(self, batch: int) -> None:
        """Raises ValueError unless batches of this size fill the queue evenly."""
        length = self.queue.shape[1]
        if length % batch:
            raise ValueError(
                f"AirNet's queue has {length} entries, which batches of {batch} do not fill evenly;"
                " take a batch size that divides it and drop the last, smaller batch"
            )

    @torch.no_grad()
    def follow(self) -> None:
        """Moves the key encoder towards the query encoder, by one step."""
        for slow, fast in zip(self.encoder_k.parameters(), self.encoder_q.parameters()):
            slow.mul_(MOMENTUM).add_(fast, alpha=1 - MOMENTUM)

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Puts keys (B, dim) in the place of the queue's oldest."""
        # a pointer that batches of another size left goes round, too
        places = (int(self.queue_ptr) + torch.arange(len(keys))) % self.queue.shape[1]
        self.queue[:, places.to(keys.device)] = keys.T
        self.queue_ptr[0] = (int(self.queue_ptr) + len(keys)) % self.queue.shape[1]
