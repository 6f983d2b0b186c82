"""The conditional U-Net of residual diffusion, which DiffUIR and FoundIR share.

It predicts the residual between a degraded and a clean image. It sees a diffused image, the
degraded one and a time. DA-CLIP's U-Net is of the same family, and takes its formulas from here.
Sources: RDDM (arXiv 2308.13712), DiffUIR (arXiv 2403.11157).

Legend: B images, c channels, H and W pixels, P = H W, h attention heads, e channels a head. The
time embedding has t channels, and the finest level d.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_mimdit.models.module_list import module_list
from lit_mimdit.models.padding import pad_to_multiple

HEADS, HEAD_WIDTH = 4, 32
NORM_GROUPS = 8
IMAGES = 2  # a diffused image and the degraded image enter together


def _epsilon(x: Tensor) -> float:
    """Returns the constant under a root, which half precision needs larger."""
    return 1e-3 if x.dtype in (torch.float16, torch.bfloat16) else 1e-5


# y = (x - mean) / sqrt(var + eps) g
def gain_norm(x_BcHW: Tensor, gain_1c11: Tensor) -> Tensor:
    """Normalises every pixel over its channels, with the biased variance, a gain and no bias."""
    var, mean = torch.var_mean(x_BcHW, dim=1, correction=0, keepdim=True)
    return (x_BcHW - mean) * (var + _epsilon(x_BcHW)).rsqrt() * gain_1c11


# q = softmax_channels(Q) / sqrt(e), k = softmax_pixels(K), v = V / P;  out = (k v^T)^T q
def linear_attention(qkv_BcHW: Tensor) -> Tensor:
    """Returns linear attention (arXiv 1812.01243) of stacked queries, keys and values.

    (B, 3 h e, H, W) becomes (B, h e, H, W). The cost grows linearly with the pixels.
    """
    height, width = qkv_BcHW.shape[-2:]
    q_BheP, k_BheP, v_BheP = _heads(qkv_BcHW)
    q_BheP = q_BheP.softmax(dim=-2) * HEAD_WIDTH**-0.5
    context_Bhee = k_BheP.softmax(dim=-1) @ (v_BheP / (height * width)).transpose(-1, -2)
    out_BcP = (context_Bhee.transpose(-1, -2) @ q_BheP).flatten(1, 2)
    return out_BcP.unflatten(-1, (height, width))


# f_k = 10000^(-k / (d/2 - 1)), k = 0 .. d/2 - 1;  e = [sin(tau f), cos(tau f)]
def waves(tau_B: Tensor, dim: int) -> Tensor:
    """Returns sines and cosines of real times as (B, dim), in the precision of the times."""
    half = dim // 2
    index = torch.arange(half, dtype=tau_B.dtype, device=tau_B.device)
    angle = tau_B[:, None] * torch.exp(index * (-math.log(10000) / (half - 1)))
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class GainNorm(nn.Module):
    """Applies `gain_norm` with a learned gain; input and output are (B, c, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x_BcHW: Tensor) -> Tensor:
        return gain_norm(x_BcHW, self.gain)


class StandardisedConv(nn.Conv2d):
    """Convolves with weights of mean 0 and variance 1 for every output channel.

    Weight standardisation (arXiv 1903.10520): w' = (w - mean) / sqrt(var + eps), with the biased
    variance over input channels and positions.
    """

    def forward(self, x_BcHW: Tensor) -> Tensor:
        var, mean = torch.var_mean(self.weight, dim=(1, 2, 3), correction=0, keepdim=True)
        weight = (self.weight - mean) * (var + _epsilon(x_BcHW)).rsqrt()
        return F.conv2d(x_BcHW, weight, self.bias, self.stride, self.padding)


class TimeEmbedding(nn.Module):
    """Embeds real times (B,) as vectors (B, 4 d): waves, then two dense layers with GELU between.

    Times reach 1000, so sines are taken in float32 whatever the weights.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.first = nn.Linear(dim, 4 * dim)
        self.second = nn.Linear(4 * dim, 4 * dim)

    def forward(self, tau_B: Tensor) -> Tensor:
        wave_Bd = waves(tau_B.float(), self.dim).to(self.first.weight.dtype)
        return self.second(F.gelu(self.first(wave_Bd)))


class ConvBlock(nn.Module):
    """Applies convolution, group normalisation, an optional modulation, and SiLU."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.proj = StandardisedConv(inside, outside, 3, padding=1)
        self.norm = nn.GroupNorm(NORM_GROUPS, outside)

    def forward(self, x_BcHW: Tensor, scale_shift: tuple[Tensor, Tensor] | None = None) -> Tensor:
        x_BcHW = self.norm(self.proj(x_BcHW))
        if scale_shift is not None:
            scale, shift = scale_shift
            x_BcHW = x_BcHW * (scale + 1) + shift
        return F.silu(x_BcHW)


class ResBlock(nn.Module):
    """Returns (B, outside, H, W): two convolution blocks beside a shortcut.

    The time scales and shifts the first block only; a 1 x 1 convolution is the shortcut where the
    widths differ.
    """

    def __init__(self, inside: int, outside: int, time: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(time, 2 * outside)
        self.block1 = ConvBlock(inside, outside)
        self.block2 = ConvBlock(outside, outside)
        self.shortcut = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, x_BcHW: Tensor, time_Bt: Tensor) -> Tensor:
        scale, shift = self.modulation(F.silu(time_Bt))[..., None, None].chunk(2, dim=1)
        inner = self.block2(self.block1(x_BcHW, (scale, shift)))
        return inner + self.shortcut(x_BcHW)


