"""A complete small Stable Diffusion 3.5 as its release is laid out.

Written by diffusers' own save_pretrained, with made-up weights.
"""

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

CORPUS = [
    "a sharp photograph of a street in the rain",
    "a clean photo of a cat, high quality",
    "haze over green hills, low light",
]
CLIP_SPECIAL, T5_SPECIAL = ["<|startoftext|>", "<|endoftext|>"], ["<pad>", "</s>", "<unk>"]


def _clip_tokenizer(folder: Path, size: int) -> CLIPTokenizer:
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trained.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=size, end_of_word_suffix="</w>", initial_alphabet=alphabet),
    )
    model = json.loads(trained.to_str())["model"]
    tokens = [*sorted(model["vocab"], key=model["vocab"].get), *CLIP_SPECIAL]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(
        json.dumps({token: index for index, token in enumerate(tokens)})
    )
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=77)


def _t5_tokenizer(folder: Path) -> T5TokenizerFast:
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(
        CORPUS, trainers.UnigramTrainer(vocab_size=60, special_tokens=T5_SPECIAL, unk_token="<unk>")
    )
    trained.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    folder.mkdir(parents=True)
    trained.save(str(folder / "tokenizer.json"))
    return T5TokenizerFast.from_pretrained(folder, extra_ids=0, model_max_length=512)


def _clip(tokenizer: CLIPTokenizer, width: int, projection: int) -> CLIPTextModelWithProjection:
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.eos_token_id,
    }
    sizes = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
    }
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        projection_dim=projection,
        max_position_embeddings=77,
        **sizes,
        **special,
    )
    return CLIPTextModelWithProjection(config).eval()


def write_pipeline(
    folder: Path, transformer: SD3Transformer2DModel, vae: AutoencoderKL, workshop: Path
) -> Path:
    """The folder of a whole pipeline; the transformer (joint_attention_dim 32,
    pooled_projection_dim 12) in several shards.
    """
    torch.manual_seed(4)
    first, second, third = (
        _clip_tokenizer(workshop / "1", 600),
        _clip_tokenizer(workshop / "2", 560),
        _t5_tokenizer(workshop / "3"),
    )
    t5 = T5Config(
        vocab_size=len(third),
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    )
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=_clip(first, 8, 5),
        tokenizer=first,
        text_encoder_2=_clip(second, 16, 7),
        tokenizer_2=second,
        text_encoder_3=T5EncoderModel(t5).eval(),
        tokenizer_3=third,
    )
    pipeline.save_pretrained(folder, max_shard_size="20KB")
    return folder
