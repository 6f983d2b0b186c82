"""TransWeather's network: a pyramid of transformers, learned weather queries, and a tail.

Source: "TransWeather: Transformer-based Restoration of Images Degraded by Adverse Weather
Conditions" (CVPR 2022).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_mimdit.models.module_list import module_list
from lit_mimdit.systems.sizes import demand_multiple
from lit_mimdit.systems.transweather.blocks import (
    BLOCK_EPS,
    Block,
    PatchEmbedding,
    initialise,
    to_map,
    to_tokens,
)

REDUCTIONS = (4, 2, 2, 1)
BLOCKS = 2  # of a level of the encoder
DECODER_BLOCKS = 3
DROP = 0.1  # rate of DropPath at the last block


class Level(nn.Module):
    """One level of the encoder: a patch embedding, blocks, and a norm.

    drops: rates of DropPath, one a block.
    """

    def __init__(
        self,
        embedding: PatchEmbedding,
        channels: int,
        heads: int,
        reduction: int,
        drops: Sequence[float],
    ):
        super().__init__()
        self.embed = embedding
        self.blocks = nn.ModuleList(Block(channels, heads, 2, reduction, drop) for drop in drops)
        self.norm = nn.LayerNorm(channels, BLOCK_EPS)

    def finish(self, t: Tensor, size: tuple[int, int]) -> Tensor:
        """Returns the map that blocks and norm make of embedded tokens."""
        for block in self.blocks:
            t = block(t, size)
        return to_map(self.norm(t), size)


class Encoder(nn.Module):
    """The pyramid. Beside levels 1 to 3 runs a path on smaller patches ("intra-patch").

        a_l = embed(x_{l-1}) + m_{l-1}        m_l = Level(a_l) of the small patches
        x_l = blocks and norm of a_l

    a_1 is embedded from the image with stride 4, the others with stride 2. Every m starts from a
    before its blocks, and adds to the embedding of the next level.

    widths: channels C_1 ... C_4. heads: of the attention of each level; the small patches have
    those of levels 1, 2, 2, as published.
    """

    def __init__(self, widths: Sequence[int], heads: Sequence[int]):
        super().__init__()
        last = BLOCKS * len(widths) - 1
        rates = [DROP * i / last for i in range(last + 1)]
        inputs = (3, *widths)
        self.levels = module_list(
            Level(
                PatchEmbedding(inputs[i], width, *((7, 4) if i == 0 else (3, 2))),
                width,
                heads[i],
                REDUCTIONS[i],
                rates[BLOCKS * i : BLOCKS * (i + 1)],
            )
            for i, width in enumerate(widths)
        )
        self.small = module_list(
            Level(
                PatchEmbedding(widths[i], widths[i + 1], 3, 2),
                widths[i + 1],
                heads[min(i, 1)],
                REDUCTIONS[i],
                rates[BLOCKS * i : BLOCKS * i + 1],
            )
            for i in range(len(widths) - 1)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Returns x_1 ... x_4, at 1/4, 1/8, 1/16 and 1/32 of the resolution (rounded up)."""
        maps: list[Tensor] = []
        extra = None
        for i, level in enumerate(self.levels):
            tokens, size = level.embed(x)
            if extra is not None:
                tokens = tokens + to_tokens(extra)
            before = to_map(tokens, size)
            x = level.finish(tokens, size)
            maps.append(x)
            if i < len(self.small):
                extra = self.small[i].finish(*self.small[i].embed(before))
        return maps


class Decoder(nn.Module):
    """Blocks whose queries are learned, at half the resolution of the last map.

    channels: C_4. heads: of the attention. queries: learned tokens a block.
    """

    def __init__(self, channels: int, heads: int, queries: int):
        super().__init__()
        # the published rates are the start of a longer ramp: 0, 1/150, 2/150
        rates = [DROP * i / 15 for i in range(DECODER_BLOCKS)]
        self.embed = PatchEmbedding(channels, channels, 3, 2)
        self.blocks = nn.ModuleList(Block(channels, heads, 4, 1, drop, queries) for drop in rates)
        self.norm = nn.LayerNorm(channels, BLOCK_EPS)

    def forward(self, x: Tensor) -> Tensor:
        tokens, size = self.embed(x)
        for block in self.blocks:
            tokens = block(tokens, size)
        return to_map(self.norm(tokens), size)


