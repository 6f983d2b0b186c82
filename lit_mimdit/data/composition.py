"""Degradations composed in the order in which light meets them, and FoundIR's 20 types as such
compositions.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from lit_mimdit.data.degradations import (
    SEVERITIES,
    Severity,
    blur,
    check,
    check_severity,
    defocus_blur,
    gaussian_noise,
    haze,
    jpeg,
    low_light,
    motion_blur,
    noise,
    rain,
    raindrop,
    sensor_noise,
)

# In physical order: scene, lens, optics, exposure, sensor, encoder.
DEGRADATIONS: dict[str, Callable[..., np.ndarray]] = {
    f.__name__: f
    for f in (
        haze,
        rain,
        raindrop,
        blur,
        motion_blur,
        defocus_blur,
        low_light,
        noise,
        sensor_noise,
        gaussian_noise,
        jpeg,
    )
}

# The 20 folders of FoundIR's test set, in its order; the names within a type are in its order too:
# the first one leads.
FOUNDIR_TYPES: dict[str, tuple[str, ...]] = {
    "01Blur": ("blur",),
    "02Blur_Noise": ("blur", "noise"),
    "03Blur_JPEG": ("blur", "jpeg"),
    "04Blur_Noise_JPEG": ("blur", "noise", "jpeg"),
    "05Noise": ("noise",),
    "06JPEG": ("jpeg",),
    "07Noise_JPEG": ("noise", "jpeg"),
    "08Haze": ("haze",),
    "09Lowlight_Haze": ("low_light", "haze"),
    "10Rain": ("rain",),
    "11Raindrop": ("raindrop",),
    "12NightRain": ("low_light", "rain"),
    "13Rain_Haze": ("rain", "haze"),
    "14Lowlight": ("low_light",),
    "15Lowlight_Blur": ("low_light", "blur"),
    "16Lowlight_Noise": ("low_light", "noise"),
    "17Lowlight_JPEG": ("low_light", "jpeg"),
    "18Lowlight_Blur_Noise": ("low_light", "blur", "noise"),
    "19Lowlight_Blur_JPEG": ("low_light", "blur", "jpeg"),
    "20Lowlight_Noise_JPEG": ("low_light", "noise", "jpeg"),
}


class Step(NamedTuple):
    """One degradation of a composition, with its own severity and random numbers."""

    name: str
    severity: Severity
    generator: np.random.Generator


def compose(names: Sequence[str], severity: Severity, generator: np.random.Generator) -> list[Step]:
    """Puts degradations in physical order; the order of `names` says which of them leads.

    The first name has the severity asked for. Each later one is a step lighter than the one before
    it, but none is lighter than light. So heavy Blur_Noise_JPEG is heavy blur, medium noise and
    light JPEG. Damages multiply, and three heavy ones leave nothing to restore.

    A degradation's random numbers do not depend on which others are asked for. `generator` always
    advances by the same amount.
    """
    check_severity(severity)
    for name in names:
        if name not in DEGRADATIONS:
            raise ValueError(f"unknown degradation {name!r}: choose from {', '.join(DEGRADATIONS)}")
    seeds = dict(zip(DEGRADATIONS, generator.integers(2**63, size=len(DEGRADATIONS))))
    return [
        Step(
            name,
            SEVERITIES[max(SEVERITIES.index(severity) - names.index(name), 0)],
            np.random.default_rng(seeds[name]),
        )
        for name in DEGRADATIONS
        if name in names
    ]


def degrade(
    image: np.ndarray,
    names: Sequence[str],
    severity: Severity,
    generator: np.random.Generator,
    depth: np.ndarray | None = None,
    grain: float = 1.0,
) -> np.ndarray:
    """Apply the steps of `compose`.

    Args:
        image: (H, W, 3) float32 in [0, 1], sRGB.
        names: keys of DEGRADATIONS, e.g. FOUNDIR_TYPES["18Lowlight_Blur_Noise"].
        severity: light, medium or heavy.
        generator: source of every random draw.
        depth: (H, W), 1 the farthest point, for haze; None draws one.
        grain: share of its own noise that low light shows, see `low_light`.

    Returns:
        (H, W, 3) float32 in [0, 1]; a copy of the image for no names.
    """
    check(image, severity)
    output = image.astype(np.float32)
    extras = {"haze": {"depth": depth}, "low_light": {"grain": grain}}
    for step in compose(names, severity, generator):
        output = DEGRADATIONS[step.name](
            output, step.severity, step.generator, **extras.get(step.name, {})
        )
    return output
