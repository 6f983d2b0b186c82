"""A tiny autoencoder in the place of the backbone's VAE: less memory and time, less fine detail.

It was trained by others to share the latents of the VAE (diffusers' AutoencoderTiny, such as
madebyollin/taesd3 for Stable Diffusion 3.5).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from lit_mimdit.inference.restorer import Restorer
from lit_mimdit.models.backbone import weights_hash
from lit_mimdit.models.folder import first_line, is_hub_id, not_from_hub
from lit_mimdit.models.latents import downsampling

if TYPE_CHECKING:
    from diffusers import AutoencoderTiny

CLASS = "AutoencoderTiny"
EXAMPLE = "madebyollin/taesd3"


def load_tiny_vae(source: str, dtype: torch.dtype = torch.float32) -> "AutoencoderTiny":
    """Returns the frozen autoencoder of a folder or a hub id, from safetensors only.

    Raises ValueError if it cannot be had or is of another class.
    """
    from diffusers import AutoencoderTiny

    remedy = f"give the folder or hub id of an {CLASS}, such as {EXAMPLE} for Stable Diffusion 3.5"
    where = _located(source, remedy)
    try:
        config: Any = AutoencoderTiny.load_config(where)
        kind = config.get("_class_name")
        if kind != CLASS:
            raise ValueError(f"its class is {kind} and not {CLASS}")
        loaded: Any = AutoencoderTiny.from_pretrained(
            where, torch_dtype=dtype, use_safetensors=True, output_loading_info=True
        )
        vae, info = loaded
        for kept in ("missing_keys", "unexpected_keys"):  # diffusers fills them at random
            if info[kept]:
                raise ValueError(f"it has {kept.replace('_', ' ')} such as {sorted(info[kept])[0]}")
    except (OSError, ValueError, SafetensorError) as error:
        missed = not_from_hub(source, error)
        if missed is not None:
            raise ValueError(f"vae {source!r}: is no folder here; {missed}") from error
        raise ValueError(
            f"vae {source!r}: could not be loaded ({first_line(error)}); {remedy}"
        ) from error
    return vae.requires_grad_(False).eval()


def _located(source: str, remedy: str) -> str:
    """The folder, or the hub id itself; ValueError, before the hub is asked, if it is neither."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ValueError(f"vae {source!r}: the folder holds no config.json; {remedy}")
        return str(folder)
    if folder.exists() or not is_hub_id(source):
        raise ValueError(f"vae {source!r}: there is no such folder; {remedy}")
    return source


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
