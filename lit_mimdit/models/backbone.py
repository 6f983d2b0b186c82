"""A frozen backbone is loaded from a folder in SD3.5's format.

It is the embedded nano, a local diffusers folder, or a hub id.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from lit_mimdit.models.condition import Prompt
from lit_mimdit.models.folder import NANO, locate, nano_folder, unavailable
from lit_mimdit.models.prompts import empty_prompt
from lit_mimdit.models.quantize import (
    GGUF,
    NONE,
    checked,
    keep_layout,
    load_gguf,
    plain_weight,
    quantizer,
)

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel

M = TypeVar("M")
__all__ = ["NANO", "Backbone", "Identity", "identify", "load_backbone", "load_vae", "nano_folder"]


@dataclass(frozen=True)
class Identity:
    """The facts that a branch remembers of the backbone it was trained on.

    Args:
        name: name as the configuration gave it.
        config: hash of the transformer's configuration.
        weights: hash of the transformer's output projection, which tells two backbones of one
            geometry apart.
        dtype: precision that the frozen weights were kept in, and are in again to restore.
        quantize: how they were quantized, or `null`; see models/quantize.py.
    """

    name: str
    config: str
    weights: str
    dtype: str = "float32"
    quantize: str | None = None

    def plain(self) -> dict[str, Any]:
        """Returns the values by name; without `quantize` where nothing is quantized."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def shown_quantize(self) -> str | None:
        """Returns the quantization without the folder of a GGUF file: that is nobody's business."""
        if self.quantize is None or not self.quantize.startswith(GGUF):
            return self.quantize
        return GGUF + Path(self.quantize.removeprefix(GGUF)).name

    def require(self, other: "Identity", where: str) -> None:
        """Raises ValueError if `other`, which `where` was trained on, is another backbone."""
        if self.config != other.config:
            raise ValueError(
                f"{where}: trained on backbone {other.name!r}, which has another geometry than"
                f" {self.name!r}; give it as model.backbone, or restore's --backbone"
            )
        known = self.weights and other.weights  # a GGUF file may hold the projection in 4 bits
        if known and self.weights != other.weights:
            raise ValueError(
                f"{where}: trained on other weights of a backbone like {self.name!r}"
                f" ({other.name!r}); use those it was trained on"
            )

    def change(self, other: "Identity", where: str) -> str | None:
        """Returns a line if `other`, which `where` was trained on, was quantized otherwise."""
        if self.quantize == other.quantize:
            return None
        return (
            f"{where}: trained on a backbone with backbone_quantize {other.quantize or NONE}, and"
            f" this one has {self.quantize or NONE}: results differ slightly"
        )


@dataclass
class Backbone:
    """A frozen transformer with what belongs to it.

    prompt: embeddings of the empty prompt. where: what diffusers' from_pretrained takes for it.
    """

    transformer: "SD3Transformer2DModel"
    vae: "AutoencoderKL"
    scheduler: "FlowMatchEulerDiscreteScheduler"
    prompt: Prompt
    identity: Identity
    where: str


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def weights_hash(module: nn.Module, beside: str = "") -> str:
    """Returns 16 digits that tell a module's weights apart, the same in bfloat16 or more.

    Args:
        module: all of its parameters and buffers count, by name.
        beside: what else counts.
    """
    return tensors_hash(module.state_dict(), beside)


def tensors_hash(tensors: Mapping[str, torch.Tensor], beside: str = "") -> str:
    """Returns 16 digits that tell named tensors apart, the same in bfloat16 or more."""
    digest = hashlib.sha256(beside.encode())
    for name, tensor in sorted(tensors.items()):
        kept = tensor.detach().cpu().bfloat16().contiguous()
        digest.update(name.encode() + kept.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]


def identify(
    name: str, transformer: "SD3Transformer2DModel", quantize: str | None = None
) -> Identity:
    """Returns the identity of a loaded transformer.

    Its hashes do not depend on the dtype of loading, nor on the quantization. That of the weights
    is empty where a GGUF file holds the output projection in few bits.
    """
    config = {k: v for k, v in sorted(transformer.config.items()) if not k.startswith("_")}
    config.pop("quantization_config", None)
    projection, dtype = transformer.proj_out, transformer.dtype
    weights = ""
    if not hasattr(projection.weight, "quant_type"):
        kept = plain_weight(projection).cpu().bfloat16()
        weights = _hash(kept.view(torch.int16).numpy().tobytes())
    about = _hash(json.dumps(config, default=list).encode())
    return Identity(name, about, weights, str(dtype).removeprefix("torch."), quantize)


