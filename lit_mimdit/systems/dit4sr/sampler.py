"""Restores with DiT4SR: noise levels, Euler steps, guidance, tiles, captions and picture sizes.

Source: arXiv 2503.23580 and the published test script's defaults. Latents are (B, C, H, W).
"""

import math
import re
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lit_mimdit.inference.guidance import guide
from lit_mimdit.inference.sampler import OnStep
from lit_mimdit.models.condition import Prompt
from lit_mimdit.systems.dit4sr.objective import STEPS, shifted

SAMPLING_STEPS, GUIDANCE = 40, 8.0
TILE, OVERLAP = 64, 24  # latents; larger ones are cut
UPSCALE, PROCESS_SIZE = 4, 512  # pixels
# Sentences of a caption that hold any of these say how sharp the picture is, and are left out.
UNWANTED = (
    "focus",
    "focal",
    "prominent",
    "close-up",
    "black and white",
    "blur",
    "depth",
    "dense",
    "locate",
    "position",
)

Network = Callable[[Tensor, Tensor, Tensor, Prompt], Tensor]  # (x, t (B,), z_lq, prompt) -> v
Velocity = Callable[[Tensor, float], Tensor]


# t_j from 1000 to 1000 shifted(1/1000) in n even steps, sigma_j = shifted(t_j / 1000), then 0
def sigmas(steps: int = SAMPLING_STEPS) -> Tensor:
    """Returns the noise levels of a restoration, (steps + 1,) in float64: shifted twice, as
    diffusers' scheduler does in the published code.
    """
    if steps < 1:
        raise ValueError(f"{steps} sampling steps: at least 1 is needed; the paper takes 40")
    last = shifted(torch.tensor(1 / STEPS, dtype=torch.float64)).item()
    levels = shifted(torch.linspace(1.0, last, steps, dtype=torch.float64))
    return torch.cat([levels, levels.new_zeros(1)])


# x <- x + (sigma' - sigma) v
def trajectory(
    velocity: Velocity, x_T: Tensor, levels: Tensor, on_step: OnStep | None = None
) -> Iterator[Tensor]:
    """Yields the state after each Euler step; the last one is the restored latent.

    Args:
        velocity: of a state and its time in [0, 1].
        x_T: standard normal noise.
        levels: of `sigmas`.
        on_step: sees the state after each step, and may replace it or stop.
    """
    x = x_T
    for step, (now, after) in enumerate(pairwise(levels.tolist())):
        x = x + (after - now) * velocity(x, now).to(x)
        changed = x if on_step is None else on_step(step, now, x)
        x = x if changed is None else changed
        yield x
        if changed is None:
            return


# v = v_neg + g (v_pos - v_neg)
def guided(
    network: Network,
    z_lq: Tensor,
    told: Prompt,
    negative: Prompt,
    guidance: float = GUIDANCE,
    tile: int = TILE,
    overlap: int = OVERLAP,
    z_lq_negative: Tensor | None = None,
    longest: int | None = None,
) -> Velocity:
    """Returns the velocity under guidance; large latents run in tiles. Guidance 1 takes one pass.

    Args:
        z_lq: LQ latent for both prompts. The published code draws it twice, so results vary.
        longest: see `tiling`.
        z_lq_negative: another one for the negative prompt, only to repeat published numbers.
    """
    other = z_lq if z_lq_negative is None else z_lq_negative

    def velocity(x: Tensor, t: float) -> Tensor:
        towards = tiled(network, x, t, z_lq, told, tile, overlap, longest)
        if guidance == 1.0:
            return towards
        away = tiled(network, x, t, other, negative, tile, overlap, longest)
        return guide(towards, away, guidance)

    return velocity


