"""FoundIR's specialist for low light: Wave-Mamba (arXiv 2408.01276).

Wavelets split the features on three levels. State-space blocks restore the low band, and blocks
that copy matching channels of it restore the high bands.

Legend: B images, w channels on every level, H and W pixels, L = H W. The inner channels are D =
expand w. There are K = 4 scan directions, N states, and R is the rank of the step sizes.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_mimdit.models.restormer import ChannelAttention, ChannelNorm, GatedFeedForward
from lit_mimdit.systems.foundir.selective_scan import selective_scan
from lit_mimdit.systems.foundir.wavelet import analyse, synthesise

LEVELS = 3
MULTIPLE = 2**LEVELS
DIRECTIONS = 4
BANDS = 3
GUIDE_EPSILON = 1e-6


def _depthwise(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels)


class Scan(nn.Module):
    """Mixes pixels along four directions, (B, w, H, W).

        u, z = halves of Linear(x),   u = SiLU(depthwise3x3(u))
        y = sum of the scans by rows, by columns and both backwards
        result = Linear(norm(y) SiLU(z))

    Args:
        width: w.
        expand: D / w.
        states: N.
    """

    def __init__(self, width: int, expand: float = 2.0, states: int = 16) -> None:
        super().__init__()
        inner, rank = int(expand * width), math.ceil(width / 16)
        self.rank, self.states = rank, states
        self.enter = nn.Linear(width, 2 * inner, bias=False)
        self.conv = _depthwise(inner)
        self.project = nn.Parameter(torch.randn(DIRECTIONS, rank + 2 * states, inner) * inner**-0.5)
        self.step_weight = nn.Parameter((2 * torch.rand(DIRECTIONS, inner, rank) - 1) * rank**-0.5)
        # softplus of the bias starts between 0.001 and 0.1, evenly in the logarithm
        start = torch.exp(torch.empty(DIRECTIONS, inner).uniform_(math.log(1e-3), math.log(0.1)))
        self.step_bias = nn.Parameter(start + torch.log(-torch.expm1(-start)))
        decays = torch.arange(1, states + 1, dtype=torch.float32).log()
        self.log_decay = nn.Parameter(decays.repeat(DIRECTIONS * inner, 1))
        self.skip = nn.Parameter(torch.ones(DIRECTIONS * inner))
        self.norm = ChannelNorm(inner)
        self.leave = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        u, z = self.enter(x.movedim(1, -1)).movedim(-1, 1).chunk(2, dim=1)
        y = self.norm(self._scanned(F.silu(self.conv(u)))) * F.silu(z)
        return self.leave(y.movedim(1, -1)).movedim(-1, 1)

    def _scanned(self, u: Tensor) -> Tensor:
        """Returns the sum of four scans of (B, D, H, W), each pixel back in its place."""
        height, width = u.shape[-2:]
        rows, columns = u.flatten(2), u.transpose(-1, -2).flatten(2)
        u_BKDL = torch.stack([rows, columns, rows.flip(-1), columns.flip(-1)], dim=1)
        parts = torch.einsum("kpd,bkdl->bkpl", self.project, u_BKDL)
        step, into, out = parts.split([self.rank, self.states, self.states], dim=2)
        y = selective_scan(
            u_BKDL.flatten(1, 2),
            torch.einsum("kdr,bkrl->bkdl", self.step_weight, step).flatten(1, 2),
            -torch.exp(self.log_decay),
            into,
            out,
            self.skip,
            self.step_bias.flatten(),
        ).unflatten(1, (DIRECTIONS, -1))
        by_rows = y[:, 0] + y[:, 2].flip(-1)
        by_columns = y[:, 1] + y[:, 3].flip(-1)
        turned = by_columns.unflatten(-1, (width, height)).transpose(-1, -2)
        return by_rows.unflatten(-1, (height, width)) + turned


class LowBlock(nn.Module):
    """Restores the low band: x <- g1 x + scan(norm(x)), x <- g2 x + ffn(norm(x))."""

    def __init__(self, width: int, expand: float) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(width, eps=1e-6)
        self.scan = Scan(width, expand)
        self.gain1 = nn.Parameter(torch.ones(width))
        self.norm2 = ChannelNorm(width)
        self.ffn = GatedFeedForward(width, 1, bias=True)
        self.gain2 = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.gain1[:, None, None] + self.scan(self.norm1(x))
        return x * self.gain2[:, None, None] + self.ffn(self.norm2(x))


def nearest_channels(query: Tensor, guide: Tensor) -> Tensor:
    """Returns for each channel of `query` the channel of `guide` at the smallest distance.

    Channels are vectors over the pixels, distances are Euclidean and taken within an image. All
    are (B, w, H, W). The choice has no gradient; the chosen channels have one.
    """
    distance = torch.cdist(query.flatten(2), guide.flatten(2))
    chosen = distance.argmin(dim=-1)[..., None, None].expand_as(query)
    return guide.gather(1, chosen)


class Match(nn.Module):
    """Adds to each channel its nearest one of the guide, (B, w, H, W).

    m = [q, nearest(q, g)],  result = conv3(conv3(m) sigmoid(conv1(m)))
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(2 * width, 2 * width, 1)
        self.value = nn.Conv2d(2 * width, 2 * width, 3, padding=1, bias=False)
        self.out = nn.Conv2d(2 * width, width, 3, padding=1, bias=False)

    def forward(self, query: Tensor, guide: Tensor) -> Tensor:
        both = torch.cat([query, nearest_channels(query, guide)], dim=1)
        return self.out(self.value(both) * self.gate(both).sigmoid())


