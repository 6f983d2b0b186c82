"""The data of DA-CLIP's first stage: random crops, and the tokens of words and captions.

Source: Luo et al., arXiv 2310.01018, section 3.
"""

import math
import re
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from lit_mimdit.models.captions import read_captions
from lit_mimdit.systems.daclip.clip import DegradationCLIP
from lit_mimdit.systems.daclip.sampler import normalised

# FoundIR's names of degradations -> the words that the published controller knows
WORD_OF = {
    "blur": "motion-blurry",
    "haze": "hazy",
    "jpeg": "jpeg-compressed",
    "lowlight": "low-light",
    "noise": "noisy",
    "rain": "rainy",
    "raindrop": "raindrop",
    "shadow": "shadowed",
    "snow": "snowy",
}
AREA, RATIO = (0.9, 1.0), (3 / 4, 4 / 3)  # of a crop: its share of the image, its width by height
TRIES = 10  # before the whole image is taken
START, END = -2, -1  # places of CLIP's marks in its vocabulary, counted from the end
BYTES = 256
STREAM = 0x63726F  # sets the draws of a crop apart from a sample's other random numbers


def word_of(degradation: str) -> str:
    """Returns the word for a degradation: 01Blur is motion-blurry, 13Rain_Haze rainy hazy.

    A name without a word stands for itself, in lower case.
    """
    parts = re.sub(r"^\d+", "", degradation).lower().split("_")
    return " ".join(WORD_OF.get(part, part) for part in parts)


class Texts:
    """Tokens (B, L) of words and captions, padded with 0 as in open_clip.

    Args:
        source: folder or hub id with CLIP's tokenizer; None reads bytes, for small networks.
        captions: by id, or None for a training without.
        length: L.
        vocabulary: tokens that the text tower knows.

    Raises:
        ValueError: the vocabulary is too small for bytes, or the tokenizer cannot be read.
    """

    def __init__(
        self, source: str | None, captions: dict[str, str] | None, length: int, vocabulary: int
    ) -> None:
        self._captions = captions
        self._length, self._vocabulary = length, vocabulary
        self._tokenizer: CLIPTokenizer | None = None
        if source is not None:
            try:
                self._tokenizer = CLIPTokenizer.from_pretrained(source)
            except (OSError, ValueError, TypeError) as error:
                raise ValueError(
                    f"model.clip {source}: no tokenizer of CLIP can be read there ({error}); give a"
                    " folder or hub id that has one"
                ) from error
        elif vocabulary < BYTES + 3:  # 0 pads, and two marks
            raise ValueError(
                f"model.text.vocab_size is {vocabulary}: without model.clip the controller reads"
                f" bytes, which need {BYTES + 3}"
            )

    def words(self, degradations: list[str]) -> Tensor:
        """Returns the tokens of the words for degradations."""
        return self._tokens([word_of(name) for name in degradations])

    def captions(self, ids: list[str]) -> Tensor | None:
        """Returns the tokens of the images' captions, None without any; ValueError if an image has
        none.
        """
        if self._captions is None:
            return None
        if missing := [id for id in ids if id not in self._captions]:
            raise ValueError(
                f"model.captions has no caption for {missing[0]!r}: add it, or set captions to"
                " null to learn from the clean images"
            )
        return self._tokens([self._captions[id] for id in ids])

    def _tokens(self, texts: list[str]) -> Tensor:
        rows = torch.zeros(len(texts), self._length, dtype=torch.int64)
        for row, text in zip(rows, texts, strict=True):
            ids = self._ids(text)
            row[: len(ids)] = torch.tensor(ids)
        return rows

    def _ids(self, text: str) -> list[int]:
        if self._tokenizer is not None:
            return self._tokenizer(text, truncation=True, max_length=self._length).input_ids
        start, end = self._vocabulary + START, self._vocabulary + END
        inner = [byte + 1 for byte in text.encode()[: self._length - 2]]
        return [start, *inner, end]


def read_texts(source: str | None, captions: str | None, length: int, vocabulary: int) -> Texts:
    """Returns the texts of a training, with the captions of a file; see models/captions.py."""
    known = None if captions is None else read_captions(Path(captions))
    return Texts(source, known, length, vocabulary)


def take_towers(network: DegradationCLIP, source: str) -> None:
    """Load both frozen towers from transformers' CLIP, and start the controller as its copy.

    Args:
        network: its sizes must be the file's.
        source: folder or hub id, such as laion/CLIP-ViT-B-32-laion2B-s34B-b79K.

    Raises:
        ValueError: there is no such CLIP, or it has other sizes.
    """
    try:
        given = CLIPModel.from_pretrained(source).state_dict()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"model.clip {source}: no CLIP of transformers can be read there ({error}); give a"
            " folder or hub id of one"
        ) from error
    own = network.clip.state_dict()
    wrong = [name for name in own if name not in given or given[name].shape != own[name].shape]
    if wrong:
        raise ValueError(
            f"model.clip {source}: its sizes are not those of embed_dim, vision and text, as in"
            f" {wrong[0]}; set these to the model's"
        )
    network.clip.load_state_dict({name: given[name] for name in own})
    network.control.tower.load_state_dict(network.clip.vision_model.state_dict())
    network.control.projection.load_state_dict(network.clip.visual_projection.state_dict())


def _box(height: int, width: int, seed: int) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random crop, as torchvision's RandomResizedCrop has them."""
    draw = np.random.default_rng((seed, STREAM))
    for _ in range(TRIES):
        area = height * width * draw.uniform(*AREA)
        ratio = math.exp(draw.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        tall, wide = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if tall <= height and wide <= width:
            top, left = draw.integers(0, (height - tall + 1, width - wide + 1))
            return int(top), int(left), tall, wide
    return 0, 0, height, width


def random_view(images: Tensor, size: int, seeds: Tensor) -> Tensor:
    """Returns random crops of images (B, 3, H, W) in [0, 1] as CLIP sees them, (B, 3, size, size).

    A seed always gives the same crop, so that two versions of an image keep together.
    """
    views = []
    for image, seed in zip(images, seeds.tolist(), strict=True):
        _, height, width = image.shape
        top, left, tall, wide = _box(height, width, seed)
        part = image[None, :, top : top + tall, left : left + wide].float()
        views.append(F.interpolate(part, (size, size), mode="bicubic", antialias=True))
    return normalised(torch.cat(views).clamp(0, 1))
