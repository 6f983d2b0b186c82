"""The photographs of installed packages.

Readable offline, each in one split, with a depth where one was measured.
"""

import socket

import numpy as np
import pytest

from lit_mimdit.data import photographs
from lit_mimdit.data.photographs import PHOTOGRAPHS, SPLITS


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("network used")

    monkeypatch.setattr(socket, "socket", refuse)


@pytest.mark.parametrize("name", [photograph.name for photograph in PHOTOGRAPHS])
def test_photographs_are_colour_photographs_on_disk(name, no_network):
    image = photographs.load(name)
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    assert min(image.shape[:2]) >= 300
    assert np.abs(image[..., 0].astype(int) - image[..., 2]).mean() > 5  # really colour


def test_scikit_image_photographs_equal_its_own_loader():
    import skimage.data

    assert np.array_equal(photographs.load("astronaut"), skimage.data.astronaut())
    assert np.array_equal(photographs.load("motorcycle"), skimage.data.stereo_motorcycle()[0])


def test_splits_are_disjoint_and_none_is_empty():
    names = [photograph.name for split in SPLITS for photograph in photographs.of_split(split)]
    assert all(photographs.of_split(split) for split in SPLITS)
    assert len(set(names)) == len(names) == len(PHOTOGRAPHS)
    assert len({photograph.file for photograph in PHOTOGRAPHS}) == len(PHOTOGRAPHS)


def test_depth_follows_the_stereo_formula():
    """Z = f B / (disparity + offset), with the calibration that scikit-image documents.

    f is 994.978 px, B 193.001 mm, offset 31.086 px.
    """
    import skimage.data

    left, _, disparity = skimage.data.stereo_motorcycle()
    depth = photographs.depth("motorcycle")
    assert depth.shape == left.shape[:2] and depth.dtype == np.float32
    known = np.isfinite(disparity)
    metres = 994.978 * 0.193001 / (disparity[known] + 31.086)
    assert metres.max() == pytest.approx(5.0, abs=0.05)
    np.testing.assert_allclose(depth[known], metres / metres.max(), rtol=1e-5)


def test_depth_has_no_holes():
    depth = photographs.depth("motorcycle")
    assert np.isfinite(depth).all() and 0 < depth.min() < 0.5 and depth.max() == 1
    assert photographs.depth("coffee") is None


def test_unknown_names():
    with pytest.raises(ValueError, match="unknown photograph 'lena': choose from coffee, rocket"):
        photographs.load("lena")
    with pytest.raises(ValueError, match="unknown photograph 'lena'"):
        photographs.depth("lena")
    with pytest.raises(ValueError, match="unknown split 'valid': choose from train, val, test"):
        photographs.of_split("valid")


@pytest.mark.parametrize(
    "file,state",
    [
        ("no_such_package_here/a.png", "is not installed"),
        ("skimage/data/a.png", "has no such file"),
    ],
)
def test_missing_file_names_the_remedy(monkeypatch, file, state):
    missing = PHOTOGRAPHS[0]._replace(file=file)
    monkeypatch.setattr(photographs, "PHOTOGRAPHS", (missing,))
    with pytest.raises(
        FileNotFoundError, match=f"{file} not found: scikit-image {state}; run `pip install"
    ):
        photographs.load(missing.name)