class GuidedAttention(ChannelAttention):
    """Attention between channels whose queries are first matched with the guide, (B, w, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__(width, heads=1, bias=True)
        self.match = Match(width)

    # nothing takes it for its base, which has no guide
    def forward(self, x: Tensor, guide: Tensor) -> Tensor:  # type: ignore[override]
        q, k, v = self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1)
        q, k = (F.normalize(part.flatten(2), dim=-1) for part in (self.match(q, guide), k))
        weights = (q @ k.transpose(-1, -2) * self.temperature[0]).softmax(-1)
        return self.project_out((weights @ v.flatten(2)).reshape(x.shape))


class GuidedFeedForward(nn.Module):
    """Returns conv1(GELU(dw3(match(dw3(conv1(x)), guide)))), (B, w, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.Conv2d(width, width, 1), _depthwise(width))
        self.match = Match(width)
        self.after = nn.Sequential(_depthwise(width), nn.GELU(), nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        return self.after(self.match(self.before(x), guide))


class HighBlock(nn.Module):
    """Restores the high bands: x <- x + att(norm(x), g'), x <- x + ffn(norm(x), g').

    g' is the guide, normalised with parameters of this block.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.guide_norm = (
            ChannelNorm(width, eps=GUIDE_EPSILON) for _ in range(3)
        )
        self.attn = GuidedAttention(width)
        self.ffn = GuidedFeedForward(width)

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        guide = self.guide_norm(guide)
        x = x + self.attn(self.norm1(x), guide)
        return x + self.ffn(self.norm2(x), guide)


class Fusion(nn.Module):
    """Blends three bands with weights for each channel that sum to 1 (SKFF, MIRNet).

    weights = softmax over the bands of conv1(PReLU(conv1(mean over pixels of their sum)))
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = max(width // 8, 4)
        self.squeeze = nn.Sequential(nn.Conv2d(width, hidden, 1, bias=False), nn.PReLU())
        self.expand = nn.ModuleList(nn.Conv2d(hidden, width, 1, bias=False) for _ in range(BANDS))

    def forward(self, *bands: Tensor) -> Tensor:
        stacked = torch.stack(bands)
        scene = self.squeeze(stacked.sum(0).mean(dim=(-2, -1), keepdim=True))
        weights = torch.stack([layer(scene) for layer in self.expand]).softmax(0)
        return (weights * stacked).sum(0)


class Down(nn.Module):
    """Halves the resolution: returns the restored low band and the restored high bands."""

    def __init__(self, width: int, low: int, high: int, expand: float) -> None:
        super().__init__()
        self.merge = nn.Conv2d(2 * width, width, 3, padding=1)
        self.low = nn.Sequential(*(LowBlock(width, expand) for _ in range(low)))
        self.fusion = Fusion(width)
        self.high = nn.ModuleList(HighBlock(width) for _ in range(high))

    def forward(self, features: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """features: (B, w, H, W). image: the degraded image at half the size, (B, w, H/2, W/2)."""
        ll, hl, lh, hh = analyse(features)
        low = self.low(self.merge(torch.cat([ll, image], dim=1)))
        high = self.fusion(hl, lh, hh)
        for block in self.high:
            high = block(high, low)
        return low, high


class Up(nn.Module):
    """Doubles the resolution: restores both bands again and joins them, (B, w, 2 H, 2 W)."""

    def __init__(self, width: int, low: int, high: int, expand: float) -> None:
        super().__init__()
        self.low = nn.Sequential(*(LowBlock(width, expand) for _ in range(low)))
        self.high = nn.ModuleList(HighBlock(width) for _ in range(high))
        self.high_out = nn.Conv2d(width, BANDS * width, 3, padding=1)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        low = self.low(low)
        for block in self.high:
            high = block(high, low)
        return synthesise(low, *self.high_out(high).chunk(BANDS, dim=1))


class WaveMamba(nn.Module):
    """Restores images (B, in_chn, H, W) in [0, 1]; H and W are multiples of 8. Nothing is clamped.

    Args:
        in_chn: channels of the image.
        wf: w.
        n_l_blocks, n_h_blocks: blocks of the low and of the high bands, by level.
        ffn_scale: D / w.

    Raises:
        ValueError: if the blocks are not given for three levels, or an image's sides are no
            multiples of 8.
    """

    def __init__(
        self,
        in_chn: int = 3,
        wf: int = 32,
        n_l_blocks: Sequence[int] = (1, 2, 4),
        n_h_blocks: Sequence[int] = (1, 1, 2),
        ffn_scale: float = 2.0,
    ) -> None:
        super().__init__()
        if len(n_l_blocks) != LEVELS or len(n_h_blocks) != LEVELS:
            raise ValueError(
                f"n_l_blocks is {list(n_l_blocks)} and n_h_blocks {list(n_h_blocks)}: the network"
                f" has {LEVELS} levels, so give {LEVELS} numbers of each"
            )
        self.sizes = {  # what builds it again
            "wf": wf,
            "n_l_blocks": tuple(n_l_blocks),
            "n_h_blocks": tuple(n_h_blocks),
            "ffn_scale": ffn_scale,
        }
        counts = list(zip(n_l_blocks, n_h_blocks, strict=True))
        self.embed = nn.ModuleList(
            nn.Conv2d(in_chn * 4**level, wf, 1) for level in range(1, LEVELS + 1)
        )
        self.enter = nn.Conv2d(in_chn, wf, 3, padding=1)
        self.down = nn.ModuleList(Down(wf, low, high, ffn_scale) for low, high in counts)
        self.up = nn.ModuleList(Up(wf, low, high, ffn_scale) for low, high in counts)
        self.leave = nn.Conv2d(wf, in_chn, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if height % MULTIPLE or width % MULTIPLE:
            raise ValueError(
                f"an image has {height} x {width} pixels: the network halves it {LEVELS} times, so"
                f" pad it to multiples of {MULTIPLE}"
            )
        low = self.enter(x)
        highs = []
        for level, (embed, down) in enumerate(zip(self.embed, self.down, strict=True), start=1):
            low, high = down(low, embed(F.pixel_unshuffle(x, 2**level)))
            highs.append(high)
        for up, high in zip(reversed(self.up), reversed(highs), strict=True):
            low = up(low, high)
        return self.leave(low) + x
