"""The encoder: what JPEG loses."""

import io

import numpy as np
from PIL import Image

from lit_mimdit.data.degradations.light import to_uint8
from lit_mimdit.data.severity import Severity, check, check_severity


def jpeg_quality(severity: Severity, generator: np.random.Generator) -> int:
    """Draw a libjpeg quality factor: 20-28 (light), 12-16 (medium), 6-9 (heavy)."""
    check_severity(severity)
    low, high = {"light": (20, 28), "medium": (12, 16), "heavy": (6, 9)}[severity]
    return int(generator.integers(low, high, endpoint=True))


def jpeg(image: np.ndarray, severity: Severity, generator: np.random.Generator) -> np.ndarray:
    """Encode and decode as JPEG (ITU-T T.81) by libjpeg through Pillow.

    Chroma is 4:2:0, the quality as drawn by `jpeg_quality`.
    """
    check(image, severity)
    file = io.BytesIO()
    Image.fromarray(to_uint8(image)).save(file, "JPEG", quality=jpeg_quality(severity, generator))
    return np.asarray(Image.open(file), np.float32) / np.float32(255)
