"""A small U-Net whose coarsest level sees the statistics of the whole scene."""

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


class SceneUNet(nn.Module):
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
        self.before = nn.ModuleList(self._level(width, blocks) for width in widths)
        self.after = nn.ModuleList(self._level(width, blocks) for width in widths)
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in pairs)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in pairs
        )
        self.leave = nn.Conv2d(widths[0], planes * SHUFFLE**2, 3, padding=1)
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)
        self.scene: nn.Sequential | None = None
        if scene:
            self.scene = nn.Sequential(
                nn.Linear(2 * widths[-1], widths[-1]),
                nn.GELU(),
                nn.Linear(widths[-1], 2 * widths[-1]),
            )
            for parameter in self.scene[-1].parameters():
                nn.init.zeros_(parameter)

    @staticmethod
    def _level(width: int, blocks: int) -> nn.Sequential:
        return nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))

    @property
    def multiple(self) -> int:
        """Returns what both sides of an image must be divisible by."""
        return SHUFFLE * 2 ** len(self.down)

    def _fine_to_coarse(self, images: Tensor) -> list[Tensor]:
        """Features of each level.

        Channels come last, which is a third faster on a CPU. The weights follow their input, and
        lie as usual for DeepSpeed, which broadcasts no others.
        """
        planes = F.pixel_unshuffle(images, SHUFFLE)
        x, features = self.enter(planes.contiguous(memory_format=torch.channels_last)), []
        for level, blocks in enumerate(self.before):
            x = blocks(self.down[level - 1](x) if level else x)
            features.append(x)
        return features

    def statistics(self, images: Tensor) -> Tensor:
        """Returns the mean and deviation of the coarsest features, (B, 2 C).

        Those of a large image are the mean over its tiles.
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