# w(y, x) = g((y - n/2)/n) g((x - (n-1)/2)/n),  g(r) = exp(-r^2/0.02)/sqrt(0.02 pi)
def tile_weights(side: int) -> Tensor:
    """Returns the weight of each place of a tile, (side, side) in float64.

    Rows are centred half a place lower than columns, as published.
    """
    place = torch.arange(side, dtype=torch.float64)

    def bell(centre: float) -> Tensor:
        return torch.exp(-(((place - centre) / side) ** 2) / 0.02) / math.sqrt(0.02 * math.pi)

    return bell(side / 2)[:, None] * bell((side - 1) / 2)[None]


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Returns the first places of tiles that cover `length`: multiples of tile - overlap, the last
    at the border.
    """
    if overlap >= tile:
        raise ValueError(f"tiles of {tile} cannot overlap by {overlap}: choose a smaller overlap")
    starts = list(range(0, length - tile, tile - overlap))
    return [*starts, length - tile]


def tiling(
    height: int, width: int, tile: int, overlap: int, longest: int | None = None
) -> tuple[int, list[int], list[int]] | None:
    """Returns side, first rows and first columns of the tiles of a latent; None: it stays whole.

    Up to tile^2 places a latent stays whole, as published, unless a side is above `longest`, the
    most that the network has positions for. Tiles of a latent narrower than `tile` are as wide as
    it and share less, an even number of places.
    """
    if height * width <= tile**2 and (longest is None or max(height, width) <= longest):
        return None
    side = min(tile, height, width)
    shared = min(overlap, side - 2) if side < tile else overlap
    return side, tile_starts(height, side, shared), tile_starts(width, side, shared)


def tiled(
    network: Network,
    x: Tensor,
    t: float,
    z_lq: Tensor,
    prompt: Prompt,
    tile: int,
    overlap: int,
    longest: int | None = None,
) -> Tensor:
    """Returns the velocity of a whole latent; a large one is a weighted mean over tiles.

    Every tile sees the whole text. `tiling` says which latents are large.
    """
    times = torch.full((len(x),), t, device=x.device, dtype=torch.float64).to(x.dtype)
    height, width = x.shape[-2:]
    cut = tiling(height, width, tile, overlap, longest)
    if cut is None:
        return network(x, times, z_lq, prompt)
    side, rows, columns = cut
    weight = tile_weights(side).to(x)
    total, weights = torch.zeros_like(x), torch.zeros_like(x)
    for top in rows:
        for left in columns:
            part = ..., slice(top, top + side), slice(left, left + side)
            total[part] += weight * network(x[part], times, z_lq[part], prompt).to(x)
            weights[part] += weight
    return total / weights


# y = clamp(x/2 + 1/2, 0, 1)
def picture(decoded: Tensor) -> Tensor:
    """Returns a decoded image, in [-1, 1], as RGB in [0, 1]."""
    return (decoded / 2 + 0.5).clamp(0.0, 1.0)


def filter_caption(caption: str) -> str:
    """Returns a caption without the sentences that hold a word of UNWANTED."""
    sentences = re.split(r"(?<=[.!?])\s+", caption)

    def wanted(sentence: str) -> bool:
        return not any(word in sentence.lower() for word in UNWANTED)

    return " ".join(filter(wanted, sentences))


def told(caption: str, added: str = "") -> str:
    """Returns what the text encoders read: the filtered caption, and the added text behind it."""
    return " ".join(filter(None, (filter_caption(caption), added)))


def _raised(size: tuple[int, int], least: int) -> tuple[int, int]:
    """Width and height, brought up so that no side is below `least` pixels."""
    scale = max(1.0, least / min(size))
    return int(scale * size[0]), int(scale * size[1])


def prepared_size(
    size: tuple[int, int], upscale: int = UPSCALE, process: int = PROCESS_SIZE
) -> tuple[int, int]:
    """Returns width and height of what `prepare` makes of a picture of this width and height."""
    width, height = (side * upscale // 8 * 8 for side in _raised(size, process // upscale))
    return width, height


def prepare(image: Image.Image, upscale: int = UPSCALE, process: int = PROCESS_SIZE) -> Image.Image:
    """Returns the degraded picture as the network sees it: enlarged, sides multiples of 8.

    A side below process / upscale pixels is brought up to it first. All resizing is bicubic.
    """
    size = prepared_size(image.size, upscale, process)
    width, height = _raised(image.size, process // upscale)
    for step in ((width, height), (width * upscale, height * upscale), size):
        if step != image.size:
            image = image.resize(step, Image.Resampling.BICUBIC)
    return image


def enlarge(lq: Tensor, upscale: int, process: int = PROCESS_SIZE) -> Tensor:
    """Returns degraded images (B, 3, H, W) in [0, 1] as `prepare` leaves them: of 8 bits."""
    return _tensors([prepare(image, upscale, process) for image in _pictures(lq)]).to(lq)


def resize(images: Tensor, height: int, width: int) -> Tensor:
    """Returns restored images (B, 3, H, W) in [0, 1] in another size, bicubic and of 8 bits."""
    if images.shape[-2:] == (height, width):
        return images
    size, how = (width, height), Image.Resampling.BICUBIC
    return _tensors([image.resize(size, how) for image in _pictures(images)]).to(images)


def _pictures(images: Tensor) -> list[Image.Image]:
    bytes_ = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(np.ascontiguousarray(image)) for image in bytes_]


def _tensors(pictures: list[Image.Image]) -> Tensor:
    stacked = np.stack([np.asarray(picture) for picture in pictures])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 255
