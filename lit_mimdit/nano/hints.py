"""Captions for nano: colour hints in the text stream, so that the prior learns to read its context
as SD3.5 does from captions.

A hint says where a token of the image is and what colours it has. Only some tokens of an image are
told of. `context` of NanoMMDiT says how many images come with hints (15%); 25% come with the empty
prompt, so it stays a prompt like any other.

B = batch, N = h * w tokens, T = hints an image.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

FREQUENCIES = 8
COLOURS = 12  # 2 x 2 mean colours of the token's pixels
WIDTH = 64


def positions(grid: tuple[int, int]) -> Tensor:
    """Returns sines and cosines of each token's place, counted from the image's middle, (N, 32).

    Wavelengths go from 4 to 512 tokens.
    """
    waves = 2.0 * math.pi / (4.0 * 2.0 ** torch.arange(FREQUENCIES))
    rows, cols = (torch.arange(n) - (n - 1) / 2 for n in grid)
    place = torch.stack(torch.meshgrid(rows, cols, indexing="ij"), -1).flatten(0, 1)  # (N, 2)
    angles = place[..., None] * waves
    return torch.cat([angles.sin(), angles.cos()], -1).flatten(1)


def hints(images: Tensor, token: int, share: float, generator: torch.Generator) -> Tensor:
    """Returns embeddings (B, T, 64) of hints about a random `share` of the tokens of images (B, 3,
    H, W) in [-1, 1].

    Args:
        images: photographs; both sides multiples of `token`.
        token: pixels a token covers along an axis.
        share: of the tokens, in (0, 1].
        generator: draws which.
    """
    grid = images.shape[-2] // token, images.shape[-1] // token
    cells = F.avg_pool2d(images, token // 2)  # (B, 3, 2h, 2w)
    colours = F.pixel_unshuffle(cells, 2).flatten(2).transpose(1, 2)  # (B, N, 12)
    batch, tokens, _ = colours.shape
    place = positions(grid).to(colours).expand(batch, -1, -1)
    known = torch.cat([colours, torch.ones_like(colours[..., :1]), place], -1)
    known = F.pad(known, (0, WIDTH - known.shape[-1]))
    chosen = (
        torch.rand(batch, tokens, generator=generator)
        .topk(max(1, round(share * tokens)), dim=1)
        .indices.to(known.device)
    )
    return known.gather(1, chosen[..., None].expand(-1, -1, WIDTH))