def _promised(folder: Path) -> list[str]:
    """Weights that the index of a sharded model names and its files lack.

    diffusers believes the index, and leaves them random.
    """
    promised: dict[Path, set[str]] = {}
    for index in folder.glob("*.safetensors.index.json"):
        for name, file in json.loads(index.read_text())["weight_map"].items():
            promised.setdefault(folder / file, set()).add(name)
    lacking: set[str] = set()
    for file, names in promised.items():
        with safe_open(file, "pt") as shard:
            lacking |= names - set(shard.keys())
    return sorted(lacking)


def _read(
    source: str,
    where: str,
    dtype: torch.dtype,
    model_class: type[M],
    subfolder: str,
    quantize: str | None = None,
) -> M:
    """A frozen model of the folder, from safetensors only: one file, or shards with an index."""
    kind: Any = model_class  # diffusers does not type how it loads
    options: dict[str, Any] = {"torch_dtype": dtype, "use_safetensors": True}
    options["output_loading_info"] = True
    if quantize is not None:
        options["quantization_config"] = quantizer(quantize, dtype)
    try:
        class_name = kind.load_config(where, subfolder=subfolder).get("_class_name", kind.__name__)
        if class_name != kind.__name__:
            raise ValueError(
                f"model.backbone: {source!r}, {subfolder}: is a {class_name}; give Stable Diffusion"
                f" 3.5, whose is {kind.__name__}"
            )
        model, info = kind.from_pretrained(where, subfolder=subfolder, **options)
    except (
        OSError,
        SafetensorError,
        ValueError,
    ) as error:  # ValueError: weights of other shapes than config.json says
        raise unavailable(source, error) from error
    info["missing_keys"] = set(info["missing_keys"]) | set(_promised(Path(where) / subfolder))
    for kept in (
        "missing_keys",
        "unexpected_keys",
        "mismatched_keys",
    ):  # diffusers warns, fills what is missing at random, and goes on
        if info[kept]:
            names = sorted(str(name) for name in info[kept])
            raise ValueError(
                f"model.backbone: {source!r}, {subfolder}: the weights do not fit config.json,"
                f" {len(names)} {kept.replace('_', ' ')} such as {names[0]}; download it again"
            )
    keep_layout(model)
    return model.requires_grad_(False).eval()


def load_vae(source: str, dtype: torch.dtype = torch.float32) -> "AutoencoderKL":
    """Returns the frozen VAE of a backbone, without the rest."""
    from diffusers import AutoencoderKL

    return _read(source, locate(source), dtype, AutoencoderKL, "vae")


def load_backbone(
    source: str,
    dtype: torch.dtype = torch.float32,
    quantize: str | None = None,
    texts: Sequence[str] = (),
) -> Backbone:
    """Returns a frozen backbone; its weights are read from safetensors only, or a GGUF file.

    Args:
        source: "nano", a local folder, or a hub id such as
            stabilityai/stable-diffusion-3.5-medium.
        dtype: precision of the weights, and of the computation where they are quantized.
        quantize: how the transformer's weights are kept, see models/quantize.py; its text encoder
            likewise. None: in `dtype`.
        texts: prompts that will be asked for; text encoders that are loaded embed them at once.

    Raises:
        ValueError: it cannot be had, with the remedy.
    """
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel

    where = locate(source)
    quantize = checked(quantize)
    if quantize is not None and quantize.startswith(GGUF):
        transformer = load_gguf(where, quantize, dtype).requires_grad_(False).eval()
    else:
        transformer = _read(source, where, dtype, SD3Transformer2DModel, "transformer", quantize)
    vae = _read(source, where, dtype, AutoencoderKL, "vae")
    try:
        scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(where, subfolder="scheduler")
    except OSError as error:
        raise unavailable(source, error) from error
    if transformer.config.in_channels != vae.config.latent_channels:
        raise ValueError(
            f"model.backbone: {source!r} has a transformer for {transformer.config.in_channels}"
            f" latent channels and a VAE with {vae.config.latent_channels}: they do not belong"
            " together; download it whole again"
        )
    prompt = empty_prompt(source, where, transformer, texts)
    identity = identify(source, transformer, quantize)
    return Backbone(transformer, vae, scheduler, prompt, identity, where)
