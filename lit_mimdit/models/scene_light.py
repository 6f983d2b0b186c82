"""The light of a scene: a small network that lights dark scenes and sees through haze.

Haze and darkness leave detail where it is. They scale and shift light, slowly over the scene:

    x' = K x + B                    K = exp(2 k); k, B for each channel and cell of 8 x 8 pixels,
    t  = clamp((p - DOUBT) / (SURE - DOUBT), 0, 1)
    result: x + t (x' - x)          p: how probably x' is better than x

So the network sees no pixels. It sees what each cell holds: mean m and deviation s of its channels,
and a dark and a bright quantile. Mean and deviation of a cell of x' are K m + B and K s. That makes
training as cheap as the network. AOD-Net (Li et al., ICCV 2017) estimates such a K and B for haze,
at each pixel. HDRNet (Gharbi et al., SIGGRAPH 2017) does so for photographers' edits, on a small
grid.

Whether a scene is pale or hazy, dusky or too dark, no pixel tells. The whole scene decides, with
some doubt. What corrects learns from damaged images alone, and is not timid. What doubts learns
beside it to say p.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CELL = 8  # pixels a side
LONGEST = 320  # pixels: a larger scene is reduced before its cells are taken
DARKER, BRIGHTER = 3, 60  # places, of the 64 sorted pixels, of the dark and the bright quantile
PLANES = 8  # 3 means, 3 deviations, 2 quantiles
DOUBT, SURE = 0.68, 0.72  # probabilities that x' is better: it is not taken, it is
TRACE = 0.01  # light that the logarithm takes for black
FLAT = 0.002  # deviation that it takes for none


def cells(images: Tensor) -> Tensor:
    """Returns what each cell of images (B, 3, H, W) in [0, 1] holds, (B, 8, H / 8, W / 8).

    H and W are multiples of CELL. The planes are means and deviations of the channels, then the
    dark quantile of each pixel's darkest channel and the bright one of its brightest.
    """
    batch, _, height, width = images.shape
    size = height // CELL, width // CELL
    pixels = F.unfold(images, CELL, stride=CELL).reshape(batch, 3, CELL**2, -1)
    dark = pixels.amin(1).sort(1).values[:, DARKER : DARKER + 1]
    bright = pixels.amax(1).sort(1).values[:, BRIGHTER : BRIGHTER + 1]
    held = torch.cat([pixels.mean(2), pixels.std(2, correction=0), dark, bright], dim=1)
    return held.unflatten(-1, size)


def statistics(planes: Tensor) -> Tensor:
    """Returns mean and deviation of (B, C, H, W) over the scene, (B, 2 C)."""
    deviation = (planes.var((2, 3), correction=0) + 1e-6).sqrt()
    return torch.cat([planes.mean((2, 3)), deviation], dim=1)


def _logarithm(values: Tensor, least: float) -> Tensor:
    """log of values in [0, 1], 1 at 0 and nearly 0 at 1."""
    return (values + least).log() / math.log(least)


def seen(held: Tensor) -> Tensor:
    """Returns what the network sees of cells (B, 8, h, w): (B, 15, h, w), all near one in size."""
    mean, deviation, dark, bright = held.split((3, 3, 1, 1), dim=1)
    return torch.cat(
        [
            mean - 0.5,
            (4 * deviation).clamp(max=2),
            dark - 0.5,
            bright - 0.5,
            _logarithm(mean, TRACE) - 0.5,
            _logarithm(deviation, FLAT) - 0.5,
            _logarithm(bright, TRACE) - 0.5,
        ],
        dim=1,
    )


class _Block(nn.Module):
    """x + statistics' shift, then x + conv(gelu(conv(norm(x)))): nothing is added at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        last = nn.Linear(width, width)
        self.scene = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), last)
        self.norm = nn.GroupNorm(1, width)
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.scene(statistics(x))[..., None, None]
        return x + self.second(F.gelu(self.first(self.norm(x))))


