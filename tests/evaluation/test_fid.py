"""FID's maths against Gaussians by hand and torchmetrics, its images against pyiqa's reading."""

import math
import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from lit_mimdit.data.image_io import to_tensor
from lit_mimdit.evaluation.fid import SIDE, features, frechet, frechet_torchmetrics

from .conftest import picture, save


def exact(mean: list[float], deviation: list[float], count: int = 64) -> np.ndarray:
    """(count, 2) points whose sample mean and covariance are exactly these.

    They are mean and diag(deviation^2).
    """
    t = np.arange(count) * 2 * math.pi / count
    circle = np.stack([np.cos(t), np.sin(t)], 1) * math.sqrt(2 * (count - 1) / count)
    return np.array(mean) + circle * np.array(deviation)


def test_two_gaussians_by_hand():
    """|(3, 4)|^2 + (2 - 1)^2 + (5 - 3)^2 = 25 + 1 + 4 = 30; commuting covariances give the squared
    differences of deviations.
    """
    first, second = exact([0.0, 0.0], [2.0, 5.0]), exact([3.0, 4.0], [1.0, 3.0])
    assert np.cov(first.T) == pytest.approx(np.diag([4.0, 25.0]), abs=1e-12)
    assert frechet(first, second) == pytest.approx(30.0, rel=1e-10)
    assert frechet_torchmetrics(first, second) == pytest.approx(30.0, rel=1e-10)


@pytest.mark.parametrize(
    "counts",
    [(40, 55), (9, 12), (40, 12)],
    ids=["full rank", "fewer images than features", "mixed"],
)
def test_it_is_torchmetrics_and_the_matrix_square_root(counts):
    draw = np.random.default_rng(0)
    first, second = (
        draw.normal(size=(n, 16)) @ draw.normal(size=(16, 16)) + draw.normal(size=16)
        for n in counts
    )
    ours = frechet(first, second)
    assert frechet_torchmetrics(first, second) == pytest.approx(ours, rel=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = scipy.linalg.sqrtm(np.cov(first.T) @ np.cov(second.T)).real
    apart = np.square(first.mean(0) - second.mean(0)).sum()
    assert ours == pytest.approx(
        apart + np.trace(np.cov(first.T)) + np.trace(np.cov(second.T)) - 2 * np.trace(root),
        rel=1e-4,
    )


def test_equal_sets_are_at_zero_and_order_does_not_matter():
    first = np.random.default_rng(1).normal(size=(7, 32)).astype(np.float32)
    assert frechet(first, first) == pytest.approx(0.0, abs=1e-9)
    assert frechet(first, first[::-1]) == pytest.approx(0.0, abs=1e-9)


def test_one_image_has_no_covariance():
    one, two = np.zeros((1, 4)), np.zeros((2, 4))
    assert (
        math.isnan(frechet(one, two))
        and math.isnan(frechet(two, one))
        and math.isnan(frechet_torchmetrics(one, two))
    )


class TinyInception(nn.Module):
    """In Inception's place: the mean of each 16th part of the picture."""

    def forward(self, x: torch.Tensor, resize: bool, normalise: bool) -> list[torch.Tensor]:
        assert x.shape[-2:] == (SIDE, SIDE) and not resize and not normalise
        return [nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)[..., None, None]]


def test_images_are_read_and_resized_as_pyiqa_does_in_mode_clean(tmp_path):
    from pyiqa.archs.fid_arch import get_folder_features

    images = [
        picture(seed, height, width)
        for seed, (height, width) in enumerate([(60, 80), (330, 290), (299, 299)])
    ]
    for number, image in enumerate(images):
        save(tmp_path / f"{number}.png", image)
    theirs = get_folder_features(
        str(tmp_path), TinyInception(), 0, 1, device=torch.device("cpu"), verbose=False
    )
    ours = np.concatenate(
        [features(TinyInception(), to_tensor(image)[None], torch.device("cpu")) for image in images]
    )
    assert ours == pytest.approx(theirs, abs=1e-6) and np.ptp(theirs) > 0.05
