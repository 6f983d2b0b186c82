"""`python -m lit_mimdit data latents`: what the VAE makes of shards of tiles, stored, so that
training skips the VAE.

A latent depends on all of the image that the VAE sees and on its orientation. So latents are those
of whole tiles, which training uses as its crops. There is one for each orientation that the
augmentation draws.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save

from lit_mimdit.data.image_io import to_tensor
from lit_mimdit.data.pairs import SYMMETRIES, Augment, augment_array
from lit_mimdit.data.shards.derive import Made, derive
from lit_mimdit.data.shards.manifest import Manifest
from lit_mimdit.data.shards.source import ShardSource
from lit_mimdit.data.shards.writer import Member
from lit_mimdit.data.tiles import Region
from lit_mimdit.inference.device import choose_device
from lit_mimdit.models.backbone import load_vae, weights_hash
from lit_mimdit.models.latents import downsampling, posterior


def latents(
    source: Path,
    destination: Path,
    *,
    backbone: str = "nano",
    backbone_dtype: Literal["float32", "bfloat16"] = "float32",
    augment: Augment = "none",
    dtype: Literal["float32", "float16"] = "float16",
    device: str = "auto",
) -> None:
    """Encode shards of tiles with a VAE and write the latents as shards, for training that skips
    the VAE.

    Cut the tiles at the size of the training crop first: `data shard --tile 512`. Training then
    takes the same tiles in the same order as from the shards of images. A latent is stored as mode
    and log-variance. The same command goes on where it was stopped.

    Args:
        source: folder of shards of images with tiles
        destination: folder for the shards of latents. It is made if it does not exist
        backbone: `nano`, a diffusers folder of SD3.5, or a hub id. Its VAE encodes
        backbone_dtype: precision that the VAE computes in. Best is the training's
            `model.init_args.backbone_dtype`
        augment: the training's augmentation. Each of its orientations is stored: `none` takes 1,
            `flip` 2, `dihedral` 8 times the room
        dtype: precision of the stored latents
        device: where it runs: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`
    """
    images = ShardSource(str(source))
    if images.latents or images.tile is None:
        what = "latents already" if images.latents else "whole images"
        raise ValueError(
            f"{source} holds {what}: give shards of tiles, written with `python -m lit_mimdit data"
            " shard --tile CROP`"
        )
    place = choose_device(device)
    vae = load_vae(backbone, getattr(torch, backbone_dtype)).to(place)
    factor = downsampling(vae)
    if images.tile % (2 * factor):
        raise ValueError(
            f"{source} holds tiles of {images.tile} pixels, and latents need a multiple of"
            f" {2 * factor}: cut other tiles with `python -m lit_mimdit data shard --tile`"
        )
    settings = {
        "tile": images.tile,
        "augment": augment,
        "dtype": dtype,
        "backbone": backbone,
        "vae": vae_identity(vae),
    }
    kept = getattr(torch, dtype)

    def encoded(index: int) -> Made:
        height, width, tiles = images.tiles(index)
        return height, width, list(_encoded(vae, tiles, images.tile, augment, kept))

    derive(images, destination, settings, encoded, "encoding")


def _encoded(
    vae: AutoencoderKL,
    tiles: list[tuple[Region, np.ndarray, np.ndarray]],
    side: int,
    augment: Augment,
    dtype: torch.dtype,
) -> Iterator[tuple[Region, list[Member]]]:
    for box, lq, gt in tiles:
        if (box.height, box.width) != (side, side):
            continue  # of an image smaller than a tile: smaller than the crop, too
        turns = SYMMETRIES[augment] // 2 if augment == "dihedral" else 1
        orientations = [
            (bool(number // turns), number % turns) for number in range(SYMMETRIES[augment])
        ]
        members = []
        for number, symmetry in enumerate(orientations):
            pair = torch.stack([to_tensor(augment_array(image, *symmetry)) for image in (lq, gt)])
            mode, logvar = (part.to(dtype).cpu() for part in posterior(vae, pair.to(vae.device)))
            tensors = {"lq": mode[0], "gt": mode[1], "lq_logvar": logvar[0], "gt_logvar": logvar[1]}
            members.append(
                (
                    f"v{number}.safetensors",
                    save({name: tensor.contiguous() for name, tensor in tensors.items()}),
                )
            )
        yield box, members


def vae_identity(vae: AutoencoderKL) -> str:
    """Returns the hash of a VAE's encoder and of what its latents are scaled by.

    It is the same whichever precision the VAE was loaded in (bfloat16 or more).
    """
    return weights_hash(vae.encoder, repr((vae.config.shift_factor, vae.config.scaling_factor)))


def require_same_vae(vae: AutoencoderKL, data: Any) -> None:
    """Raises ValueError if the training data are latents of another VAE than this."""
    manifest: Manifest | None = getattr(data, "latents_of", None)
    if manifest is not None and manifest.settings["vae"] != vae_identity(vae):
        raise ValueError(
            f"data.train holds latents of the VAE of {manifest.settings['backbone']!r}, and"
            " model.backbone has another: write them again with `python -m lit_mimdit data latents"
            " --backbone ...`"
        )
