"""PSNR and SSIM against scikit-image, and what pyiqa means by their names."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from lit_mimdit.data.image_io import to_tensor
from lit_mimdit.evaluation.pixel import eight_bit, psnr, psnr_y, ssim, ssim_y
from lit_mimdit.evaluation.scores import score

from .conftest import noisy, picture

SKIMAGE = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


@pytest.mark.parametrize("sigma", [3, 20, 60])
def test_rgb_scores_are_scikit_images(sigma):
    clean = picture(0)
    image = noisy(clean, sigma)
    found = score(to_tensor(image), to_tensor(clean))
    assert found["psnr"] == pytest.approx(peak_signal_noise_ratio(clean, image), abs=1e-5)
    assert found["ssim_rgb"] == pytest.approx(
        structural_similarity(clean, image, channel_axis=2, data_range=255, **SKIMAGE), abs=1e-7
    )


@pytest.mark.parametrize("sigma", [3, 20, 60])
def test_y_scores_are_scikit_images_of_the_luma(sigma):
    clean = picture(1)
    image = noisy(clean, sigma)
    found = score(to_tensor(image), to_tensor(clean))
    y, x = (
        plane @ np.array([0.299, 0.587, 0.114])
        for plane in (clean.astype(float), image.astype(float))
    )
    assert found["psnr_y"] == pytest.approx(peak_signal_noise_ratio(y, x, data_range=255), abs=1e-5)
    assert found["ssim_y"] == pytest.approx(
        structural_similarity(y.round(), x.round(), data_range=255, **SKIMAGE), abs=3e-5
    )
    assert (
        abs(found["psnr_y"] - found["psnr"]) > 0.2
        and abs(found["ssim_y"] - found["ssim_rgb"]) > 1e-4
    )


def test_names_mean_what_pyiqa_means():
    """psnr is RGB and ssim is Y there; without negative structure its SSIM is equal to 1e-4."""
    import pyiqa

    clean = picture(2, 48, 64)
    x, y = to_tensor(noisy(clean, 4))[None], to_tensor(clean)[None]
    ours = {"psnr": psnr, "psnry": psnr_y, "ssim": ssim_y, "ssimc": ssim}
    for name, function in ours.items():
        theirs = pyiqa.create_metric(name, device="cpu")(x, y).item()
        assert function(x, y).item() == pytest.approx(
            theirs, abs=2e-4 if "ssim" in name else 2e-3
        ), name


def test_scores_are_of_what_an_8_bit_file_shows():
    clean = torch.full((3, 16, 16), 100 / 255)
    assert torch.equal(eight_bit(clean + 0.4 / 255), eight_bit(clean))
    assert score(clean + 0.6 / 255, clean)["psnr"] == pytest.approx(20 * math.log10(255), abs=1e-5)
    same = score(torch.full_like(clean, 1.4), torch.ones_like(clean))
    assert same["psnr"] == pytest.approx(80.0) and same["ssim_y"] == pytest.approx(1.0)


def test_a_batch_is_its_images():
    x, y = (
        torch.stack([to_tensor(picture(seed)) for seed in seeds])
        for seeds in ((1, 2, 3), (4, 5, 6))
    )
    for function in (psnr, psnr_y, ssim, ssim_y):
        assert torch.equal(
            function(x, y),
            torch.cat([function(a[None], b[None]) for a, b in zip(x, y, strict=True)]),
        )
