"""Images to latents and back.

Images are (B, 3, H, W) in [0, 1]; latents (B, C, H/f, W/f), shifted and scaled to unit variance.
"""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, AutoencoderTiny

    Vae = AutoencoderKL | AutoencoderTiny


def downsampling(vae: "Vae") -> int:
    """Returns how many pixels a latent element covers along one axis (f): 8 for SD3.5."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def _laid_out(x: Tensor) -> Tensor:
    """Returns what goes into a VAE, in the layout that takes 0.7 of the time on a CPU.

    Convolutions follow their input's layout. The weights stay as they lie, since DeepSpeed
    broadcasts no others and fake tensors cannot be exchanged.
    """
    return x.to(memory_format=torch.channels_last)


def _encoded(vae: "Vae", image: Tensor) -> Any:
    """Returns what the VAE answers, in diffusers' own form."""
    assert image.is_floating_point(), (
        "bytes of a batch become floats before they come here: data.pairs.with_floats"
    )
    return vae.encode(_laid_out((image * 2.0 - 1.0).to(vae.dtype)))


# z = (mode - shift) scale
def _scaled(vae: "Vae", mode: Tensor) -> Tensor:
    return (mode.float() - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor


@torch.no_grad()
def encode(vae: "Vae", image: Tensor) -> Tensor:
    """Returns the latent of the posterior's mode, not a sample: one image has one latent.
    float32.
    """
    answer = _encoded(vae, image)
    # a tiny autoencoder has no posterior
    mode = answer.latents if hasattr(answer, "latents") else answer.latent_dist.mode()
    return _scaled(vae, mode)


# ln var z = ln var + 2 ln scale
@torch.no_grad()
def posterior(vae: "AutoencoderKL", image: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the mode, which is `encode`'s latent, and the log-variance of the latents of images.
    float32.
    """
    distribution = _encoded(vae, image).latent_dist
    spread = distribution.logvar.float() + 2 * math.log(vae.config.scaling_factor)
    return _scaled(vae, distribution.mode()), spread


@torch.no_grad()
def decode(vae: "Vae", latent: Tensor) -> Tensor:
    """Returns the image in [0, 1] (clamped), float32."""
    return decoded(vae, latent).clamp(0.0, 1.0)


def decoded(vae: "Vae", latent: Tensor) -> Tensor:
    """Returns the image, float32, about [0, 1] and not clamped: differentiable in the latent."""
    raw = latent / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
    return vae.decode(_laid_out(raw.to(vae.dtype))).sample.float() * 0.5 + 0.5


def require_finite(latent: Tensor, of: str) -> Tensor:
    """`latent`; ValueError if any of it is infinite or no number."""
    if not latent.isfinite().all():
        share = 1.0 - latent.isfinite().float().mean().item()
        raise ValueError(
            f"{100 * share:.3g}% of the latent of {of} is not finite: the image holds values that"
            " are no numbers, the branch is damaged, or the precision is too low; try float32"
        )
    return latent
