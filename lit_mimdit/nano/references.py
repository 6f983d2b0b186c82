"""Makes reference images for nano.

The prior learns to read an image in its context, as editing transformers do.

With `base: reference` (models/network.py) a condition token of the branch is made from the hidden
states of another latent of the same crop. The prior sees these while it is trained, as keys and
values. The reference is the crop itself, a thumbnail of it, a noisy copy, or some of its tokens
only. So the prior must tell what it can trust and complete the rest. No degradation of the branch's
training data (haze, rain, darkness, defocus, JPEG) is among them.

B = batch, N = h * w tokens.
"""

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from lit_mimdit.models.latents import encode

THUMBNAILS = (2, 4)  # reductions of an axis
NOISE = 0.6  # largest standard deviation, of latents with unit variance
KEPT = 0.3  # smallest share of the tokens


def thumbnail(images: Tensor, factor: int) -> Tensor:
    """Returns images (B, 3, H, W) reduced `factor` times by averaging and enlarged again
    (bilinear).
    """
    return F.interpolate(
        F.avg_pool2d(images, factor), scale_factor=factor, mode="bilinear", align_corners=False
    )


def reference_latents(vae: AutoencoderKL, images: Tensor, generator: torch.Generator) -> Tensor:
    """Returns latents (B, C, h, w) of references for images (B, 3, H, W) in [0, 1].

    Half of the images are thumbnails (one of THUMBNAILS each). Half of the latents have additive
    noise of a standard deviation uniform in [0, NOISE]. So a quarter is the image itself.
    """
    batch = len(images)
    kind = torch.randint(2 * len(THUMBNAILS), (batch,), generator=generator)
    noisy = torch.rand(batch, generator=generator) < 0.5
    sigma = torch.rand(batch, generator=generator) * NOISE * noisy
    sources = images.clone()
    for which, factor in enumerate(THUMBNAILS):
        rows = (kind == which).nonzero().squeeze(-1).to(images.device)
        if len(rows):
            sources[rows] = thumbnail(images[rows], factor)
    latents = encode(vae, sources)
    noise = torch.randn(latents.shape, generator=generator)
    return latents + (sigma[:, None, None, None] * noise).to(latents)


def kept_tokens(tokens: int, generator: torch.Generator) -> Tensor:
    """Returns ids of the reference tokens a batch sees.

    It sees all of them; half of the batches see a random share of at least KEPT.
    """
    share = KEPT + (1 - KEPT) * torch.rand((), generator=generator).item()
    if torch.rand((), generator=generator).item() < 0.5:
        return torch.arange(tokens)
    return torch.randperm(tokens, generator=generator)[: max(1, round(share * tokens))]
