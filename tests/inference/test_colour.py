"""Colour correction against values from elsewhere."""

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve1d

from lit_mimdit.inference.colour import adain, correct, low_frequencies, wavelet

X, S = torch.rand(2, 2, 3, 40, 56, generator=torch.Generator().manual_seed(0))


def test_adain_gives_each_channel_of_each_image_the_others_mean_and_deviation():
    y = adain(0.3 * X + 0.2, S)
    torch.testing.assert_close(y.mean((2, 3)), S.mean((2, 3)), rtol=0, atol=1e-5)
    # 1e-5 on variances of 0.0075 and 0.083
    torch.testing.assert_close(y.std((2, 3)), S.std((2, 3)), rtol=0, atol=3e-4)
    torch.testing.assert_close(adain(0.3 * X + 0.2, X), X, rtol=0, atol=1e-3)
    x, s = X[1, 2].double().numpy(), S[1, 2].double().numpy()
    ratio = np.sqrt((s.var(ddof=1) + 1e-5) / (x.var(ddof=1) + 1e-5))
    by_hand = torch.from_numpy((x - x.mean()) * ratio + s.mean()).float()
    torch.testing.assert_close(adain(X, S)[1, 2], by_hand, rtol=0, atol=1e-6)
    flat = torch.full((1, 3, 8, 8), 0.5)
    assert adain(flat, S[:1]).isfinite().all()


@pytest.mark.parametrize("levels", [1, 3, 5])
def test_low_frequencies_are_scipys_dilated_blurs(levels):
    expected = X.double().numpy()
    for level in range(levels):
        taps = np.zeros(2 * 2**level + 1)
        taps[[0, 2**level, -1]] = 0.25, 0.5, 0.25
        for axis in (2, 3):
            expected = convolve1d(expected, taps, axis=axis, mode="nearest")
    torch.testing.assert_close(
        low_frequencies(X, levels), torch.from_numpy(expected).float(), rtol=0, atol=1e-5
    )


def test_wavelet_keeps_detail_and_takes_the_others_colour():
    torch.testing.assert_close(wavelet(X, X), X, rtol=0, atol=1e-6)
    torch.testing.assert_close(wavelet(X + 0.3, X), X, rtol=0, atol=1e-5)
    detail = X - low_frequencies(X)
    torch.testing.assert_close(wavelet(X, S) - low_frequencies(S), detail, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["none", "adain", "wavelet"])
def test_correction_is_in_range_image_by_image_and_for_any_size(kind):
    y = correct(kind, X, S)
    assert 0 <= y.min() <= y.max() <= 1 and torch.equal(y, X) == (kind == "none")
    torch.testing.assert_close(
        y,
        torch.cat([correct(kind, X[i : i + 1], S[i : i + 1]) for i in range(2)]),
        rtol=0,
        atol=1e-6,
    )
    assert correct(kind, X[..., :1, :1], S[..., :1, :1]).isfinite().all()
