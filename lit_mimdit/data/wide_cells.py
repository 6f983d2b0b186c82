"""Cells of crops under haze and darkness (models/scene_light.py), kept on disk.

    CELLS/train-S.npz, CELLS/val-S.npz      of crops of S pixels: lq (N, 8, S/8, S/8), gt (N, 6,
                                            S/8, S/8), both float16

experiments/nano/wide_cells.py makes them. A cell takes a seventh of its pixels' room and a training
step few operations.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lit_mimdit.data.wide_photos import WholeBatches

CHANNELS = 6  # means and deviations, which a reference is compared by
CROP, SIDE = 128, 16  # pixels and cells a side of crops of which a batch has `batch_size`


class CellBatches(Dataset):
    """Batches of cells; batch i of epoch e is a function of (seed, e, i) and the files.

    A batch is a dict of lq (B, 8, h, w) and gt (B, 6, h, w), float32. All crops of a batch have one
    size. Half are mirrored, half transposed, and a fifth have their channels in another order.
    """

    def __init__(self, files: list[Path], batch_size: int, batches: int, seed: int) -> None:
        self.crops = [_read(file) for file in files]
        held = np.array([gt.numel() for _, gt in self.crops], float)
        self.shares = held / held.sum()
        self.batch_size = batch_size
        self.batches = batches
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.batches:
            raise IndexError(index)
        generator = np.random.default_rng([self.seed, self.epoch, index])
        lq, gt = self.crops[generator.choice(len(self.crops), p=self.shares)]
        count = max(1, round(self.batch_size * (SIDE / lq.shape[-1]) ** 2))
        rows = torch.from_numpy(generator.integers(0, len(lq), count))
        lq, gt = lq[rows].float(), gt[rows].float()
        if generator.random() < 0.5:
            lq, gt = lq.flip(-1), gt.flip(-1)
        if generator.random() < 0.5:
            lq, gt = lq.mT, gt.mT
        if generator.random() < 0.2:
            order = generator.permutation(3)
            both = [*order, *(3 + order)]
            lq, gt = lq[:, [*both, 6, 7]], gt[:, both]
        return {"lq": lq.contiguous(), "gt": gt.contiguous()}


def _read(file: Path) -> tuple[Tensor, Tensor]:
    with np.load(file) as held:
        return torch.from_numpy(held["lq"]), torch.from_numpy(held["gt"])


class CellValidation(Dataset):
    """All crops of the validation files, in batches of at most 256, as they are stored."""

    def __init__(self, files: list[Path]) -> None:
        self.parts: list[tuple[Tensor, Tensor]] = []
        for lq, gt in map(_read, files):
            self.parts += zip(lq.split(256), gt.split(256), strict=True)

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        lq, gt = self.parts[index]
        return {"lq": lq.float(), "gt": gt.float()}


class WideCells(WholeBatches):
    """Cells of crops under haze and darkness, for the training of a SceneLight.

    Args:
        cells: folder that experiments/nano/wide_cells.py wrote.
        batch_size: crops of 128 px in a batch; of larger ones it has as many cells.
        batches: training batches an epoch.
        seed: seed of the batches.
    """

    def __init__(
        self, cells: str, batch_size: int = 32, batches: int = 1000, seed: int = 0
    ) -> None:
        if min(batch_size, batches) < 1:
            raise ValueError(
                f"data.batch_size is {batch_size} and data.batches {batches}: both must be positive"
            )
        super().__init__(CROP, batch_size, batches, workers=0)
        self.cells = cells
        self.seed = seed

    def _files(self, split: str) -> list[Path]:
        files = sorted(Path(self.cells).glob(f"{split}-*.npz"))
        if not files:
            raise ValueError(
                f"data.cells {self.cells}: it has no {split}-*.npz; experiments/nano/wide_cells.py"
                " makes them"
            )
        return files

    def setup(self, stage: str) -> None:
        if stage == "fit":
            sizes = self.batch_size, self.batches, self.seed
            self.train = CellBatches(self._files("train"), *sizes)
        self.val = CellValidation(self._files("val"))


def store(path: Path, lq: np.ndarray, gt: np.ndarray) -> None:
    """Writes the cells of one file of CELLS, see above."""
    assert lq.shape[1] == CHANNELS + 2 and gt.shape[1] == CHANNELS, (lq.shape, gt.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, lq=lq.astype(np.float16), gt=gt.astype(np.float16))