class LinearAttention(nn.Module):
    """Adds to x what linear attention makes of it, (B, c, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = GainNorm(channels)
        self.qkv = nn.Conv2d(channels, 3 * HEADS * HEAD_WIDTH, 1, bias=False)
        self.out = nn.Conv2d(HEADS * HEAD_WIDTH, channels, 1)
        self.out_norm = GainNorm(channels)

    def forward(self, x_BcHW: Tensor) -> Tensor:
        out_BcHW = linear_attention(self.qkv(self.norm(x_BcHW)))
        return x_BcHW + self.out_norm(self.out(out_BcHW))


class FullAttention(nn.Module):
    """Adds to x what softmax attention between all pixels makes of it, (B, c, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = GainNorm(channels)
        self.qkv = nn.Conv2d(channels, 3 * HEADS * HEAD_WIDTH, 1, bias=False)
        self.out = nn.Conv2d(HEADS * HEAD_WIDTH, channels, 1)

    def forward(self, x_BcHW: Tensor) -> Tensor:
        parts = _heads(self.qkv(self.norm(x_BcHW)))
        q_BhPe, k_BhPe, v_BhPe = (part.transpose(-1, -2) for part in parts)
        out_BhPe = F.scaled_dot_product_attention(q_BhPe, k_BhPe, v_BhPe)
        out_BcHW = out_BhPe.transpose(-1, -2).flatten(1, 2).unflatten(-1, x_BcHW.shape[-2:])
        return x_BcHW + self.out(out_BcHW)


def _heads(qkv_BcHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Splits (B, 3 h e, H, W) into queries, keys and values, each (B, h, e, P)."""
    q, k, v = qkv_BcHW.flatten(2).unflatten(1, (3, HEADS, HEAD_WIDTH)).unbind(1)
    return q, k, v


class Level(nn.Module):
    """Holds one resolution's two residual blocks, its attention, and the way to the next."""

    def __init__(self, first: ResBlock, second: ResBlock, resample: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.second = second
        self.resample = resample
        self.attention = LinearAttention(second.block2.proj.out_channels)


class ResidualUNet(nn.Module):
    """Predicts the residual (B, 3, H, W) from [x_t, x_in] (B, 6, H, W) and times (B,).

    Both images lie in [-1, 1]; a time is 1000 a_t, a real number in [0, 1000]. Sides that are no
    multiple of 2^levels are padded by reflection at the bottom and right, and cropped at the end.

    Args:
        dim: channels d of the finest level, a multiple of 8.
        dim_mults: channels of each level's exit as multiples of d.

    Raises:
        ValueError: if the widths are impossible.
    """

    def __init__(self, dim: int, dim_mults: Sequence[int]) -> None:
        super().__init__()
        if dim < NORM_GROUPS or dim % NORM_GROUPS or not dim_mults or min(dim_mults) < 1:
            raise ValueError(
                f"dim is {dim} and dim_mults {list(dim_mults)}: normalisation needs groups of"
                f" {NORM_GROUPS}, so give a multiple of {NORM_GROUPS} and at least one multiple of"
                " 1 or more"
            )
        self.dim, self.dim_mults = dim, tuple(dim_mults)
        time = 4 * dim
        widths = [dim, *(dim * mult for mult in dim_mults)]
        steps = list(zip(widths[:-1], widths[1:], strict=True))
        last = len(steps) - 1
        self.init_conv = nn.Conv2d(3 * IMAGES, dim, 7, padding=3)
        self.time = TimeEmbedding(dim)
        self.downs = module_list(
            Level(
                ResBlock(fine, fine, time),
                ResBlock(fine, fine, time),
                nn.Conv2d(fine, coarse, 3, padding=1)
                if index == last
                else nn.Conv2d(fine, coarse, 4, stride=2, padding=1),
            )
            for index, (fine, coarse) in enumerate(steps)
        )
        self.mid_block1 = ResBlock(widths[-1], widths[-1], time)
        self.mid_attention = FullAttention(widths[-1])
        self.mid_block2 = ResBlock(widths[-1], widths[-1], time)
        self.ups = module_list(
            Level(
                ResBlock(coarse + fine, coarse, time),
                ResBlock(coarse + fine, coarse, time),
                nn.Conv2d(coarse, fine, 3, padding=1),
            )
            for fine, coarse in reversed(steps)
        )
        self.final_block = ResBlock(2 * dim, dim, time)
        self.final_conv = nn.Conv2d(dim, 3, 1)

    @property
    def multiple(self) -> int:
        """Sides are padded to multiples of this number of pixels."""
        return 2 ** len(self.dim_mults)

    def forward(self, images_B6HW: Tensor, tau_B: Tensor) -> Tensor:
        height, width = images_B6HW.shape[-2:]
        x = pad_to_multiple(images_B6HW, self.multiple)
        time_Bt = self.time(tau_B)
        x = enter = self.init_conv(x)
        stored = []
        for level in self.downs:
            x = level.first(x, time_Bt)
            stored.append(x)
            x = level.attention(level.second(x, time_Bt))
            stored.append(x)
            x = level.resample(x)
        x = self.mid_attention(self.mid_block1(x, time_Bt))
        x = self.mid_block2(x, time_Bt)
        for index, level in enumerate(self.ups):
            x = level.first(torch.cat([x, stored.pop()], dim=1), time_Bt)
            x = level.attention(level.second(torch.cat([x, stored.pop()], dim=1), time_Bt))
            if index < len(self.ups) - 1:
                x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = level.resample(x)
        x = self.final_block(torch.cat([x, enter], dim=1), time_Bt)
        return self.final_conv(x)[..., :height, :width]