class ResidualBlock(nn.Module):
    """u + 0.1 * conv3x3(ReLU(conv3x3(u)))."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, u: Tensor) -> Tensor:
        return u + 0.1 * self.conv2(torch.relu(self.conv1(u)))


class Tail(nn.Module):
    """Upsamples to full resolution and adds the maps of the encoder on the way.

    widths: C_1 ... C_4. narrow: channels at 1/2 and full resolution. decoder: whether it starts
    from the decoder's map; without, it starts from x_4.
    """

    def __init__(self, widths: Sequence[int], narrow: Sequence[int], decoder: bool):
        super().__init__()

        def double(channels: int, out: int) -> nn.ConvTranspose2d:
            return nn.ConvTranspose2d(channels, out, 4, 2, 1)

        c1, c2, c3, c4 = widths
        half, full = narrow
        self.up32 = double(c4, c4) if decoder else None
        self.up16 = double(c4, c3)
        self.dense4 = ResidualBlock(c3)
        self.up8 = double(c3, c2)
        self.dense3 = ResidualBlock(c2)
        self.up4 = double(c2, c1)
        self.dense2 = ResidualBlock(c1)
        self.up2 = double(c1, half)
        self.dense1 = ResidualBlock(half)
        self.up1 = double(half, full)

    def forward(self, maps: Sequence[Tensor], decoded: Tensor | None) -> Tensor:
        x1, x2, x3, x4 = maps
        u = x4
        if self.up32 is not None:
            # a doubled map is one row or column larger than one whose size was rounded up
            u = _cut(self.up32(decoded), x4) + x4
        u = self.dense4(_cut(self.up16(u), x3)) + x3
        u = self.dense3(self.up8(u)) + x2
        u = self.dense2(self.up4(u)) + x1
        return self.up1(self.dense1(self.up2(u)))


def _cut(u: Tensor, like: Tensor) -> Tensor:
    return u[..., : like.shape[-2], : like.shape[-1]]


class TransWeatherNetwork(nn.Module):
    """Restores an image with one network for all kinds of weather.

    embed_dims: widths C_1 ... C_4. tail: channels of the tail at 1/2 and full resolution.
    enc_heads: heads of the encoder's levels. dec_heads, queries: of the decoder. decoder: without
    it, the network is the published `Transweather_base`.
    The defaults are the published configuration, with 37,755,411 parameters that act.
    """

    def __init__(
        self,
        embed_dims: Sequence[int] = (64, 128, 320, 512),
        tail: Sequence[int] = (16, 8),
        enc_heads: Sequence[int] = (1, 2, 4, 4),
        dec_heads: int = 8,
        queries: int = 48,
        decoder: bool = True,
    ):
        super().__init__()
        self.sizes: dict[str, Any] = {  # what builds it again
            "embed_dims": tuple(embed_dims),
            "tail": tuple(tail),
            "enc_heads": tuple(enc_heads),
            "dec_heads": dec_heads,
            "queries": queries,
            "decoder": decoder,
        }
        self.encoder = Encoder(embed_dims, enc_heads)
        self.decoder = Decoder(embed_dims[3], dec_heads, queries) if decoder else None
        self.encoder.apply(initialise)
        if self.decoder is not None:
            self.decoder.apply(initialise)
        self.tail = Tail(embed_dims, tail, decoder)
        self.clean = nn.Conv2d(tail[1], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the restored image, (B, 3, H, W), in (-1, 1); it is trained towards [0, 1].

        x: (B, 3, H, W), RGB in [-1, 1]. ValueError unless H and W are multiples of 16, at least 48.
        """
        demand_multiple(x, 16, "TransWeather", least=48)
        maps = self.encoder(x)
        decoded = None if self.decoder is None else self.decoder(maps[3])
        return torch.tanh(self.clean(self.tail(maps, decoded)))
