"""Sizes of a backbone without its weights: what the dry run and the full-size benchmark build.

Stable Diffusion 3.5 medium (2,243.17 M parameters) and large (8,056.63 M) are known, so neither
needs the hub. Their sizes are in geometries/*.json, from the releases' own transformer/config.json
and vae/config.json. Any other folder or hub id says it itself.
"""

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from safetensors import safe_open
from torch import nn

from lit_mimdit.models.backbone import Backbone, Identity
from lit_mimdit.models.condition import Prompt
from lit_mimdit.models.folder import locate, unavailable

TEXT_TOKENS = (
    333  # 77 of CLIP and 256 of T5: what diffusers' StableDiffusion3Pipeline makes of every prompt
)
KNOWN = ("stabilityai/stable-diffusion-3.5-medium", "stabilityai/stable-diffusion-3.5-large")


@dataclass(frozen=True)
class Geometry:
    """Arguments of the two models, and how many text tokens a prompt has.

    origin: where they were read.
    """

    transformer: dict[str, Any]
    vae: dict[str, Any]
    text_tokens: int
    origin: str


def read_geometry(source: str) -> Geometry:
    """Returns the geometry of a backbone, shipped or from the configuration files of a folder or
    the hub.

    Raises ValueError if it cannot be had.
    """
    if source in KNOWN and not Path(source).is_dir():
        shipped = files("lit_mimdit.models") / "geometries" / f"{source.split('/')[-1]}.json"
        return Geometry(
            **json.loads(shipped.read_text(encoding="utf-8")), origin="comes with the package"
        )
    where = locate(source)
    try:
        transformer = SD3Transformer2DModel.load_config(where, subfolder="transformer")
        vae = AutoencoderKL.load_config(where, subfolder="vae")
    except OSError as error:
        raise unavailable(source, error) from error
    tokens, prompt = TEXT_TOKENS, Path(where) / "null_prompt.safetensors"
    if prompt.is_file():
        with safe_open(prompt, "pt") as file:
            tokens = file.get_slice("embeds").get_shape()[1]
    return Geometry(_plain(transformer), _plain(vae), tokens, f"{where}/*/config.json")


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if not key.startswith("_")}


def meta_backbone(
    source: str, geometry: Geometry, dtype: torch.dtype, quantize: str | None = None
) -> Backbone:
    """Returns a backbone of these sizes on the meta device: it has shapes and no values.

    Its layers are those of a backbone that is not quantized; its identity says `quantize`.
    """
    with torch.device("meta"):
        transformer, vae = (
            SD3Transformer2DModel(**geometry.transformer),
            AutoencoderKL(**geometry.vae),
        )
        for model in (transformer, vae):
            nn.Module.to(
                model, dtype
            )  # diffusers' own warns that it cannot know what was in 32 bits
        sizes = transformer.config
        prompt = Prompt(
            torch.empty(1, geometry.text_tokens, sizes.joint_attention_dim, dtype=dtype),
            torch.empty(1, sizes.pooled_projection_dim, dtype=dtype),
        )
    identity = Identity(source, "", "", str(dtype).removeprefix("torch."), quantize)
    return Backbone(
        transformer,
        vae.requires_grad_(False).eval(),
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        prompt,
        identity,
        source,
    )
