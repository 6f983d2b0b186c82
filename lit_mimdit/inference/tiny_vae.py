"""A tiny autoencoder in the place of the backbone's VAE: less memory and time, less fine detail.

It was trained by others to share the latents of the VAE (diffusers' AutoencoderTiny, such as
madebyollin/taesd3 for Stable Diffusion 3.5).
"""

from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from lit_mimdit.inference.restorer import Restorer
from lit_mimdit.models.backbone import weights_hash
from lit_mimdit.models.latents import downsampling

if TYPE_CHECKING:
    from diffusers import AutoencoderTiny

CLASS = "AutoencoderTiny"
EXAMPLE = "madebyollin/taesd3"


def load_tiny_vae(source: str, dtype: torch.dtype = torch.float32) -> "AutoencoderTiny":
    """Returns the frozen autoencoder of a folder or a hub id, from safetensors only.

    ValueError if it cannot be had or is of another class.
    """
    from diffusers import AutoencoderTiny

    try:
        config: Any = AutoencoderTiny.load_config(source)
        kind = config.get("_class_name")
        if kind != CLASS:
            raise ValueError(f"its class is {kind} and not {CLASS}")
        loaded: Any = AutoencoderTiny.from_pretrained(
            source, torch_dtype=dtype, use_safetensors=True, output_loading_info=True
        )
        vae, info = loaded
        for kept in ("missing_keys", "unexpected_keys"):  # diffusers fills them at random
            if info[kept]:
                raise ValueError(f"it has {kept.replace('_', ' ')} such as {sorted(info[kept])[0]}")
    except (OSError, ValueError, SafetensorError) as error:
        reason = " ".join((str(error).strip() or type(error).__name__).splitlines()[0].split())
        raise ValueError(
            f"vae {source!r}: could not be loaded ({reason}); give the folder or hub id of an"
            f" {CLASS}, such as {EXAMPLE} for Stable Diffusion 3.5"
        ) from error
    return vae.requires_grad_(False).eval()


def with_tiny_vae(restorer: Any, source: str, where: str) -> Restorer:
    """Returns a restorer of the same parts that encodes and decodes with a tiny autoencoder.

    Args:
        restorer: what restores.
        source: folder or hub id.
        where: names the restorer's file in errors.

    Raises:
        ValueError: the system has no VAE, or the autoencoder has other latents.
    """
    if not isinstance(restorer, Restorer):
        raise ValueError(
            f"{where}: --vae {source} is given, and this system has no VAE to replace; leave it out"
        )
    # diffusers' types are unknown to a type checker
    own: Any = restorer.vae
    vae: Any = load_tiny_vae(source, own.dtype)
    sizes = [(one.config.latent_channels, downsampling(one)) for one in (vae, own)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"vae {source!r}: has latents of {sizes[0][0]} channels, one for {sizes[0][1]} px; the"
            f" backbone's have {sizes[1][0]}, one for {sizes[1][1]} px; give one made for it"
        )
    about = {"name": source, "weights": weights_hash(vae)}
    return restorer.with_vae(vae.to(restorer.device), about)
