"""Loading a frozen backbone: the embedded nano, a local diffusers folder, or a hub id, all in SD3.5's folder format."""

import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from safetensors.torch import load_file

from lit_mimdit.models.network import Prompt

NANO = "nano"


def nano_folder() -> Path:
    """Where the installed package keeps the nano backbone and its branch."""
    return Path(str(files("lit_mimdit") / "weights" / NANO))


@dataclass(frozen=True)
class Identity:
    """What a branch remembers of the backbone it was trained on.

    name: as the configuration gave it. config: hash of the transformer's configuration. weights: hash of its output projection,
    which tells two backbones of one geometry apart.
    """

    name: str
    config: str
    weights: str

    def require(self, other: "Identity", where: str) -> None:
        """ValueError if `other`, which `where` was trained on, is another backbone."""
        if self.config != other.config:
            raise ValueError(
                f"{where}: trained on backbone {other.name!r}, which has another geometry than {self.name!r}; set model.backbone to it"
            )
        if self.weights != other.weights:
            raise ValueError(
                f"{where}: trained on other weights of a backbone like {self.name!r} ({other.name!r}); use those it was trained on"
            )


@dataclass
class Backbone:
    """A frozen transformer with what belongs to it."""

    transformer: SD3Transformer2DModel
    vae: AutoencoderKL
    scheduler: FlowMatchEulerDiscreteScheduler
    prompt: Prompt
    identity: Identity


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def identify(name: str, transformer: SD3Transformer2DModel) -> Identity:
    """Identity of a loaded transformer, the same whichever dtype it was loaded in."""
    config = {k: v for k, v in sorted(transformer.config.items()) if not k.startswith("_")}
    weight = transformer.proj_out.weight.detach().cpu().bfloat16()
    return Identity(name, _hash(json.dumps(config, default=list).encode()), _hash(weight.view(torch.int16).numpy().tobytes()))


def load_backbone(source: str, dtype: torch.dtype = torch.float32) -> Backbone:
    """The backbone named by `source`: "nano", a local folder, or a hub id such as stabilityai/stable-diffusion-3.5-medium.

    Weights are read from safetensors only. ValueError with the remedy if it cannot be had.
    """
    folder = nano_folder() if source == NANO else Path(source)
    where = str(folder) if folder.is_dir() else source
    if source == NANO and not folder.is_dir():
        raise ValueError(f"the package was installed without its weights: {folder} is missing; reinstall lit_mimdit")
    if not folder.is_dir() and (source.count("/") != 1 or source.startswith((".", "/", "~"))):
        raise ValueError(f"model.backbone: there is no folder {source!r}; give a diffusers folder of SD3.5, a hub id (owner/name) or nano")
    try:
        options = {"torch_dtype": dtype, "use_safetensors": True}
        transformer = SD3Transformer2DModel.from_pretrained(where, subfolder="transformer", **options)
        vae = AutoencoderKL.from_pretrained(where, subfolder="vae", **options)
        scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(where, subfolder="scheduler")
    except OSError as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"model.backbone: {source!r} could not be loaded ({reason}). Stable Diffusion 3.5 is gated: accept its licence on the hub, "
            f"then `hf auth login`, or download the folder and give its path"
        ) from error
    if transformer.config.in_channels != vae.config.latent_channels:
        raise ValueError(
            f"model.backbone: {source!r} has a transformer for {transformer.config.in_channels} latent channels and a VAE with "
            f"{vae.config.latent_channels}: they do not belong together"
        )
    identity = identify(source, transformer)
    return Backbone(transformer, vae.requires_grad_(False).eval(), scheduler, empty_prompt(source, where, identity, dtype), identity)


def cache_folder() -> Path:
    """Where prompt embeddings are kept: $LIT_MIMDIT_CACHE or ~/.cache/lit_mimdit."""
    import os

    return Path(os.environ.get("LIT_MIMDIT_CACHE", Path.home() / ".cache" / "lit_mimdit"))


def empty_prompt(source: str, where: str, identity: Identity, dtype: torch.dtype) -> Prompt:
    """Embeddings of the empty prompt: from the folder if it holds them, else computed once by the text encoders and cached on disk."""
    beside = Path(where) / "null_prompt.safetensors"
    if beside.is_file():
        tensors = load_file(beside)
        return Prompt(tensors["embeds"], tensors["pooled"])
    cached = cache_folder() / f"null_prompt_{identity.config}_{identity.weights}.safetensors"
    if not cached.is_file():
        from diffusers import StableDiffusion3Pipeline
        from safetensors.torch import save

        from lit_mimdit.data.image_io import write_bytes

        pipeline = StableDiffusion3Pipeline.from_pretrained(where, transformer=None, vae=None, torch_dtype=dtype, use_safetensors=True)
        with torch.no_grad():
            embeds, _, pooled, _ = pipeline.encode_prompt("", None, None, do_classifier_free_guidance=False)
        cached.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(cached, save({"embeds": embeds.float().cpu().contiguous(), "pooled": pooled.float().cpu().contiguous()}))
    tensors = load_file(cached)
    return Prompt(tensors["embeds"], tensors["pooled"])
