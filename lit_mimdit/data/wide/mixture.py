"""`severity: any`: one image degraded by nothing, by one kind, or by several in random order."""

import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from lit_mimdit.data.degradations import check, to_uint8
from lit_mimdit.data.wide.blur import blur
from lit_mimdit.data.wide.darkness import darkness
from lit_mimdit.data.wide.haze import haze
from lit_mimdit.data.wide.noise import noise
from lit_mimdit.data.wide.rain import rain

QUALITY = (5, 95)
COUNTS = (0.10, 0.66, 0.18, 0.06)  # how often an image has none, one, two, three kinds


def jpeg(image: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """JPEG (ITU-T T.81) of quality 95 (strength 0) to 5 (strength 1), chroma whole or halved."""
    quality = round(QUALITY[1] + (QUALITY[0] - QUALITY[1]) * strength)
    file = io.BytesIO()
    Image.fromarray(to_uint8(image)).save(
        file, "JPEG", quality=quality, subsampling=int(generator.choice((0, 2, 2)))
    )
    return np.asarray(Image.open(file), np.float32) / np.float32(255)


KINDS: dict[str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {
    "blur": blur,
    "noise": noise,
    "jpeg": jpeg,
    "haze": haze,
    "rain": rain,
    "low_light": darkness,
}
# How often each kind is drawn: JPEG is easy to learn and rarely wanted by itself.
SHARES = dict(zip(KINDS, (0.2, 0.2, 0.08, 0.18, 0.2, 0.14), strict=True))


class Step(NamedTuple):
    """One kind of a mixture and its strength in [0, 1]."""

    kind: str
    strength: float


def draw(generator: np.random.Generator, shares: dict[str, float] = SHARES) -> list[Step]:
    """Draw the kinds of an image, in random order, with their strengths.

    One kind has any strength from 0 to 1 alike. Of several, each is weaker, u / sqrt(n), since
    damages multiply. A tenth of the images stay clean.
    """
    count = int(generator.choice(len(COUNTS), p=COUNTS))
    names, weights = list(shares), np.array(list(shares.values()))
    count = min(count, int((weights > 0).sum()))
    order = generator.choice(len(names), size=count, replace=False, p=weights / weights.sum())
    return [Step(names[i], float(generator.random() / np.sqrt(count))) for i in order]


def degrade(image: np.ndarray, steps: list[Step], generator: np.random.Generator) -> np.ndarray:
    """Apply the steps in their order; (H, W, 3) float32 in [0, 1], a copy for no steps."""
    check(image, "light")
    output = image.astype(np.float32)
    for step in steps:
        output = KINDS[step.kind](output, step.strength, generator)
    return output