class SceneLight(nn.Module):
    """Gains K, offsets B and the logit of p, of cells; K = 1 and B = 0 at first.

    Args:
        width: channels at half the cells' resolution; at the cells' own it is half of that.
        blocks: residual blocks, each of which sees the statistics of the whole scene.
    """

    def __init__(self, width: int = 64, blocks: int = 4) -> None:
        super().__init__()
        if width < 2 or width % 2 or blocks < 1:
            raise ValueError(
                f"light has width {width} and {blocks} blocks: give an even width and at least one"
                " block"
            )
        self.width = width
        self.blocks = blocks
        half, planes = width // 2, 15
        self.enter = nn.Sequential(
            nn.Conv2d(planes, half, 1), nn.GELU(), nn.Conv2d(half, half, 1), nn.GELU()
        )
        self.down = nn.Conv2d(half, width, 2, stride=2)
        self.body = nn.Sequential(*(_Block(width) for _ in range(blocks)))
        self.up = nn.Conv2d(width, half, 1)
        self.mix = nn.Sequential(
            nn.Conv2d(2 * half, width, 1),
            nn.GELU(),
            nn.Conv2d(width, half, 3, padding=1),
            nn.GELU(),
        )
        self.leave = nn.Conv2d(half, 6, 1)
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)
        self.recognition = nn.Sequential(
            nn.Linear(2 * (width + half + planes), width), nn.GELU(), nn.Linear(width, 1)
        )

    @property
    def sizes(self) -> tuple[int, int]:
        """Returns (width, blocks)."""
        return self.width, self.blocks

    def forward(self, held: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns K and B (B, 3, h, w) and the logit of p (B,), of cells (B, 8, h, w)."""
        height, width = held.shape[-2:]
        planes = seen(held)
        if height % 2 or width % 2:
            planes = F.pad(planes, (0, width % 2, 0, height % 2), mode="replicate")
        dtype = self.leave.weight.dtype
        planes = planes.to(dtype).contiguous(memory_format=torch.channels_last)
        fine = self.enter(planes)
        coarse = self.body(self.down(fine))
        mixed = self.mix(
            torch.cat([fine, F.interpolate(self.up(coarse), scale_factor=2, mode="nearest")], dim=1)
        )
        light = self.leave(mixed)[..., :height, :width].float()
        scene = torch.cat([statistics(part) for part in (coarse, fine, planes)], dim=1)
        logit = self.recognition(scene)[:, 0].float()
        return (2 * light[:, :3]).exp(), light[:, 3:], logit

    def lit(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns images x' (B, 3, H, W) in [0, 1] and how probably they are better, p (B,).

        Sides are at least CELL. The cells of a scene of more than LONGEST pixels are those of its
        reduced copy.
        """
        height, width = images.shape[-2:]
        factor = math.ceil(max(height, width) / LONGEST)
        small = images.float().clamp(0, 1)  # the cleaner may leave it a little
        if factor > 1 and min(height, width) >= factor * CELL:
            small = F.avg_pool2d(small, factor)
        rows, columns = (side // CELL * CELL for side in small.shape[-2:])
        gain, offset, logit = self(cells(small[..., :rows, :columns]))
        gain, offset = (
            F.interpolate(planes, size=(height, width), mode="bilinear", align_corners=False)
            for planes in (gain, offset)
        )
        return torch.addcmul(offset, gain, images.float()).clamp(0, 1).to(images), logit.sigmoid()


# t = clamp((p - low) / (high - low), 0, 1)
def trust(values: Tensor, bounds: tuple[float, float] = (DOUBT, SURE)) -> Tensor:
    """Returns how much images count by a value p (B,) of each, such as a probability: (B, 1, 1, 1).

    Below the first of the bounds an image is not taken at all, above the second wholly.
    """
    low, high = bounds
    return ((values - low) / (high - low)).clamp(0, 1)[:, None, None, None]
