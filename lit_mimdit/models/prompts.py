"""Prompts for the text stream of the backbone: the empty one, a fixed one, or a caption an image.

A text is embedded once, by the backbone's own encoders in diffusers'
StableDiffusion3Pipeline.encode_prompt. It is kept on disk under a hash of the text and of what
encoded it (encoders.py). The encoders are loaded only for texts that are not there yet. T5-XXL
alone takes 9.5 GB in bfloat16, so they are released before training or restoring begins.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from lit_mimdit.models.captions import read_captions
from lit_mimdit.models.condition import Prompt
from lit_mimdit.models.encoders import NULL_PROMPT, TOKENS, embed, read_embedding

if TYPE_CHECKING:
    from diffusers import SD3Transformer2DModel

STREAM = 0x70726F  # sets the draws of the dropout apart from a sample's other random numbers


@dataclass
class PromptConfig:
    """The text that the backbone is told about the images, in training and in restoring.

    Args:
        text: prompt of every image. `""` is the empty prompt.
        captions: file with a caption for each image: CSV with the columns id and caption, or JSON
            lines such as `{"id": ..., "caption": ...}`. The id is the sample's, as in
            val_scores.csv. A photograph to restore has as its id the path below its folder, without
            its ending. Images that the file does not name get `text`. `null` is without captions.
        dropout: share of the training samples that get the empty prompt instead. sampling.guidance
            needs about 0.1.
    """

    text: str = ""
    captions: str | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise ValueError(
                f"prompt.dropout is {self.dropout}: it is a share of the samples, from 0 to less"
                " than 1"
            )
        if self.dropout and not self.text and self.captions is None:
            raise ValueError(
                f"prompt.dropout is {self.dropout}, but all prompts are empty: set prompt.text or"
                " prompt.captions, or dropout to 0"
            )


def cache_folder() -> Path:
    """Returns where prompt embeddings are kept: $LIT_MIMDIT_CACHE or ~/.cache/lit_mimdit."""
    return Path(
        os.environ.get("LIT_MIMDIT_CACHE", Path.home() / ".cache" / "lit_mimdit")
    ).expanduser()


def texts_of(config: PromptConfig, told: Callable[[str], str] = str) -> list[str]:
    """Returns all prompts of a configuration but the empty one, as the encoders read them."""
    return _texts(told(config.text), _captions(config, told))


def _captions(config: PromptConfig, told: Callable[[str], str]) -> dict[str, str]:
    """Captions by id, as the encoders read them."""
    captions = read_captions(Path(config.captions)) if config.captions is not None else {}
    return {id: told(caption) for id, caption in captions.items()}


def _texts(fixed: str, captions: dict[str, str]) -> list[str]:
    """All prompts but the empty one."""
    return sorted({fixed, *captions.values()} - {""})


def empty_prompt(
    source: str, where: str, transformer: "SD3Transformer2DModel", texts: Sequence[str] = ()
) -> Prompt:
    """Returns embeddings of the empty prompt.

    They come from the folder if it holds them (nano does), else from the encoders. These embed
    `texts` on the way, so that they are loaded once.
    """
    beside = Path(where) / NULL_PROMPT
    if beside.is_file():
        prompt = read_embedding(beside, transformer)
        if prompt is None:
            raise ValueError(
                f"model.backbone: {beside} is damaged or of another transformer: take the folder's"
                " own, or remove it"
            )
        return prompt
    files = embed(source, where, ["", *texts], transformer, cache_folder())
    return _kept(files[""], transformer)


def _kept(path: Path, transformer: "SD3Transformer2DModel") -> Prompt:
    prompt = read_embedding(path, transformer)
    if prompt is None:
        raise OSError(
            f"{path}: the embedding of a prompt was removed or damaged while in use; start again"
            " and it is computed anew"
        )
    return prompt


class PromptSource(Protocol):
    """Says what the backbone is told about images: Prompts, or one prompt for all of them."""

    config: PromptConfig
    captions: dict[str, str]

    def of(self, ids: Sequence[str] | None = None) -> Prompt: ...


class Prompts:
    """Prompts by sample, ready to be given to the network.

    Args:
        config: see PromptConfig.
        source: the backbone's name in the configuration.
        where: what diffusers' from_pretrained takes for it.
        transformer: of the same backbone.
        empty: embeddings of its empty prompt.
        told: what the encoders read of a text; the text itself unless given.
        tokens: length of T5's part.

    Raises ValueError if the backbone has no text encoders, or the file of captions cannot be read.
    """

    def __init__(
        self,
        config: PromptConfig,
        source: str,
        where: str,
        transformer: "SD3Transformer2DModel",
        empty: Prompt,
        told: Callable[[str], str] = str,
        tokens: int = TOKENS,
    ) -> None:
        self.config = replace(config, text=told(config.text))
        self._transformer = transformer
        self.captions = _captions(config, told)
        texts = _texts(self.config.text, self.captions)
        if tokens != TOKENS:
            texts.append("")  # `empty` has another length
        kept = source, where, texts, transformer, cache_folder(), tokens
        self._files = embed(*kept) if texts else {}
        self.empty = empty if tokens == TOKENS else _kept(self._files[""], transformer)
        self.fixed = self._read(self.config.text)

    def _read(self, text: str) -> Prompt:
        return _kept(self._files[text], self._transformer) if text else self.empty

    def of(self, ids: Sequence[str] | None = None) -> Prompt:
        """Returns prompts of samples, a batch of len(ids), or of 1 where all have the same.

        None: of images that no caption names.
        """
        if not self.captions or ids is None:
            return self.fixed
        each = [self._read(self.captions[id]) if id in self.captions else self.fixed for id in ids]
        return Prompt(*(torch.cat(tensors) for tensors in zip(*each, strict=True)))

    def of_training(self, ids: Sequence[str], seeds: Tensor) -> Prompt:
        """Returns prompts of samples with prompt dropout.

        By its own seed a sample gets the empty prompt with probability `dropout`.
        """
        prompt = self.of(ids)
        if not self.config.dropout:
            return prompt
        keep = torch.tensor(
            [
                np.random.default_rng((seed, STREAM)).random() >= self.config.dropout
                for seed in seeds.tolist()
            ]
        )
        told, empty = prompt.expand(len(ids)), self.empty.expand(len(ids))
        return Prompt(
            torch.where(keep[:, None, None], told.embeds, empty.embeds),
            torch.where(keep[:, None], told.pooled, empty.pooled),
        )
