"""A photograph shown inside a notebook."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

import lit_mimdit
from lit_mimdit.inference.loading import load_restorer


def test_a_notebook_shows_slider_and_bars(branch_file):
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    shown = lit_mimdit.demo(Image.fromarray(pixels), branch_file, "cpu", looks=False, seed=2)
    restorer = load_restorer(branch_file, device="cpu", dtype="auto")
    lq = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    expected = restorer(lq, torch.tensor([2]))[0][0].permute(1, 2, 0).numpy() * 255
    assert np.array_equal(np.asarray(shown.image), expected.round().astype(np.uint8))
    page = shown._repr_html_()
    after, before = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        for data in re.findall(r"data:image/png;base64,([\w+/=]+)", page)
    )
    assert np.array_equal(before, pixels) and np.array_equal(after, np.asarray(shown.image))
    assert "Inter weights" in page and "<script" not in page
    assert set(re.findall(r"https?://[^\"]+", page)) == {"http://www.w3.org/2000/svg"}


def test_unknown_settings_are_named(branch_file, photo):
    with pytest.raises(ValueError, match=r"stepz: choose among the settings seed, steps"):
        lit_mimdit.demo(photo, branch_file, "cpu", stepz=2)
