"""The text encoders of a backbone: which they are, and what they make of a text."""

import gc
import hashlib
import json
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock
from huggingface_hub import try_to_load_from_cache
from lightning_utilities.core.rank_zero import rank_zero_info
from safetensors import SafetensorError
from safetensors.torch import load, save
from tqdm import tqdm

from lit_mimdit.files import write_bytes
from lit_mimdit.models.condition import Prompt
from lit_mimdit.models.folder import unavailable
from lit_mimdit.models.quantize import PACKAGES, encoder_quantizer, keep_layout, quantized_as

if TYPE_CHECKING:
    from diffusers import SD3Transformer2DModel

TOKENS = 256  # of T5: the pipeline's own length
MOST_TOKENS = 512  # of T5: what the pipeline allows
SAMPLES, BLOCK = (
    64,
    1 << 16,
)  # of a large file of weights: this many blocks of this many bytes tell it apart

NULL_PROMPT = (  # of a backbone folder: its empty prompt, for backbones without text encoders
    "null_prompt.safetensors"
)


def encoder_identity(where: str) -> str:
    """Returns the hash of what decides an embedding.

    That is a hub id's commit, or a folder's tokenizers, configurations and text encoders.

    Files up to 4 MiB count whole, larger ones by size and 64 blocks spread over them evenly.
    Reading 11 GB at each start would take longer than embedding the prompt.
    """
    folder, digest = Path(where), hashlib.sha256()
    if folder.parent.name == "snapshots":  # of the hub's cache, without network
        return f"{folder.parents[1].name.removeprefix('models--').replace('--', '/')}@{folder.name}"
    if not folder.is_dir():
        config = try_to_load_from_cache(where, "transformer/config.json")
        assert isinstance(config, str), "the transformer was just loaded from there"
        return f"{where}@{Path(config).parents[1].name}"
    patterns = ("text_encoder*/*", "tokenizer*/*", "model_index.json")
    paths = chain.from_iterable(folder.glob(pattern) for pattern in patterns)
    for path in sorted(path for path in paths if path.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()} {size}\n".encode())
        with open(path, "rb") as file:
            for block in range(SAMPLES if size > SAMPLES * BLOCK else 1):
                if size > SAMPLES * BLOCK:
                    file.seek(block * (size - BLOCK) // (SAMPLES - 1))
                digest.update(file.read(BLOCK if size > SAMPLES * BLOCK else -1))
    return digest.hexdigest()


def read_embedding(path: Path, transformer: "SD3Transformer2DModel") -> Prompt | None:
    """Returns a kept embedding; None if the file is missing, damaged, or for another
    transformer.
    """
    try:
        tensors = load(path.read_bytes())  # not mapped: the file may be replaced
    except (OSError, SafetensorError):
        return None
    sizes = transformer.config
    embeds, pooled = tensors.get("embeds"), tensors.get("pooled")
    if (
        embeds is None
        or pooled is None
        or embeds.ndim != 3
        or embeds.shape[::2] != (1, sizes.joint_attention_dim)
        or pooled.shape != (1, sizes.pooled_projection_dim)
    ):
        return None
    return Prompt(embeds, pooled)


def embed(
    source: str,
    where: str,
    texts: list[str],
    transformer: "SD3Transformer2DModel",
    cache: Path,
    tokens: int = TOKENS,
) -> dict[str, Path]:
    """Returns the file with the embedding of each text, written first where it is missing or
    damaged. `tokens` is the length of T5's part.

    One process of a machine embeds, the others wait for it. ValueError if the backbone has no text
    encoders.
    """
    if Path(where).is_dir() and not (Path(where) / "text_encoder").is_dir():
        text = next((text for text in texts if text), "")
        what = (
            f"the prompt {text!r}"
            if text
            else f"the empty prompt (there is no {NULL_PROMPT} either)"
        )
        raise ValueError(
            f"model.prompt: backbone {source!r} has no text encoders for {what}: leave prompt.text"
            " empty and prompt.captions null, or use a backbone with text encoders"
        )
    key = f"{encoder_identity(where)} {transformer.dtype} {tokens}"
    if (kind := quantized_as(transformer)) in PACKAGES:  # a GGUF file holds no text encoder
        key += f" {kind}"
    files = {
        text: (
            cache
            / "prompts"
            / f"{hashlib.sha256(json.dumps([key, text]).encode()).hexdigest()}.safetensors"
        )
        for text in texts
    }
    lost = [text for text in texts if read_embedding(files[text], transformer) is None]
    if not lost:
        return files
    try:
        (cache / "prompts").mkdir(parents=True, exist_ok=True)
        with FileLock(cache / "prompts" / "lock"):
            lost = [
                text for text in lost if read_embedding(files[text], transformer) is None
            ]  # another process may have been faster
            if lost:
                _embed(source, where, {text: files[text] for text in lost}, transformer, tokens)
    except PermissionError as error:
        raise ValueError(
            f"the cache of prompts {cache} cannot be written: set LIT_MIMDIT_CACHE to a folder"
            " that can"
        ) from error
    return files


def _quantized(transformer: "SD3Transformer2DModel") -> dict[str, Any]:
    """Option of from_pretrained that quantizes the large encoder, T5, as the transformer is."""
    kind = quantized_as(transformer)
    if kind not in PACKAGES:
        return {}
    from diffusers import PipelineQuantizationConfig

    return {
        "quantization_config": PipelineQuantizationConfig(
            quant_mapping={"text_encoder_3": encoder_quantizer(kind, transformer.dtype)}
        )
    }


def _embed(
    source: str,
    where: str,
    files: dict[str, Path],
    transformer: "SD3Transformer2DModel",
    tokens: int,
) -> None:
    damaged = [path.name for path in files.values() if path.exists()]
    if damaged:
        rank_zero_info(
            f"prompts: {len(damaged)} kept embeddings are damaged and computed anew: {damaged[0]}"
        )
    from diffusers import StableDiffusion3Pipeline

    try:
        pipeline = StableDiffusion3Pipeline.from_pretrained(
            where,
            transformer=transformer,
            vae=None,
            torch_dtype=transformer.dtype,
            use_safetensors=True,
            **_quantized(transformer),
        )
    except (OSError, SafetensorError, ValueError) as error:
        raise unavailable(source, error) from error
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoders = [pipeline.text_encoder, pipeline.text_encoder_2, pipeline.text_encoder_3]
    for encoder in encoders:
        if encoder is not None:
            keep_layout(encoder)
            encoder.requires_grad_(False).eval().to(device)
    options = {
        "device": device,
        "do_classifier_free_guidance": False,
        "max_sequence_length": tokens,
    }
    with torch.no_grad():
        for text in tqdm(files, desc="embedding prompts", unit="prompt", disable=len(files) == 1):
            # one at a time: in 16 bits an embedding would depend on its neighbours
            embeds, _, pooled, _ = pipeline.encode_prompt(text, None, None, **options)
            write_bytes(
                files[text],
                save({"embeds": embeds.cpu().contiguous(), "pooled": pooled.cpu().contiguous()}),
            )
            if read_embedding(files[text], transformer) is None:
                files[text].unlink()
                raise ValueError(
                    f"model.backbone: the text encoders of {source!r} give embeddings of"
                    f" {tuple(embeds.shape)} and {tuple(pooled.shape)}, which do not fit its"
                    " transformer: they do not belong together; download it whole again"
                )
    del pipeline, encoders, encoder
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
