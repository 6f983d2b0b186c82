"""Fidelity: a small network that lets the pixels of the degraded image correct the decoded one.

A latent holds less than an image: what the VAE cannot carry, no velocity brings back, and where the
input was nearly clean the decoded image is the worse of the two. CodeFormer (arXiv 2206.11253) and
StableSR (arXiv 2305.07015) therefore let features of the degraded image into the decoder, with a
weight w. Here the same is done behind the decoder, so that the VAE stays as it is:

    d = x_lq - x_hat = l + h                           light and colours l, means of 8 x 8 pixels;
    detail h, the rest
    a, b, r = F([x_hat ; x_lq ; grain(x_lq)])          shares a, b in (0, 1) for each pixel, and a
    residual r x = x_hat + w (a l + b h + g x_lq + r), with gains g where the network has them

Clean input is kept by a = b = 1; noise is no reason to doubt the light (a = 1, b = 0), and darkness
none to doubt detail. Which of these an image needs is a matter of the whole scene: F sees its
statistics on the coarsest level. A dark scene and a scene in the dark differ in their grain, which
too short an exposure has and blur has not; it is a hundredth of the range, and so shown enlarged.
The paper has no such part: w = 0.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHUFFLE = 2  # pixels a side that become channels before the first convolution
CELL = 8  # pixels a side whose mean is light and colour, and no detail
GRAIN = 50.0  # 1 / 50 of the range, 5 steps of 8 bits, becomes tanh(1)


class ResidualBlock(nn.Module):
    """x + conv(gelu(conv(x))), (B, C, H, W), the second convolution starting at 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.gelu(self.first(x)))


class Correction(nn.Module):
    """A U-Net from images (B, 3 n, H, W) to planes (B, P, H, W), 0 at first. H and W are multiples
    of `multiple`.

    Args:
        images: n, how many images it looks at.
        planes: P.
        widths: channels by level; each level after the first halves the resolution.
        blocks: residual blocks on each level, before and after the coarser levels.
        scene: whether mean and deviation of all features of the coarsest level scale and shift
            them.
    """

    def __init__(
        self, images: int, planes: int, widths: tuple[int, ...], blocks: int, scene: bool = False
    ) -> None:
        super().__init__()
        if not widths or min(widths) < 1 or blocks < 1:
            raise ValueError(
                f"widths is {widths} and blocks {blocks}: give at least one level, with at least"
                " one channel and block"
            )
        self.enter = nn.Conv2d(3 * images * SHUFFLE**2, widths[0], 3, padding=1)
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.before, self.after = (
            nn.ModuleList(self._level(width, blocks) for width in widths) for _ in range(2)
        )
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in pairs)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in pairs
        )
        self.leave = nn.Conv2d(widths[0], planes * SHUFFLE**2, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)
        self.scene = None
        if scene:
            self.scene = nn.Sequential(
                nn.Linear(2 * widths[-1], widths[-1]),
                nn.GELU(),
                nn.Linear(widths[-1], 2 * widths[-1]),
            )
            nn.init.zeros_(self.scene[-1].weight)
            nn.init.zeros_(self.scene[-1].bias)

    @staticmethod
    def _level(width: int, blocks: int) -> nn.Sequential:
        return nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))

    @property
    def multiple(self) -> int:
        """What both sides of an image must be divisible by."""
        return SHUFFLE * 2 ** len(self.down)

    def _fine_to_coarse(self, images: Tensor) -> list[Tensor]:
        """Features of each level."""
        x, features = self.enter(F.pixel_unshuffle(images, SHUFFLE)), []
        for level, blocks in enumerate(self.before):
            x = blocks(self.down[level - 1](x) if level else x)
            features.append(x)
        return features

    def statistics(self, images: Tensor) -> Tensor:
        """Mean and deviation of the coarsest features, (B, 2 C):

        of a large image, the mean over its tiles.
        """
        return _statistics(self._fine_to_coarse(images)[-1])

    def forward(self, images: Tensor, statistics: Tensor | None = None) -> Tensor:
        """`statistics` of the whole scene, (B, 2 C), where `images` are tiles of it."""
        features = self._fine_to_coarse(images)
        x = features[-1]
        if self.scene is not None:
            scale, shift = self.scene(_statistics(x) if statistics is None else statistics)[
                ..., None, None
            ].chunk(2, dim=1)
            x = x * (1 + scale) + shift
        x = self.after[-1](x)
        for level in reversed(range(len(self.up))):
            x = self.after[level](features[level] + self.up[level](x))
        return F.pixel_shuffle(self.leave(x), SHUFFLE)


def _statistics(features: Tensor) -> Tensor:
    """(B, C, h, w) -> means and standard deviations (B, 2 C)."""
    deviation = (
        features.var((-2, -1), correction=0) + 1e-6
    ).sqrt()  # a flat image has a derivative, too
    return torch.cat([features.mean((-2, -1)), deviation], dim=1)


def light(image: Tensor) -> Tensor:
    """Means of CELL x CELL pixels of (B, C, H, W), bilinear between the cells' centres.

    H and W are multiples of CELL.
    """
    return F.interpolate(
        F.avg_pool2d(image, CELL), scale_factor=CELL, mode="bilinear", align_corners=False
    )


# g = tanh(GRAIN (x - mean of the 3 x 3 pixels around x))
def grain(image: Tensor) -> Tensor:
    """Finest detail of (B, C, H, W), enlarged, in (-1, 1); the border's pixels are repeated."""
    return torch.tanh(
        GRAIN * (image - F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), 3, stride=1))
    )


class Fidelity(nn.Module):
    """x_hat + w (a l + b h + g x_lq + r) for images in [0, 1]; at first a = b = 1/2, g = r = 0.

    Haze and darkness multiply: J = K I + B undoes both without redrawing any detail (AOD-Net, Li et
    al., ICCV 2017, estimates that K).

    Args:
        widths: see Correction.
        blocks: see Correction.
        gain: whether the network has gains g, one a channel and pixel; else g is 0.
    """

    def __init__(
        self, widths: tuple[int, ...] = (20, 36, 54), blocks: int = 2, gain: bool = False
    ) -> None:
        super().__init__()
        self.widths, self.blocks, self.gain = tuple(widths), blocks, gain
        self.correction = Correction(3, 8 if gain else 5, self.widths, blocks, scene=True)

    @property
    def multiple(self) -> int:
        """What both sides of an image must be divisible by."""
        return math.lcm(self.correction.multiple, CELL)

    @staticmethod
    def _seen(restored: Tensor, lq: Tensor) -> Tensor:
        # around a mid-grey, so that a convolution's padding with 0 is no black frame
        return torch.cat([restored - 0.5, lq - 0.5, grain(lq)], dim=1)

    def statistics(self, restored: Tensor, lq: Tensor) -> Tensor:
        """What `forward` takes for tiles of a large scene, (B, 2 C): its mean over the tiles."""
        return self.correction.statistics(self._seen(restored, lq))

    def forward(
        self, restored: Tensor, lq: Tensor, weight: float = 1.0, statistics: Tensor | None = None
    ) -> Tensor:
        """(B, 3, H, W), not clamped; `weight` from 0, the restored image as it is, to 1."""
        planes = self.correction(self._seen(restored, lq), statistics)
        apart = lq - restored
        low = light(apart)
        shares, residual = planes[:, :2].sigmoid(), planes[:, 2:5]
        if self.gain:
            residual = residual + planes[:, 5:] * lq
        return restored + weight * (
            shares[:, :1] * low + shares[:, 1:] * (apart - low) + residual
        )
