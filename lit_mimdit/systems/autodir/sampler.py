"""Restores with AutoDIR: one degradation after the other, each by Euler-ancestral steps.

Source: arXiv 2310.10123 and its released test script; the sampler: Karras et al., arXiv 2206.00364,
and k-diffusion. Latents are (1, 4, h, w), images (1, 3, H, W) in [-1, 1].
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lit_mimdit.systems.autodir.network import CATEGORIES, AutoDIRNetwork, tokens
from lit_mimdit.systems.autodir.objective import STEPS, sigmas_table

SAMPLING_STEPS = 100  # of the script; its README takes 200
ITERATIONS = 7  # at most
STOP, KEEP_DECODED = "no", "low resolution"

Denoiser = Callable[[Tensor, float], Tensor]


# t_k = 999 (1 - k/(n-1)), log sigma interpolated between its neighbours; then 0
def sampling_sigmas(steps: int = SAMPLING_STEPS) -> Tensor:
    """Returns the falling noise levels of a restoration, (steps + 1,) in float64."""
    if steps < 1:
        raise ValueError(f"{steps} sampling steps: at least 1 is needed; the script takes 100")
    t = torch.linspace(STEPS - 1, 0, steps, dtype=torch.float64)
    logs = sigmas_table().log()
    low = t.floor().long()
    high = t.ceil().long()
    share = t - low
    levels = ((1 - share) * logs[low] + share * logs[high]).exp()
    return torch.cat([levels, levels.new_zeros(1)])


# t with log sigma(t) = log sigma, linear between neighbours
def network_time(sigma: Tensor) -> Tensor:
    """Returns the fractional network time of noise levels (B,), 0 to 999."""
    logs = sigmas_table()
    logs = logs.log().to(sigma.device)
    value = sigma.to(torch.float64).log()
    low = (torch.searchsorted(logs, value, right=True) - 1).clamp(0, STEPS - 2)
    share = (logs[low] - value) / (logs[low] - logs[low + 1])
    return low + share.clamp(0, 1)


# D = x - s eps(x / sqrt(s^2 + 1), z, t, c)
def denoised(
    network: AutoDIRNetwork, x: Tensor, sigma: float, z: Tensor, context: Tensor
) -> Tensor:
    """Returns the clean latents (B, 4, h, w) that the U-Net sees in `x`."""
    level = torch.full((len(x),), sigma, dtype=torch.float64, device=x.device)
    scaled = x / (sigma**2 + 1) ** 0.5
    return x - sigma * network.noise(scaled, z, network_time(level).to(x.dtype), context)


# D = D_0n + w_text (D_zc - D_zn) + w_image (D_zn - D_0n)     (InstructPix2Pix, arXiv 2211.09800)
def denoiser(
    network: AutoDIRNetwork,
    z: Tensor,
    context: Tensor,
    null: Tensor,
    text_guidance: float = 1.0,
    image_guidance: float = 1.0,
) -> Denoiser:
    """Returns the guided denoiser of one image; without guidance it makes one pass, not three.

    Args:
        z: latent of the degraded image.
        context: text features (1, 77, D).
        null: those of the empty sentence.
    """

    def plain(x: Tensor, sigma: float) -> Tensor:
        return denoised(network, x, sigma, z, context)

    def guided(x: Tensor, sigma: float) -> Tensor:
        latents = torch.cat([z, z, torch.zeros_like(z)])
        told, blind, free = denoised(
            network, x.repeat(3, 1, 1, 1), sigma, latents, torch.cat([context, null, null])
        ).chunk(3)
        return free + text_guidance * (told - blind) + image_guidance * (blind - free)

    return plain if text_guidance == image_guidance == 1 else guided


# up = min(s', sqrt(s'^2 (s^2 - s'^2)/s^2)), down = sqrt(s'^2 - up^2)
# x <- x + (x - D)/s (down - s) + up noise
def trajectory(
    denoise: Denoiser, x: Tensor, levels: Tensor, noises: Iterator[Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields (state before a step, denoised latent) for each step, and last the result twice.

    Args:
        x: first state, the largest noise level times standard normal noise.
        levels: of `sampling_sigmas`.
        noises: standard normal, one for each step but the last.
    """
    for now, after in zip(levels.tolist(), levels[1:].tolist(), strict=False):
        clean = denoise(x, now)
        yield x, clean
        up = min(after, (after**2 * (now**2 - after**2) / now**2) ** 0.5)
        down = (after**2 - up**2) ** 0.5
        x = x + (x - clean) / now * (down - now)
        if after > 0:
            x = x + up * next(noises)
    yield x, x


