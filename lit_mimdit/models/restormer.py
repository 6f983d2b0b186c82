"""Restormer's blocks: attention between channels, a gated feed-forward part, and their norm.

Source: "Restormer: Efficient Transformer for High-Resolution Image Restoration" (CVPR 2022).
PromptIR, DiffIR and FoundIR's weather specialist are built from them. In all formulas u is a map of
shape (B, C, H, W). Convolutions pad with zeros.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel.

        with bias:    (u - mean) / sqrt(var + eps) * weight + bias
        without bias:         u  / sqrt(var + eps) * weight

    var is the biased variance about the mean in both forms.

    channels: C. with_bias: the form. eps: added to the variance.
    """

    def __init__(self, channels: int, with_bias: bool = True, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if with_bias else None

    def forward(self, u: Tensor) -> Tensor:
        u = u.movedim(1, -1)
        if self.bias is not None:
            u = F.layer_norm(u, u.shape[-1:], self.weight, self.bias, self.eps)
        else:
            u = u * torch.rsqrt(u.var(-1, correction=0, keepdim=True) + self.eps) * self.weight
        return u.movedim(-1, 1)


class ChannelAttention(nn.Module):
    """Attention between channels, which costs linear time in the number of pixels (MDTA).

        q, k, v = thirds of depthwise3x3(conv1x1(u)), heads = slices of C / heads channels
        A       = softmax(q_hat k_hat^T * temperature), of shape (C / heads, C / heads)
        result  = conv1x1(A v)

    q_hat and k_hat have L2 norm 1 over the pixels; the norm is clamped at 1e-12.

    channels: C. heads: divides C. bias: whether the convolutions have one.
    """

    def __init__(self, channels: int, heads: int, bias: bool = False):
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(
            3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=bias
        )
        self.project_out = nn.Conv2d(channels, channels, 1, bias=bias)

    def forward(self, u: Tensor) -> Tensor:
        batch, _, height, width = u.shape
        parts = self.qkv_dwconv(self.qkv(u)).chunk(3, dim=1)
        q, k, v = (part.reshape(batch, self.heads, -1, height * width) for part in parts)
        similarity = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-1, -2)
        mixed = (similarity * self.temperature).softmax(-1) @ v
        return self.project_out(mixed.reshape(u.shape))


class GatedFeedForward(nn.Module):
    """A feed-forward part in which one half of the hidden channels gates the other (GDFN).

        a, b   = halves of depthwise3x3(conv1x1(u)), n = int(expansion * C) channels each
        result = conv1x1(GELU(a) * b), with the exact GELU

    channels: C. expansion: n / C. bias: whether the convolutions have one.
    """

    def __init__(self, channels: int, expansion: float, bias: bool = False):
        super().__init__()
        hidden = int(expansion * channels)
        self.project_in = nn.Conv2d(channels, 2 * hidden, 1, bias=bias)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=bias)

    def forward(self, u: Tensor) -> Tensor:
        a, b = self.dwconv(self.project_in(u)).chunk(2, dim=1)
        return self.project_out(F.gelu(a) * b)


class Modulation(nn.Module):
    """Scales and shifts a map by a vector that describes the image.

        scale, shift = halves of K z        result = scale * u + shift

    prior: length of z. channels: C.
    """

    def __init__(self, prior: int, channels: int):
        super().__init__()
        self.project = nn.Linear(prior, 2 * channels, bias=False)

    def forward(self, u: Tensor, z: Tensor) -> Tensor:
        scale, shift = self.project(z)[..., None, None].chunk(2, dim=1)
        return scale * u + shift


class RestormerBlock(nn.Module):
    """One transformer block.

        u = u + attn(M1(norm1(u), z))
        u = u + ffn(M2(norm2(u), z))

    M1 and M2 exist only where `prior` is given, which is DiffIR's form of the block.

    channels: C.
    heads: those of the attention, a divisor of C.
    expansion: that of the feed-forward part.
    bias: whether the convolutions have one.
    norm_bias: form of the norms.
    prior: length of z.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        expansion: float,
        bias: bool = False,
        norm_bias: bool = True,
        prior: int | None = None,
    ):
        super().__init__()
        self.norm1 = ChannelNorm(channels, norm_bias)
        self.attn = ChannelAttention(channels, heads, bias)
        self.norm2 = ChannelNorm(channels, norm_bias)
        self.ffn = GatedFeedForward(channels, expansion, bias)
        self.modulate1 = None if prior is None else Modulation(prior, channels)
        self.modulate2 = None if prior is None else Modulation(prior, channels)

    def forward(self, u: Tensor, z: Tensor | None = None) -> Tensor:
        """u: (B, C, H, W). z: (B, prior), needed exactly where the block has modulations."""
        assert (z is None) == (self.modulate1 is None)
        y = self.norm1(u)
        u = u + self.attn(y if self.modulate1 is None else self.modulate1(y, z))
        y = self.norm2(u)
        return u + self.ffn(y if self.modulate2 is None else self.modulate2(y, z))


class Downsample(nn.Sequential):
    """Halves height and width and doubles the channels: conv3x3 C -> C/2, pixel unshuffle by 2."""

    def __init__(self, channels: int):
        super().__init__(
            nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2)
        )


class Upsample(nn.Sequential):
    """Doubles height and width and halves the channels: conv3x3 C -> 2C, pixel shuffle by 2."""

    def __init__(self, channels: int):
        super().__init__(
            nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False), nn.PixelShuffle(2)
        )


def expansion_of(hidden: dict[int, int], published: float) -> float:
    """Returns the expansion of feed-forward parts whose widths are known.

        hidden = int(expansion * channels), so hidden / C <= expansion < (hidden + 1) / C

    hidden: hidden channels by channels C, for all widths of a network.
    published: is returned if it fits; otherwise the middle of the interval that fits all widths.

    Raises ValueError if no expansion fits all of them.
    """
    if all(int(published * channels) == width for channels, width in hidden.items()):
        return published
    low = max(width / channels for channels, width in hidden.items())
    high = min((width + 1) / channels for channels, width in hidden.items())
    if low >= high:
        raise ValueError(
            f"no expansion gives hidden channels {hidden} (hidden by channels); the checkpoint"
            " holds blocks of different networks, so give another"
        )
    return (low + high) / 2
