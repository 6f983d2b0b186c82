"""Fidelity: a small network that lets the pixels of the degraded image correct the decoded one.

A latent holds less than an image: what the VAE cannot carry, no velocity brings back, and where the input was nearly clean the decoded
image is the worse of the two. CodeFormer (arXiv 2206.11253) and StableSR (arXiv 2305.07015) therefore let features of the degraded image
into the decoder, with a weight w. Here the same is done behind the decoder, so that the VAE stays as it is:

    g, r = F([x_hat ; x_lq])                           a share g in (0, 1) for each pixel, and a residual r
    x = x_hat + w (g (x_lq - x_hat) + r)

Where the input was clean, g = 1 keeps it. The paper has no such part: w = 0.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHUFFLE = 2  # pixels a side that become channels before the first convolution


class ResidualBlock(nn.Module):
    """x + conv(gelu(conv(x))), (B, C, H, W), the second convolution starting at 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.gelu(self.first(x)))


class Correction(nn.Module):
    """A U-Net from images (B, 3 n, H, W) to planes (B, P, H, W), 0 at first. H and W are multiples of `multiple`.

    Args:
        images: n, how many images it looks at.
        planes: P.
        widths: channels by level; each level after the first halves the resolution.
        blocks: residual blocks on each level, before and after the coarser levels.
    """

    def __init__(self, images: int, planes: int, widths: tuple[int, ...], blocks: int) -> None:
        super().__init__()
        if not widths or min(widths) < 1 or blocks < 1:
            raise ValueError(f"widths is {widths} and blocks {blocks}: give at least one level, with at least one channel and block")
        self.enter = nn.Conv2d(3 * images * SHUFFLE**2, widths[0], 3, padding=1)
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.before, self.after = (nn.ModuleList(self._level(width, blocks) for width in widths) for _ in range(2))
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in pairs)
        self.up = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in pairs)
        self.leave = nn.Conv2d(widths[0], planes * SHUFFLE**2, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    @staticmethod
    def _level(width: int, blocks: int) -> nn.Sequential:
        return nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))

    @property
    def multiple(self) -> int:
        """What both sides of an image must be divisible by."""
        return SHUFFLE * 2 ** len(self.down)

    def forward(self, images: Tensor) -> Tensor:
        x, skipped = self.enter(F.pixel_unshuffle(images, SHUFFLE)), []
        for level, blocks in enumerate(self.before):
            x = blocks(self.down[level - 1](x) if level else x)
            skipped.append(x)
        x = self.after[-1](x)
        for level in reversed(range(len(self.up))):
            x = self.after[level](skipped[level] + self.up[level](x))
        return F.pixel_shuffle(self.leave(x), SHUFFLE)


class Fidelity(nn.Module):
    """x_hat + w (g (x_lq - x_hat) + r) for images in [0, 1]; at first g = 1/2 and r = 0.

    Args:
        widths: see Correction.
        blocks: see Correction.
    """

    def __init__(self, widths: tuple[int, ...] = (20, 36, 56), blocks: int = 2) -> None:
        super().__init__()
        self.widths, self.blocks = tuple(widths), blocks
        self.correction = Correction(2, 4, self.widths, blocks)

    def forward(self, restored: Tensor, lq: Tensor, weight: float = 1.0) -> Tensor:
        """(B, 3, H, W), not clamped; `weight` from 0, the restored image as it is, to 1."""
        # around a mid-grey, so that a convolution's padding with 0 is no black frame
        planes = self.correction(torch.cat([restored, lq], dim=1) - 0.5)
        return restored + weight * (planes[:, :1].sigmoid() * (lq - restored) + planes[:, 1:])
