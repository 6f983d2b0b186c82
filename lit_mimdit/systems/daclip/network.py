"""The U-Net of DA-CLIP, which predicts the noise of a mean-reverting SDE.

Source: Luo et al., arXiv 2310.01018; the variant for images in the wild: arXiv 2404.09732. Modules
carry the names of the published tensors, so an official file loads without renaming.

B = batch, C = channels, H x W = pixels, d = width of the time embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import Transformer2DModel
from torch import Tensor, nn

from lit_mimdit.models.module_list import module_list
from lit_mimdit.models.padding import pad_to_multiple
from lit_mimdit.models.residual_unet import HEAD_WIDTH, HEADS, gain_norm, linear_attention, waves

TRANSFORMER_LEVEL = 3  # the standard variant has spatial transformers from this level on


@dataclass(frozen=True)
class UNetConfig:
    """The sizes of the U-Net, under the names of the official constructor.

    Args:
        in_nc: channels of the degraded image.
        out_nc: channels of the restored image.
        nf: channels at full resolution.
        ch_mult: factors of `nf` at the output of each level.
        context_dim: width of the two CLIP embeddings.
        use_degra_context: whether the degradation embedding modulates the time embedding.
        use_image_context: whether the content embedding enters, by cross-attention.
        scale: 1, or 0.5 for the wild variant, which works at half the resolution inside.
    """

    in_nc: int = 3
    out_nc: int = 3
    nf: int = 64
    ch_mult: Sequence[int] = (1, 2, 4, 8)
    context_dim: int = 512
    use_degra_context: bool = True
    use_image_context: bool = True
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.scale not in (1.0, 0.5):
            raise ValueError(
                f"scale is {self.scale}; the U-Net works at the full or at half the resolution: "
                "set 1.0 or 0.5 (wild variant)"
            )


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel with a gain and no bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return gain_norm(x, self.g)


class Convolution(nn.Module):
    """A 3x3 convolution without bias under the published name `proj`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


# (s, h) = W silu(T) + b;  y = silu(conv(x) (1 + s) + h);  y = silu(conv(y));  out = y + r(x)
class ResBlock(nn.Module):
    """Two convolutions, the first modulated by the time embedding, around a skip connection."""

    def __init__(self, inputs: int, outputs: int, time: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(time, 2 * outputs))
        self.block1, self.block2 = Convolution(inputs, outputs), Convolution(outputs, outputs)
        same = inputs == outputs
        self.res_conv = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.mlp(time)[:, :, None, None].chunk(2, dim=1)
        y = F.silu(self.block1(x) * (1 + scale) + shift)
        return F.silu(self.block2(y)) + self.res_conv(x)


class LinearAttention(nn.Module):
    """Attention whose cost grows linearly with the pixels: 4 heads of 32 channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = HEADS * HEAD_WIDTH
        self.to_qkv = nn.Conv2d(width, 3 * inner, 1, bias=False)
        self.to_out = nn.Sequential(nn.Conv2d(inner, width, 1), ChannelNorm(width))

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.to_out(linear_attention(self.to_qkv(x)))


class SpatialTransformer(Transformer2DModel):
    """The transformer of latent diffusion over pixels; its only context token is the content
    embedding.
    """

    def __init__(self, width: int, context: int) -> None:
        heads = width // HEAD_WIDTH
        super().__init__(heads, HEAD_WIDTH, width, cross_attention_dim=context)

    # as LinearAttention is called, and no other transformer of diffusers
    def forward(  # type: ignore[override]
        self, x: Tensor, context: Tensor | None
    ) -> Tensor:
        if context is None:
            raise ValueError(
                "the U-Net reads the content embedding of CLIP, and none is given; pass e_img, or"
                " build the network with use_image_context=False"
            )
        (out,) = super().forward(x, encoder_hidden_states=context[:, None], return_dict=False)
        return out


class Normalised(nn.Module):
    """Attention behind a channel norm."""

    def __init__(self, width: int, attention: nn.Module) -> None:
        super().__init__()
        self.norm, self.fn = ChannelNorm(width), attention

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.fn(self.norm(x), context)


# A(x) = x + F(N(x))
class AttentionStage(nn.Module):
    """Attention with a skip connection.

    It is linear, or a spatial transformer that reads an embedding of width `context`.
    """

    def __init__(self, width: int, context: int | None) -> None:
        super().__init__()
        inner = LinearAttention(width) if context is None else SpatialTransformer(width, context)
        self.fn = Normalised(width, inner)

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        return x + self.fn(x, context)


class SinusoidalTime(nn.Module):
    """Sines and cosines of the step number."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, t: Tensor) -> Tensor:
        exact = t if t.dtype == torch.float64 else t.float()  # half precision spoils sines
        return waves(exact, self.width).to(t.dtype)


