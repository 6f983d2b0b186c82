"""Crops under wide degradations that a branch has restored already: a bank on disk.

    BANK/train/NNNNNN.npy       (3, B, 3, S, S) uint8: degraded, clean and restored crops
    BANK/val/KIND-N.npy         the same of one kind, from weak to strong

experiments/nano/wide_bank.py makes one. Restoring a crop takes as long as many steps of a small
network. So every crop serves several times: smaller, turned and flipped.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lit_mimdit.data.pairs import augment_array, to_floats
from lit_mimdit.data.wide_photos import WholeBatches
from lit_mimdit.files import write_bytes

NAMES = ("lq", "gt", "restored")
FLOOR = 0.01  # error of a crop that counts as damaged


def write_batch(path: Path, lq: Tensor, gt: Tensor, restored: Tensor) -> None:
    """Writes one file of a bank: lq and gt (B, 3, S, S) uint8, restored float32 in [0, 1]."""
    made = (restored.float().clamp(0, 1) * 255).round().to(torch.uint8)
    file = io.BytesIO()
    np.save(file, torch.stack([lq, gt, made.cpu()]).numpy())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, file.getvalue())


def _batch(crops: np.ndarray, kind: str) -> dict[str, Any]:
    """(3, B, 3, S, S) uint8 -> a batch of floats in [0, 1]."""
    floats = to_floats(torch.from_numpy(crops))
    return dict(zip(NAMES, floats, strict=True)) | {"kind": kind}


# p ~ (e + FLOOR)^emphasis, e: mean absolute difference of the degraded and the clean crop
def chances(files: list[Path], emphasis: float, darkest: float) -> np.ndarray:
    """Returns how often each crop of each file is drawn, (F, B) float64; the sum is 1.

    A crop whose clean image has a mean below `darkest` is never drawn. ValueError if none is left.
    """
    errors, means = np.stack([_facts(np.load(file, mmap_mode="r")) for file in files], axis=1)
    weights = (errors + FLOOR) ** emphasis * (means >= darkest)
    if not weights.any():
        raise ValueError(
            f"data.darkest is {darkest}: no crop of the bank is as bright, at most"
            f" {means.max():.2f}"
        )
    return weights / weights.sum()


def _facts(stored: np.ndarray) -> np.ndarray:
    """(3, B, 3, S, S) uint8 -> errors of the degraded and means of the clean crops, (2, B)."""
    lq, gt = stored[:2].astype(np.int16)
    return np.stack([np.abs(lq - gt).mean((1, 2, 3)), gt.mean((1, 2, 3))]) / 255


class BankBatches(Dataset):
    """Batches of random crops; batch i of epoch e is a function of (seed, e, i) and the files.

    A batch is a dict of lq, gt and restored, (B, 3, S, S) float32 in [0, 1].

    Args:
        files: of a bank's training crops, all with the same number of them.
        crop: side S of the crops, pixels.
        batch_size: B.
        batches: how many an epoch has.
        seed: of everything.
        emphasis: see `chances`.
        darkest: see `chances`.
    """

    def __init__(
        self,
        files: list[Path],
        crop: int,
        batch_size: int,
        batches: int,
        seed: int,
        emphasis: float = 0.0,
        darkest: float = 0.0,
    ) -> None:
        self.files = files
        self.chances = chances(files, emphasis, darkest)
        self.crop = crop
        self.batch_size = batch_size
        self.batches = batches
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.batches

    def _one(self, generator: np.random.Generator) -> np.ndarray:
        """One crop as degraded, clean and restored, (3, 3, S, S) uint8, turned and flipped."""
        drawn = generator.choice(self.chances.size, p=self.chances.ravel())
        which, number = divmod(int(drawn), self.chances.shape[1])
        stored = np.load(self.files[which], mmap_mode="r")[:, number]
        top, left = (int(generator.integers(0, n - self.crop + 1)) for n in stored.shape[-2:])
        crop = stored[..., top : top + self.crop, left : left + self.crop]
        flip, turns = bool(generator.integers(2)), int(generator.integers(4))
        # pixels first, as `augment_array` takes them
        return augment_array(crop.transpose(2, 3, 0, 1), flip, turns).transpose(2, 3, 0, 1)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.batches:
            raise IndexError(index)
        generator = np.random.default_rng([self.seed, self.epoch, index])
        crops = [self._one(generator) for _ in range(self.batch_size)]
        return _batch(np.stack(crops, axis=1), "any")


class BankValidation(Dataset):
    """The validation files of a bank, each a batch of one kind."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path = self.files[index]
        return _batch(np.load(path), path.stem.rpartition("-")[0])


class WideBank(WholeBatches):
    """Crops that a branch has restored, for the training of a network behind it.

    Args:
        bank: folder that experiments/nano/wide_bank.py wrote.
        crop: side of the training crops, pixels; at most that of the stored ones.
        batch_size: crops in a batch.
        batches: training batches an epoch.
        seed: seed of the crops.
        workers: loader processes. 0 reads in the training process. Any number gives the same
            batches.
        emphasis: how much more often a damaged crop is drawn than a clean one. 0 draws all alike,
            1 in proportion to the error of the degraded crop plus 0.01.
        darkest: crops whose clean image has a lower mean, in [0, 1], are left out. No network can
            tell a dark scene from a scene in the dark by 96 pixels.
    """

    def __init__(
        self,
        bank: str,
        crop: int = 64,
        batch_size: int = 16,
        batches: int = 500,
        seed: int = 0,
        workers: int = 0,
        emphasis: float = 0.0,
        darkest: float = 0.0,
    ) -> None:
        if emphasis < 0:
            raise ValueError(f"data.emphasis is {emphasis}: it must be 0 or more")
        if not 0 <= darkest < 1:
            raise ValueError(f"data.darkest is {darkest}: it is a mean, from 0 to below 1")
        super().__init__(crop, batch_size, batches, workers)
        self.bank = bank
        self.seed = seed
        self.emphasis = emphasis
        self.darkest = darkest

    def _files(self, split: str) -> list[Path]:
        files = sorted(Path(self.bank, split).glob("*.npy"))
        if not files:
            raise ValueError(
                f"data.bank {self.bank}: {split} has no crops; experiments/nano/wide_bank.py makes"
                " a bank"
            )
        return files

    def setup(self, stage: str) -> None:
        if stage == "fit":
            files = self._files("train")
            side = np.load(files[0], mmap_mode="r").shape[-1]
            if side < self.crop:
                raise ValueError(
                    f"data.crop is {self.crop}: the crops of {self.bank} have {side} px a side;"
                    f" give {side} or less"
                )
            drawn = self.emphasis, self.darkest
            self.train = BankBatches(
                files, self.crop, self.batch_size, self.batches, self.seed, *drawn
            )
        self.val = BankValidation(self._files("val"))
