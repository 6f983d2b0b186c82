"""Six degraded photographs to click on.

They are made of the photographs of installed packages, so an installed package has them too.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from lit_mimdit.data import photographs
from lit_mimdit.data.composition import degrade
from lit_mimdit.data.degradations import to_uint8

SIDE = 320  # pixels of the longer side
# caption -> photograph, degradations, severity
EXAMPLES: dict[str, tuple[str, tuple[str, ...], str]] = {
    "rain": ("astronaut", ("rain",), "heavy"),
    "haze": ("motorcycle", ("haze",), "medium"),
    "noise": ("chelsea", ("noise",), "heavy"),
    "blur": ("coffee", ("blur",), "medium"),
    "low light": ("china", ("low_light",), "medium"),
    "JPEG and noise": ("flower", ("noise", "jpeg"), "medium"),
}


def small(name: str, side: int = SIDE) -> np.ndarray:
    """Returns a photograph of the table with a longer side of `side` pixels, (H, W, 3) uint8."""
    image = Image.fromarray(photographs.load(name))
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(image)


def write_examples(folder: Path) -> dict[str, Path]:
    """Write the examples as PNG files; they are the same at every call.

    Returns:
        The files by caption.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for number, (caption, (name, degradations, severity)) in enumerate(EXAMPLES.items()):
        clean = small(name).astype(np.float32) / 255.0
        image = degrade(clean, degradations, severity, np.random.default_rng(number))
        files[caption] = folder / f"{caption.replace(' ', '_').lower()}.png"
        Image.fromarray(to_uint8(image)).save(files[caption])
    return files
