"""The severities of a degradation, and what it accepts as an image."""

from typing import Literal, get_args

import numpy as np

Severity = Literal["light", "medium", "heavy"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
Range = tuple[float, float]


def check_severity(severity: str) -> None:
    """Raise ValueError unless ``severity`` is one of SEVERITIES."""
    if severity not in SEVERITIES:
        raise ValueError(f"unknown severity {severity!r}: choose from {', '.join(SEVERITIES)}")


def check(image: np.ndarray, severity: str) -> None:
    """Raise ValueError unless ``image`` is (H, W, 3) in [0, 1] and ``severity`` is known."""
    check_severity(severity)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype.kind != "f":
        raise ValueError(
            f"image must be a float array (H, W, 3), got {image.dtype} {image.shape}: convert to"
            " RGB and divide by 255"
        )
    if not (image.min() >= 0 and image.max() <= 1):
        raise ValueError(
            f"image must lie in [0, 1], got [{image.min()}, {image.max()}]: divide 8 bits by 255,"
            " or clip it"
        )


def draw(ranges: dict[str, Range], severity: str, generator: np.random.Generator) -> float:
    """Returns a value of the severity's range, all equally likely."""
    return float(generator.uniform(*ranges[severity]))