class UNet(nn.Module):
    """Predicts the noise in x_t from x_t, the degraded image, the step and two CLIP embeddings.

    Raises:
        ValueError: an embedding is missing.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        nf, time = config.nf, 4 * config.nf
        widths = [nf] + [nf * factor for factor in config.ch_mult]
        levels = len(config.ch_mult)
        self.multiple = 2**levels

        self.init_conv = nn.Conv2d(2 * config.in_nc, nf, 7, padding=3, bias=False)
        if config.scale != 1:
            self.downsample = nn.Conv2d(nf, nf, 4, 2, 1)
            self.upsample = nn.Sequential(
                nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(nf, nf, 3, padding=1)
            )
        self.time_mlp = nn.Sequential(
            SinusoidalTime(nf), nn.Linear(nf, time), nn.GELU(), nn.Linear(time, time)
        )
        if config.use_degra_context:
            self.text_mlp = nn.Sequential(
                nn.Linear(config.context_dim, time), nn.SiLU(), nn.Linear(time, time)
            )
            self.prompt = nn.Parameter(torch.rand(1, time))
            self.prompt_mlp = nn.Linear(time, time)

        context = config.context_dim if config.use_image_context else None
        first = TRANSFORMER_LEVEL if config.scale == 1 else levels - 1
        downs: list[nn.ModuleList] = []
        ups: list[nn.ModuleList] = []
        for level, (narrow, wide) in enumerate(zip(widths, widths[1:], strict=False)):
            inner = context if level >= first else None
            last, outermost = level == levels - 1, level == 0
            down = (
                nn.Conv2d(narrow, wide, 3, padding=1, bias=False)
                if last
                else nn.Conv2d(narrow, wide, 4, 2, 1)
            )
            downs.append(
                nn.ModuleList(
                    [
                        ResBlock(narrow, narrow, time),
                        ResBlock(narrow, narrow, time),
                        AttentionStage(narrow, inner),
                        down,
                    ]
                )
            )
            up = (
                nn.Conv2d(wide, narrow, 3, padding=1, bias=False)
                if outermost
                else nn.Sequential(
                    nn.Upsample(scale_factor=2, mode="nearest"),
                    nn.Conv2d(wide, narrow, 3, padding=1),
                )
            )
            ups.insert(
                0,
                nn.ModuleList(
                    [
                        ResBlock(wide + narrow, wide, time),
                        ResBlock(wide + narrow, wide, time),
                        AttentionStage(wide, inner),
                        up,
                    ]
                ),
            )
        self.downs, self.ups = module_list(downs), module_list(ups)
        self.mid_block1 = ResBlock(widths[-1], widths[-1], time)
        self.mid_attn = AttentionStage(widths[-1], context)
        self.mid_block2 = ResBlock(widths[-1], widths[-1], time)
        self.final_res_block = ResBlock(2 * nf, nf, time)
        self.final_conv = nn.Conv2d(nf, config.out_nc, 3, padding=1)

    # T <- T + P (softmax(MLP(e_deg)) * p) + b
    def _time(self, t: Tensor, degradation: Tensor | None) -> Tensor:
        time = self.time_mlp(t)
        if self.config.use_degra_context and degradation is not None:
            weights = self.text_mlp(degradation).softmax(dim=1)
            time = time + self.prompt_mlp(weights * self.prompt)
        return time

    def forward(
        self,
        x_t: Tensor,
        mu: Tensor,
        t: Tensor,
        degradation: Tensor | None = None,
        content: Tensor | None = None,
    ) -> Tensor:
        """Returns the noise in `x_t` (B, 3, H, W), for any H and W.

        Args:
            mu: the degraded image (B, 3, H, W), RGB in [0, 1].
            t: step number (B,), in 1..T.
            degradation: embedding of the degradation (B, context_dim), not normalised; None leaves
                the prompt out.
            content: embedding of the clean content (B, context_dim), not normalised.
        """
        height, width = x_t.shape[-2:]
        x = pad_to_multiple(torch.cat([x_t - mu, mu], dim=1), self.multiple)
        full = x = self.init_conv(x)
        if self.config.scale != 1:
            x = self.downsample(x)
        time = self._time(t.to(x.dtype), degradation)

        skips = []
        for first, second, attention, resample in self.downs:
            x = first(x, time)
            skips.append(x)
            x = attention(second(x, time), content)
            skips.append(x)
            x = resample(x)
        x = self.mid_block2(self.mid_attn(self.mid_block1(x, time), content), time)
        for first, second, attention, resample in self.ups:
            x = first(torch.cat([x, skips.pop()], dim=1), time)
            x = attention(second(torch.cat([x, skips.pop()], dim=1), time), content)
            x = resample(x)
        if self.config.scale != 1:
            x = self.upsample(x)
        x = self.final_conv(self.final_res_block(torch.cat([x, full], dim=1), time))
        return x[..., :height, :width]
