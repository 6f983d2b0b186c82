"""AirNet: a flat residual network that is steered by features of the degraded image.

Source: "All-In-One Image Restoration for Unknown Corruption" (CVPR 2022).
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from lit_mimdit.models.module_list import module_list
from lit_mimdit.systems.airnet.contrast import SLOPE, Contrast
from lit_mimdit.systems.airnet.deformable import DeformableConv


def conv3(channels: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, padding=1)


class AffineTransform(nn.Module):
    """Scales and shifts features pixel by pixel: u * gamma(I) + beta(I).

    gamma, beta: conv1x1, leaky ReLU, conv1x1, without biases.
    """

    def __init__(self, channels: int):
        super().__init__()

        def branch() -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(channels, channels, 1, bias=False),
                nn.LeakyReLU(SLOPE),
                nn.Conv2d(channels, channels, 1, bias=False),
            )

        self.gamma, self.beta = branch(), branch()

    def forward(self, u: Tensor, inter: Tensor) -> Tensor:
        return u * self.gamma(inter) + self.beta(inter)


class Guidance(nn.Module):
    """u + DeformableConv(u, I) + AffineTransform(u, I)."""

    def __init__(self, channels: int):
        super().__init__()
        self.dcn = DeformableConv(channels)
        self.sft = AffineTransform(channels)

    def forward(self, u: Tensor, inter: Tensor) -> Tensor:
        return u + self.dcn(u, inter) + self.sft(u, inter)


class Block(nn.Module):
    """Two guidance modules and two convolutions around a residual.

    a = LReLU(conv1(LReLU(dgm1(u, I))));  result = conv2(LReLU(dgm2(a, I))) + u
    """

    def __init__(self, channels: int):
        super().__init__()
        self.dgm1, self.conv1 = Guidance(channels), conv3(channels, channels)
        self.dgm2, self.conv2 = Guidance(channels), conv3(channels, channels)

    def forward(self, u: Tensor, inter: Tensor) -> Tensor:
        a = F.leaky_relu(self.conv1(F.leaky_relu(self.dgm1(u, inter), SLOPE)), SLOPE)
        return self.conv2(F.leaky_relu(self.dgm2(a, inter), SLOPE)) + u


class Group(nn.Module):
    """Blocks one after the other, a convolution, and a residual around all."""

    def __init__(self, channels: int, blocks: int):
        super().__init__()
        self.blocks = nn.ModuleList(Block(channels) for _ in range(blocks))
        self.conv = conv3(channels, channels)

    def forward(self, u: Tensor, inter: Tensor) -> Tensor:
        w = u
        for block in self.blocks:
            w = block(w, inter)
        return self.conv(w) + u


class Restorer(nn.Module):
    """The restoring network, at full resolution throughout.

        h = conv3x3(x);  u = groups(h, I);  result = conv3x3(conv3x3(u) + h)

    There is no residual from the input. groups, blocks: how many, and blocks a group. channels: C.
    """

    def __init__(self, groups: int, blocks: int, channels: int):
        super().__init__()
        self.head = conv3(3, channels)
        self.groups = module_list(Group(channels, blocks) for _ in range(groups))
        self.conv = conv3(channels, channels)
        self.tail = conv3(channels, 3)

    def forward(self, x: Tensor, inter: Tensor) -> Tensor:
        h = u = self.head(x)
        for group in self.groups:
            u = group(u, inter)
        return self.tail(self.conv(u) + h)


class AirNetNetwork(nn.Module):
    """Restores an image with one network for all degradations.

    n_groups, n_blocks, n_feats: sizes of the restorer.
    enc: widths of the encoder after its first. The first is n_feats wide in the published network;
        enc[0] must equal n_feats.
    dim: width of the embedding.
    queue: its length K, published as 256 times the batch size 5.

    The defaults are the published configuration, with 8,930,313 parameters; 6,329,609 of them act
    when an image is restored.
    """

    def __init__(
        self,
        n_groups: int = 5,
        n_blocks: int = 5,
        n_feats: int = 64,
        enc: Sequence[int] = (64, 128, 256),
        dim: int = 256,
        queue: int = 1280,
    ):
        super().__init__()
        if enc[0] != n_feats:
            raise ValueError(
                f"AirNet's restorer has {n_feats} channels and its encoder starts with {enc[0]};"
                " set enc[0] to n_feats, as the features of one steer the other"
            )
        self.sizes: dict[str, Any] = {  # what builds it again
            "n_groups": n_groups,
            "n_blocks": n_blocks,
            "n_feats": n_feats,
            "enc": tuple(enc),
            "dim": dim,
            "queue": queue,
        }
        self.restorer = Restorer(n_groups, n_blocks, n_feats)
        self.contrast = Contrast(enc, dim, queue)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the restored image, (B, 3, H, W), not clamped.

        x: (B, 3, H, W), RGB in [0, 1], any size.
        """
        if x.ndim != 4 or x.shape[1] != 3:
            raise ValueError(
                f"AirNet takes RGB images of shape (batch, 3, height, width), not {tuple(x.shape)}"
            )
        return self.restorer(x, self.contrast.encoder_q.pre(x))

    def forward_pair(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the restored query, the contrastive logits (B, 1 + K), and their labels.

        query, key: two crops of each image, (B, 3, H, W). The key encoder and the queue advance.
        The features are not detached: the loss of the image trains the encoder's first block.
        Raises ValueError unless B divides the length of the queue.
        """
        logits, labels, inter = self.contrast(query, key)
        return self.restorer(query, inter), logits, labels
