"""Restormer's network (CVPR 2022), also in DiffIR's form, where a vector steers every block.

Legend: B images, C channels of the finest level, H and W pixels, p length of the steering vector.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_mimdit.models.restormer import Downsample, RestormerBlock, Upsample

MULTIPLE = 8  # three levels of halving


class Stage(nn.ModuleList):
    """Applies blocks of one width in turn, each with the same steering vector."""

    def forward(self, u: Tensor, z: Tensor | None) -> Tensor:
        for block in self:
            u = block(u, z)
        return u


class Restormer(nn.Module):
    """Restores images (B, 3, H, W) in [0, 1]; the result is not clamped.

        f1 = E1(conv3(x)), f2 = E2(down f1), f3 = E3(down f2), l = latent(down f3)
        d3 = D3(conv1 [up l, f3]), d2 = D2(conv1 [up d3, f2]), d1 = D1 [up d2, f1]
        result = conv3(refine(d1)) + x

    H and W are multiples of 8.

    Args:
        inp_channels, out_channels: of the images.
        dim: C; the levels have C, 2 C, 4 C and 8 C channels.
        num_blocks: blocks of the four levels.
        num_refinement_blocks: blocks after the finest level.
        heads: attention heads of the four levels.
        ffn_expansion_factor: hidden channels of a feed-forward part as a multiple of its width.
        bias: whether the convolutions of the blocks, the two 1 x 1 between the levels, and the last
            one have a bias.
        norm_bias: form of the norms, True for "WithBias" and False for "BiasFree".
        prior: p, for DiffIR's form.

    Raises:
        ValueError: if the sizes fit no network, or an image's sides are no multiples of 8.
    """

    def __init__(
        self,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        num_refinement_blocks: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        norm_bias: bool = True,
        prior: int | None = None,
    ) -> None:
        super().__init__()
        self.sizes: dict[str, Any] = {  # what builds it again
            "dim": dim,
            "num_blocks": tuple(num_blocks),
            "num_refinement_blocks": num_refinement_blocks,
            "heads": tuple(heads),
            "ffn_expansion_factor": ffn_expansion_factor,
            "bias": bias,
            "norm_bias": norm_bias,
        }
        widths = [dim, 2 * dim, 4 * dim, 8 * dim]
        if len(num_blocks) != 4 or len(heads) != 4:
            raise ValueError(
                f"num_blocks is {list(num_blocks)} and heads {list(heads)}: the network has four"
                " levels, so give four numbers of each"
            )
        if any(width % count for width, count in zip(widths, heads, strict=True)):
            raise ValueError(
                f"heads is {list(heads)} and the levels have {widths} channels: a level's heads"
                " share its channels, so give divisors"
            )

        def stage(width: int, count: int, head: int) -> Stage:
            return Stage(
                RestormerBlock(width, head, ffn_expansion_factor, bias, norm_bias, prior)
                for _ in range(count)
            )

        c1, c2, c3, c4 = widths
        n1, n2, n3, n4 = num_blocks
        h1, h2, h3, h4 = heads
        self.patch_embed = nn.Conv2d(inp_channels, c1, 3, padding=1, bias=False)
        self.encoder_level1 = stage(c1, n1, h1)
        self.down1_2 = Downsample(c1)
        self.encoder_level2 = stage(c2, n2, h2)
        self.down2_3 = Downsample(c2)
        self.encoder_level3 = stage(c3, n3, h3)
        self.down3_4 = Downsample(c3)
        self.latent = stage(c4, n4, h4)
        self.up4_3 = Upsample(c4)
        self.reduce_chan_level3 = nn.Conv2d(c4, c3, 1, bias=bias)
        self.decoder_level3 = stage(c3, n3, h3)
        self.up3_2 = Upsample(c3)
        self.reduce_chan_level2 = nn.Conv2d(c3, c2, 1, bias=bias)
        self.decoder_level2 = stage(c2, n2, h2)
        self.up2_1 = Upsample(c2)
        self.decoder_level1 = stage(c2, n1, h1)
        self.refinement = stage(c2, num_refinement_blocks, h1)
        self.output = nn.Conv2d(c2, out_channels, 3, padding=1, bias=bias)

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """x: (B, inp_channels, H, W). z: (B, p), given exactly where the network has a prior."""
        height, width = x.shape[-2:]
        if height % MULTIPLE or width % MULTIPLE:
            raise ValueError(
                f"an image has {height} x {width} pixels: the network halves it three times, so"
                f" pad it to multiples of {MULTIPLE}"
            )
        f1 = self.encoder_level1(self.patch_embed(x), z)
        f2 = self.encoder_level2(self.down1_2(f1), z)
        f3 = self.encoder_level3(self.down2_3(f2), z)
        latent = self.latent(self.down3_4(f3), z)
        d3 = self.reduce_chan_level3(torch.cat([self.up4_3(latent), f3], dim=1))
        d3 = self.decoder_level3(d3, z)
        d2 = self.reduce_chan_level2(torch.cat([self.up3_2(d3), f2], dim=1))
        d2 = self.decoder_level2(d2, z)
        d1 = self.decoder_level1(torch.cat([self.up2_1(d2), f1], dim=1), z)
        return self.output(self.refinement(d1, z)) + x