def seeded(
    seed: int, shape: Sequence[int], device: torch.device | str = "cpu"
) -> tuple[Tensor, Iterator[Tensor]]:
    """Returns the first noise and the noise of the steps, float32; every iteration has the same."""
    generator = torch.Generator().manual_seed(seed)

    def draw() -> Iterator[Tensor]:
        while True:
            yield torch.randn(tuple(shape), generator=generator).to(device)

    draws = draw()
    return next(draws), draws


@dataclass(frozen=True)
class Iteration:
    """The findings and results of one iteration.

    Attributes:
        image: what it began with.
        left: categories that were left.
        probabilities: theirs, (1, len(left)); None with a user's sentence.
        chosen: the category, or None with a user's sentence.
        context: text features (1, 77, D).
        z, states, cleans, decoded, corrected: latent of the image, states and denoised latents of
            the sampler, image before and after the correction. They are None once "no" is chosen.
    """

    image: Tensor
    left: tuple[str, ...]
    probabilities: Tensor | None
    chosen: str | None
    context: Tensor
    z: Tensor | None = None
    states: Tensor | None = None
    cleans: Tensor | None = None
    decoded: Tensor | None = None
    corrected: Tensor | None = None

    @property
    def result(self) -> Tensor:
        """The image that the next iteration begins with."""
        if self.decoded is None:
            return self.image
        if self.chosen == KEEP_DECODED:
            return self.decoded
        assert self.corrected is not None, "what is decoded is corrected"
        return self.corrected


Noises = Callable[[int], tuple[Tensor, Iterator[Tensor]]]
Tokens = Callable[[str | None], tuple[Tensor, Tensor]]


def restore(
    network: AutoDIRNetwork,
    image: Tensor,
    noises: Noises,
    steps: int = SAMPLING_STEPS,
    text_guidance: float = 1.0,
    image_guidance: float = 1.0,
    sentence: Tensor | None = None,
    tokenize: Tokens = tokens,
) -> Iterator[Iteration]:
    """Yields the iterations of one image, until "no" wins or 7 are done.

    Args:
        image: (1, 3, H, W) in [-1, 1], sides multiples of 64.
        noises: iteration number -> first noise and the steps' noise, as `seeded` returns them.
        sentence: token ids (1, 77) of a user's instruction: one iteration without assessment.
        tokenize: ids and mask of a category; another vocabulary than CLIP's only in tests.

    The list of categories is new for every image; the script lets it shrink over all of them.
    """
    if len(image) != 1:
        raise ValueError(
            f"{len(image)} images at once, and AutoDIR decides for one at a time: restore them one"
            " by one"
        )
    left, levels = CATEGORIES, sampling_sigmas(steps)
    null = network.hidden(tokenize(None)[0].to(image.device)[None])
    for number in range(1 if sentence is not None else ITERATIONS):
        probabilities, chosen = None, None
        if sentence is not None:
            context = network.hidden(sentence)
        else:
            ids, mask = zip(*(tokenize(category) for category in left), strict=True)
            ids = torch.stack(ids).to(image.device)
            mask = torch.stack(mask).to(image.device)
            probabilities, _, hidden = network.assess(image, ids, mask)
            context = torch.einsum("bs,std->btd", probabilities, hidden)
            chosen = left[int(probabilities.argmax())]
        if chosen == STOP:
            yield Iteration(image, left, probabilities, chosen, context)
            return
        z = network.encode(image)
        first, draws = noises(number)
        denoise = denoiser(network, z, context, null, text_guidance, image_guidance)
        path = list(trajectory(denoise, levels[0].item() * first.to(z), levels, draws))
        decoded = network.decode(path[-1][0])
        done = Iteration(
            image,
            left,
            probabilities,
            chosen,
            context,
            z,
            torch.stack([state for state, _ in path]),
            torch.stack([clean for _, clean in path[:-1]]),
            decoded,
            network.correction(image, decoded),
        )
        yield done
        image, left = done.result, tuple(category for category in left if category != chosen)


# u8 = trunc(255 clamp((y + 1)/2, 0, 1))
def to_bytes(image: Tensor) -> np.ndarray:
    """Returns one image (1, 3, H, W) as uint8 RGB (H, W, 3): truncated, not rounded."""
    (planes,) = ((image + 1) / 2).clamp(0, 1)
    return (255 * planes).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
