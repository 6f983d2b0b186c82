"""Random crops of a folder of photographs, for pretraining the nano backbone."""

from pathlib import Path

import lightning as L
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from lit_mimdit.data.image_io import list_images, read_rgb


def pyramid(image: np.ndarray, longest: int, shortest: int) -> list[np.ndarray]:
    """Returns the photograph (H, W, 3) uint8 at `longest` pixels (longer side) and at halves of it,
    down to `shortest` (shorter side).
    """
    levels, side = [], min(longest, max(image.shape[:2]))
    while True:
        scale = side / max(image.shape[:2])
        height, width = (round(n * scale) for n in image.shape[:2])
        if min(height, width) < shortest:
            return levels
        levels.append(
            np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
        )
        side = round(side / 2)


def read_levels(folder: str, longest: int, shortest: int, key: str) -> list[np.ndarray]:
    """Pyramids of all photographs of a folder; `key` is the setting an error names."""
    files = list_images(folder) if Path(folder).is_dir() else []
    if not files:
        raise ValueError(
            f"{key}: no photographs in {folder!r}; experiments/nano/README.md says which to put"
            " there"
        )
    levels: list[np.ndarray] = []
    for file in files:
        image = read_rgb(file)
        levels += pyramid(
            image if image.dtype == np.uint8 else (image >> 8).astype(np.uint8), longest, shortest
        )
    if not levels:
        raise ValueError(
            f"{key}: every photograph in {folder!r} is smaller than the crop of {shortest} px; add"
            " larger ones, or lower the crop"
        )
    return levels


def level_weights(levels: list[np.ndarray]) -> np.ndarray:
    """Returns how often each level is drawn, summing to 1.

    It lies between "every photograph alike" and "every pixel alike".
    """
    side = np.sqrt([level.shape[0] * level.shape[1] for level in levels])
    return side / side.sum()


class CropBatches(Dataset):
    """Whole batches of crops; batch i of epoch e is a function of (seed, e, i) alone.

    An item is (B, 3, S, S) float32 in [-1, 1], flipped at random. `sizes` gives the (crop side,
    batch size) choices, drawn with the probabilities `shares`: a model that has seen several grids
    works on all of them.
    """

    def __init__(
        self,
        levels: list[np.ndarray],
        sizes: list[tuple[int, int]],
        shares: list[float],
        batches: int,
        seed: int,
    ) -> None:
        self.levels = levels
        self.sizes = sizes
        self.batches = batches
        self.seed = seed
        self.epoch = 0
        self.shares = np.asarray(shares) / np.sum(shares)
        self.weights = level_weights(levels)

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> torch.Tensor:
        if not 0 <= index < self.batches:
            raise IndexError(index)
        draw = np.random.default_rng([self.seed, self.epoch, index])
        size, count = self.sizes[draw.choice(len(self.sizes), p=self.shares)]
        batch = np.empty((count, size, size, 3), np.uint8)
        for row, which in enumerate(draw.choice(len(self.levels), size=count, p=self.weights)):
            level = self.levels[which]
            top, left = (
                draw.integers(0, level.shape[0] - size + 1),
                draw.integers(0, level.shape[1] - size + 1),
            )
            crop = level[top : top + size, left : left + size]
            batch[row] = crop[:, ::-1] if draw.random() < 0.5 else crop
        return torch.from_numpy(batch).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1.0


class PhotoCrops(L.LightningDataModule):
    """Crops of photographs for training; crops of other photographs, the same every time, for
    validation.

    Args:
        photos: folder of the training photographs (any depth, any image format).
        val_photos: folder of the validation photographs. None of them may be in `photos`.
        sizes: choices of `[crop side in pixels, batch size]`.
        shares: how often each choice of `sizes` is drawn.
        batches: training batches an epoch.
        val_batches: validation batches, of the first choice of `sizes`.
        longest: photographs are first reduced to this many pixels on their longer side.
        seed: seed of the crops.
    """

    def __init__(
        self,
        photos: str,
        val_photos: str,
        sizes: list[list[int]],
        shares: list[float],
        batches: int = 1000,
        val_batches: int = 8,
        longest: int = 1536,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if len(sizes) != len(shares) or not sizes:
            raise ValueError(
                f"data.sizes has {len(sizes)} entries and data.shares {len(shares)}: give as many,"
                " at least one"
            )
        self.photos = photos
        self.val_photos = val_photos
        self.longest = longest
        self.seed = seed
        self.sizes = [tuple(s) for s in sizes]
        self.shares = shares
        self.batches = batches
        self.val_batches = val_batches

    def setup(self, stage: str) -> None:
        largest = max(size for size, _ in self.sizes)
        if stage == "fit":
            levels = read_levels(self.photos, self.longest, largest, "data.photos")
            self.train = CropBatches(levels, self.sizes, self.shares, self.batches, self.seed)
        levels = read_levels(self.val_photos, self.longest, largest, "data.val_photos")
        self.val = CropBatches(levels, self.sizes[:1], [1.0], self.val_batches, seed=self.seed + 1)

    def train_dataloader(self) -> DataLoader:
        self.train.epoch = (
            self.trainer.current_epoch
        )  # reloaded every epoch by the experiment's trainer settings
        return DataLoader(self.train, batch_size=None)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val, batch_size=None)
