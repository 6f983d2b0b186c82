"""DiffIR's networks: two prior encoders, a denoiser of vectors, and the image network they steer.

Source: "DiffIR: Efficient Diffusion Model for Image Restoration" (ICCV 2023), in its form for
motion deblurring, which keeps the resolution.

Legend: B images, n features of the encoders, p = 4 n length of a prior, T diffusion steps.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_mimdit.models.restormer_network import Restormer

SLOPE = 0.1
CELL = 4  # pixels a side that become channels before an encoder's first convolution
COLOURS = 3


def _leaky() -> nn.LeakyReLU:
    return nn.LeakyReLU(SLOPE)


def _conv(inside: int, outside: int) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, 3, padding=1)


class EncoderBlock(nn.Module):
    """Returns u + conv3(lrelu(conv3(u))), (B, n, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(channels, channels), _leaky(), _conv(channels, channels))

    def forward(self, u: Tensor) -> Tensor:
        return u + self.body(u)


class PriorEncoder(nn.Module):
    """Describes images by vectors (B, p), mostly non-negative: the last activation is leaky.

    Each image is unshuffled by 4, so H and W are multiples of 4. Stage 1 sees the degraded and the
    clean image, in this order; stage 2 sees the degraded one.

    Args:
        images: how many images it sees.
        n_feats: n.
        n_encoder_res: residual blocks.
    """

    def __init__(self, images: int, n_feats: int = 64, n_encoder_res: int = 5) -> None:
        super().__init__()
        prior = 4 * n_feats
        self.unshuffle = nn.PixelUnshuffle(CELL)
        self.convolutions = nn.Sequential(
            _conv(images * COLOURS * CELL**2, n_feats),
            _leaky(),
            *(EncoderBlock(n_feats) for _ in range(n_encoder_res)),
            _conv(n_feats, 2 * n_feats),
            _leaky(),
            _conv(2 * n_feats, 2 * n_feats),
            _leaky(),
            _conv(2 * n_feats, 4 * n_feats),
            _leaky(),
        )
        self.dense = nn.Sequential(
            nn.Linear(prior, prior), _leaky(), nn.Linear(prior, prior), _leaky()
        )

    def forward(self, *images: Tensor) -> Tensor:
        """images: each (B, 3, H, W) in [0, 1]. Returns (B, p)."""
        maps = self.convolutions(torch.cat([self.unshuffle(image) for image in images], dim=1))
        return self.dense(maps.mean(dim=(-2, -1)))


class Denoiser(nn.Module):
    """Predicts the prior z_0 (B, p) from a noisy one, the time and the condition.

    D(z_t, i, c) = mlp([c, i / (10 T), z_t]), dense layers with leaky ReLU and no shortcut.

    Args:
        prior: p.
        n_denoise_res: dense layers after the first.
        timesteps: T.
    """

    def __init__(self, prior: int = 256, n_denoise_res: int = 1, timesteps: int = 4) -> None:
        super().__init__()
        self.max_period = 10 * timesteps
        self.dense = nn.ModuleList(
            nn.Linear(2 * prior + 1 if index == 0 else prior, prior)
            for index in range(n_denoise_res + 1)
        )
        self.activation = _leaky()

    def forward(self, z: Tensor, step: int, condition: Tensor) -> Tensor:
        """z and condition: (B, p). step: i, 0 to T - 1."""
        time = torch.full_like(z[:, :1], step / self.max_period)
        hidden = torch.cat([condition, time, z], dim=1)
        for layer in self.dense:
            hidden = self.activation(layer(hidden))
        return hidden


def image_network(
    dim: int = 48,
    num_blocks: Sequence[int] = (3, 5, 6, 6),
    num_refinement_blocks: int = 4,
    heads: Sequence[int] = (1, 2, 4, 8),
    ffn_expansion_factor: float = 2,
    bias: bool = False,
    LayerNorm_type: str = "WithBias",
    inp_channels: int = 3,
    out_channels: int = 3,
    n_feats: int = 64,
) -> Restormer:
    """Returns G(x, z), a Restormer that a vector of length 4 `n_feats` steers.

    Raises:
        ValueError: if `LayerNorm_type` is neither "WithBias" nor "BiasFree".
    """
    if LayerNorm_type not in ("WithBias", "BiasFree"):
        raise ValueError(
            f"LayerNorm_type is {LayerNorm_type!r}: the norms have two forms, so give WithBias or"
            " BiasFree"
        )
    return Restormer(
        inp_channels,
        out_channels,
        dim,
        num_blocks,
        num_refinement_blocks,
        heads,
        ffn_expansion_factor,
        bias,
        LayerNorm_type == "WithBias",
        prior=4 * n_feats,
    )


class FirstStage(nn.Module):
    """Restores an image whose clean version is known: y = G(x, E(x, clean)).

    Its encoder gives the priors that the second stage learns to find without the clean image.

    Args:
        n_encoder_res, n_feats: sizes of the encoder.
        sizes: the arguments of `image_network`.
    """

    def __init__(self, n_encoder_res: int = 5, n_feats: int = 64, **sizes) -> None:
        super().__init__()
        self.restorer = image_network(n_feats=n_feats, **sizes)
        # what builds it again, beside the restorer's own
        self.sizes = self.restorer.sizes | {"n_encoder_res": n_encoder_res, "n_feats": n_feats}
        self.encoder = PriorEncoder(2, n_feats, n_encoder_res)

    def forward(self, degraded: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the restored images (B, 3, H, W) and the priors (B, p)."""
        prior = self.encoder(degraded, clean)
        return self.restorer(degraded, prior), prior


class SecondStage(nn.Module):
    """Holds what restores without the clean image: G, the condition's encoder and the denoiser.

    `sampler.restore` runs them.

    Args:
        n_encoder_res, n_denoise_res, n_feats: sizes of the encoder and the denoiser.
        timesteps: T.
        linear_start, linear_end: the ends of the schedule.
        sizes: the arguments of `image_network`.
    """

    def __init__(
        self,
        n_encoder_res: int = 5,
        n_denoise_res: int = 1,
        timesteps: int = 4,
        linear_start: float = 0.1,
        linear_end: float = 0.99,
        n_feats: int = 64,
        **sizes,
    ) -> None:
        super().__init__()
        self.timesteps = timesteps
        self.linear_start, self.linear_end = linear_start, linear_end
        self.restorer = image_network(n_feats=n_feats, **sizes)
        self.sizes = self.restorer.sizes | {  # what builds it again
            "n_encoder_res": n_encoder_res,
            "n_feats": n_feats,
            "n_denoise_res": n_denoise_res,
            "timesteps": timesteps,
            "linear_start": linear_start,
            "linear_end": linear_end,
        }
        self.condition = PriorEncoder(1, n_feats, n_encoder_res)
        self.denoiser = Denoiser(4 * n_feats, n_denoise_res, timesteps)
