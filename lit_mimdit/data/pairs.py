"""The data contract: a training or evaluation sample is a dict of

    lq, gt         (3, H, W) float32 in [0, 1], RGB, the same H and W
    degradation    str, such as "01Blur"
    id             str, unique in the data set
    dataset        str, such as "4KRD" where there are several, else ""
    seed           int, of everything random about this sample in this epoch

and a batch has lq and gt stacked, seed as an int64 tensor (B,), and lists of the strings.
"""

from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from lit_mimdit.data.image_io import ImageError, read_rgb, to_tensor
from lit_mimdit.data.layouts import Pair
from lit_mimdit.data.order import sample_seed

Augment = Literal["none", "flip", "dihedral"]


def crop_box(height: int, width: int, size: int, draw: np.random.Generator | None) -> tuple[int, int]:
    """(top, left) of a crop of side `size`: drawn, or the middle if `draw` is None."""
    spare = height - size, width - size
    if draw is None:
        return spare[0] // 2, spare[1] // 2
    return int(draw.integers(0, spare[0] + 1)), int(draw.integers(0, spare[1] + 1))


def augment_array(image: np.ndarray, flip: bool, turns: int) -> np.ndarray:
    """(H, W, 3): mirrored left to right, then turned by `turns` times 90 degrees. The 8 choices are the square's symmetries."""
    return np.rot90(image[:, ::-1] if flip else image, turns)


class PairDataset(Dataset):
    """Pairs as samples of the contract; items are asked for as (epoch, index).

    Args:
        pairs: what `read_layout` found.
        crop: side of the square crop in pixels; None keeps whole images.
        random: crops and augmentation drawn from the sample's seed (training), or the middle crop, unaugmented.
        augment: "none", "flip" (left-right) or "dihedral" (flips and quarter turns), the same for both images.
        seed: of this data set.
        cache: keep decoded files in memory (small data sets only).
    """

    def __init__(self, pairs: list[Pair], crop: int | None, random: bool, augment: Augment, seed: int, cache: bool = False) -> None:
        self.pairs, self.crop, self.random, self.augment, self.seed = pairs, crop, random, augment, seed
        self.decoded: dict[int, tuple[np.ndarray, np.ndarray]] | None = {} if cache else None

    def __len__(self) -> int:
        return len(self.pairs)

    def _decode(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if self.decoded is not None and index in self.decoded:
            return self.decoded[index]
        pair = self.pairs[index]
        lq, gt = read_rgb(pair.lq), read_rgb(pair.gt)
        if lq.shape != gt.shape:
            sizes = f"{lq.shape[1]} x {lq.shape[0]} and {gt.shape[1]} x {gt.shape[0]}"
            raise ImageError(f"pair {pair.id}: {pair.lq} and {pair.gt} have different sizes, {sizes} pixels")
        if self.decoded is not None:
            self.decoded[index] = lq, gt
        return lq, gt

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Any]:
        epoch, index = item
        pair, seed = self.pairs[index], sample_seed(self.seed, epoch if self.random else 0, index)  # evaluation: always the same noise
        draw = np.random.default_rng(seed) if self.random else None
        images = self._decode(index)
        if self.crop is not None:
            height, width = images[0].shape[:2]
            if min(height, width) < self.crop:
                raise ImageError(f"pair {pair.id}: {pair.lq} is {width} x {height} pixels, smaller than the crop of {self.crop}")
            top, left = crop_box(height, width, self.crop, draw)
            images = tuple(image[top : top + self.crop, left : left + self.crop] for image in images)
        if draw is not None and self.augment != "none":
            flip, turns = bool(draw.integers(2)), int(draw.integers(4)) if self.augment == "dihedral" else 0
            images = tuple(augment_array(image, flip, turns) for image in images)
        names = {"degradation": pair.degradation, "id": pair.id, "dataset": pair.dataset}
        return {"lq": to_tensor(images[0]), "gt": to_tensor(images[1]), "seed": seed} | names


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch of the contract from its samples; images of one batch must have one size."""
    sizes = {tuple(sample["lq"].shape) for sample in samples}
    if len(sizes) > 1:
        raise ValueError(f"images of different sizes in one batch ({sorted(sizes)}): set a crop, or a batch size of 1")
    return {
        "lq": torch.stack([sample["lq"] for sample in samples]),
        "gt": torch.stack([sample["gt"] for sample in samples]),
        "degradation": [sample["degradation"] for sample in samples],
        "id": [sample["id"] for sample in samples],
        "dataset": [sample["dataset"] for sample in samples],
        "seed": torch.tensor([sample["seed"] for sample in samples], dtype=torch.int64),
    }
