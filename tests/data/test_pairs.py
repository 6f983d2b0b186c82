"""Samples of the contract.

Both images cut, mirrored and turned alike, and nothing random in evaluation.
"""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lit_mimdit.data.image_io import ImageError, read_rgb, to_tensor, write_photo
from lit_mimdit.data.layouts import Pair
from lit_mimdit.data.pairs import (
    PairDataset,
    augment_array,
    collate,
    to_floats,
    to_planes,
    with_floats,
)
from lit_mimdit.data.sources import FolderSource, crop_box

HEIGHT, WIDTH = 40, 56


def save(path: Path, height: int = HEIGHT, width: int = WIDTH, blue: int = 0) -> Path:
    """An image that says where each of its pixels is: red = row, green = column."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = (
        np.arange(height)[:, None],
        np.arange(width),
        blue,
    )
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def pair(tmp_path) -> Pair:
    return Pair(
        "01Blur/1", "01Blur", save(tmp_path / "lq.png", blue=7), save(tmp_path / "gt.png", blue=9)
    )


def dataset(pair: Pair, cache: bool = False, **changes) -> PairDataset:
    return PairDataset(
        FolderSource([pair], cache),
        **({"crop": 16, "random": True, "augment": "dihedral", "seed": 0} | changes),
    )


def places(image: torch.Tensor) -> torch.Tensor:
    return image[:2].int()


def test_lq_and_gt_are_cut_mirrored_and_turned_alike(pair):
    data, seen = dataset(pair), set()
    for epoch in range(200):
        sample = data[epoch, 0]
        lq, gt = places(sample["lq"]), places(sample["gt"])
        assert torch.equal(lq, gt) and lq.shape == (2, 16, 16)
        assert sample["lq"][2].unique().item() == 7 and sample["gt"][2].unique().item() == 9
        rows, columns = lq[0], lq[1]
        assert len(torch.unique(rows * 256 + columns)) == 256, "a whole square, each place once"
        turned = bool(rows[0, 0] == rows[0, 1])
        seen.add((turned, bool(rows[0, 0] < rows[-1, -1]), bool(columns[0, 0] < columns[-1, -1])))
    assert len(seen) == 8, "all symmetries of the square"


def test_crops_reach_every_corner_and_the_middle_is_the_middle():
    tops, lefts = zip(
        *(crop_box(10, 12, 8, np.random.default_rng(s)) for s in range(100)), strict=True
    )
    assert set(tops) == {0, 1, 2} and set(lefts) == {0, 1, 2, 3, 4}
    assert crop_box(11, 12, 8, None) == (1, 2)


@pytest.mark.parametrize("augment, choices", [("none", 1), ("flip", 2), ("dihedral", 8)])
def test_augmentations_are_these_symmetries(pair, augment, choices):
    data = dataset(pair, augment=augment, crop=40)
    corners = set()
    for epoch in range(100):
        image = places(data[epoch, 0]["lq"])
        corners.add(
            tuple(
                (image - image.amin((1, 2), keepdim=True))[:, [0, 0, -1], [0, -1, 0]]
                .flatten()
                .tolist()
            )
        )
    assert len(corners) == choices
    image = np.arange(12).reshape(2, 2, 3)
    assert (
        len(
            {
                augment_array(image, flip, turns).tobytes()
                for flip in (False, True)
                for turns in range(4)
            }
        )
        == 8
    )


def test_planes_of_every_symmetry_hold_the_pixels_at_their_places():
    image = np.random.default_rng(0).integers(0, 256, (71, 131, 3), np.uint8)
    for flip, turns in product((False, True), range(4)):
        pixels = augment_array(image, flip, turns)
        planes = to_planes(pixels)
        assert planes.is_contiguous() and planes.dtype == torch.uint8
        assert planes.tolist() == [pixels[..., channel].tolist() for channel in range(3)]


def test_training_changes_with_epoch_and_seed_and_is_repeatable(pair):
    data = dataset(pair)
    assert (
        torch.equal(data[3, 0]["lq"], dataset(pair)[3, 0]["lq"])
        and data[3, 0]["seed"] == dataset(pair)[3, 0]["seed"]
    )
    assert data[3, 0]["seed"] != data[4, 0]["seed"] != dataset(pair, seed=1)[4, 0]["seed"]
    assert len({data[epoch, 0]["lq"].numpy().tobytes() for epoch in range(20)}) > 15


def test_evaluation_is_the_same_in_every_epoch(pair):
    data = dataset(pair, random=False)
    one, other = data[0, 0], data[7, 0]
    assert one["seed"] == other["seed"] and torch.equal(one["lq"], other["lq"])
    assert places(one["lq"])[:, 0, 0].tolist() == [(HEIGHT - 16) // 2, (WIDTH - 16) // 2]
    whole = dataset(pair, random=False, crop=None)[0, 0]
    assert whole["gt"].shape == (3, HEIGHT, WIDTH)
    assert whole["degradation"] == "01Blur" and whole["id"] == "01Blur/1"


def test_the_cache_changes_nothing_and_reads_once(pair):
    cached = dataset(pair, cache=True)
    first = cached[0, 0]["lq"]
    pair.lq.unlink()
    assert torch.equal(cached[0, 0]["lq"], first)
    with pytest.raises(ImageError, match="lq.png"):
        dataset(pair)[0, 0]


def test_pairs_that_cannot_be_used_are_named(tmp_path, pair):
    odd = Pair(pair.id, pair.degradation, pair.lq, save(tmp_path / "small.png", 39))
    with pytest.raises(
        ImageError,
        match=(
            "pair 01Blur/1: .*lq.png and .*small.png have different sizes, 56 x 40 and 56 x 39"
            " pixels"
        ),
    ):
        dataset(odd)[0, 0]
    with pytest.raises(
        ImageError, match="pair 01Blur/1: .*lq.png is 56 x 40 pixels, smaller than the crop of 41"
    ):
        dataset(pair, crop=41)[0, 0]


def test_a_batch_is_stacked_and_keeps_its_strings(pair):
    data = dataset(pair)
    batch = collate([data[0, 0], data[1, 0]])
    assert (
        batch["lq"].shape == batch["gt"].shape == (2, 3, 16, 16)
        and batch["seed"].dtype == torch.int64
    )
    assert (
        batch["seed"].tolist() == [data[0, 0]["seed"], data[1, 0]["seed"]]
        and batch["id"] == ["01Blur/1"] * 2
    )
    with pytest.raises(ValueError, match="different sizes in one batch"):
        collate([data[0, 0], dataset(pair, crop=8)[0, 0]])


def test_bytes_travel_and_become_the_floats_of_the_file(pair):
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_floats(levels), to_tensor(levels.numpy()[:, None, None]).flatten()), (
        "the very bits"
    )
    sample = dataset(pair, random=False, crop=None)[0, 0]
    assert sample["lq"].dtype == sample["gt"].dtype == torch.uint8
    batch = with_floats(collate([sample, sample]))
    for side, path in (("lq", pair.lq), ("gt", pair.gt)):
        assert torch.equal(batch[side], torch.stack([to_tensor(read_rgb(path))] * 2))
    latents = {"z_lq": torch.randn(1, 4, 2, 2), "seed": batch["seed"]}
    assert with_floats(latents) == latents, "what holds no images stays"


def test_16_bits_stay_16_bits_beside_bytes(tmp_path, pair):
    fine = torch.rand(3, HEIGHT, WIDTH)
    for side in ("lq", "gt"):
        write_photo(tmp_path / f"{side}16.png", fine, bits=16)
    deep = Pair("01Blur/2", "01Blur", tmp_path / "lq16.png", tmp_path / "gt16.png")
    samples = [dataset(one, random=False, crop=None)[0, 0] for one in (pair, deep)]
    batch = with_floats(collate(samples))
    assert torch.equal(batch["lq"][0], to_tensor(read_rgb(pair.lq)))
    assert (
        torch.equal(batch["lq"][1], to_tensor(read_rgb(deep.lq)))
        and (batch["lq"][1] - fine).abs().max() < 1e-5
    )
