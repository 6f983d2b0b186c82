"""Photographs under the wide degradations: endless batches for training, fixed ones to validate."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lit_mimdit.data.degradations import to_uint8
from lit_mimdit.data.degraded import MARGIN, dimmed
from lit_mimdit.data.pairs import augment_array, to_planes
from lit_mimdit.data.photos import level_weights, read_levels
from lit_mimdit.data.wide.mixture import KINDS, SHARES, Step, degrade, draw

CLEAN = "clean"
BRIGHTEST = 5.0  # times the sRGB values; what exceeds white is lost
SOFTEST = 0.3, 1.3  # pixels: deviations of the Gaussian that softens a clean photograph


class WideBatches(Dataset):
    """Whole batches of pairs; batch i of epoch e is a function of (seed, e, i) alone.

    A batch is a dict of lq and gt, (B, 3, S, S) float32 in [0, 1].

    Args:
        levels: photographs (H, W, 3) uint8 at several scales.
        crop: side S of the crops, pixels.
        batch_size: B.
        batches: how many an epoch has.
        seed: of everything.
        dim: share of the crops that are dimmed first, so that a dark scene may be clean.
        kinds: the kinds to take in turn, one a batch, with strengths spread evenly over a batch;
            None draws mixtures.
        shares: how often each kind is drawn for mixtures; None: as `mixture.SHARES` says.
        kept: kinds that the clean image keeps. They come before the others.
        brighten: share of the crops that are brightened first, up to BRIGHTEST times, so that a
            white surface may be clean.
        soften: share of the crops that are softened first, with a Gaussian of SOFTEST, since no
            lens is as sharp as a reduced photograph.
    """

    def __init__(
        self,
        levels: list[np.ndarray],
        crop: int,
        batch_size: int,
        batches: int,
        seed: int,
        dim: float = 0.0,
        kinds: list[str] | None = None,
        shares: dict[str, float] | None = None,
        kept: Sequence[str] = (),
        brighten: float = 0.0,
        soften: float = 0.0,
    ) -> None:
        self.levels = levels
        self.crop = crop
        self.batch_size = batch_size
        self.batches = batches
        self.seed = seed
        self.dim = dim
        self.kinds = kinds
        self.shares = SHARES if shares is None else shares
        self.kept = kept
        self.brighten = brighten
        self.soften = soften
        self.epoch, self.weights = 0, level_weights(levels)

    def __len__(self) -> int:
        return self.batches

    def _kind(self, index: int) -> str | None:
        return None if self.kinds is None else self.kinds[index % len(self.kinds)]

    def _clean(self, generator: np.random.Generator) -> np.ndarray:
        """A crop with its margin, turned and flipped, (S + 2 MARGIN, same, 3) uint8."""
        level = self.levels[generator.choice(len(self.levels), p=self.weights)]
        side = min(self.crop + 2 * MARGIN, *level.shape[:2])
        top, left = (int(generator.integers(0, n - side + 1)) for n in level.shape[:2])
        crop = level[top : top + side, left : left + side]
        crop = augment_array(crop, bool(generator.integers(2)), int(generator.integers(4)))
        crop = np.ascontiguousarray(crop)  # rows in order, as all that follows reads them
        if generator.random() < self.dim:
            crop = dimmed(crop, generator.uniform(0.5, 1), generator.uniform(1, 1.8))
        if self.brighten and generator.random() < self.brighten:
            crop = dimmed(crop, BRIGHTEST ** generator.random(), 1)
        if self.soften and generator.random() < self.soften:
            deviation = generator.uniform(*SOFTEST)
            crop = to_uint8(gaussian_filter(np.float32(crop) / 255, (deviation, deviation, 0)))
        return crop

    def pixels(self, index: int) -> tuple[Tensor, Tensor]:
        """Returns lq and gt of a batch as bytes, (B, 3, S, S) uint8: a quarter to hand over."""
        if not 0 <= index < self.batches:
            raise IndexError(index)
        generator = np.random.default_rng([self.seed, self.epoch, index])
        kind = self._kind(index)
        pairs: list[tuple[Tensor, Tensor]] = []
        for row in range(self.batch_size):
            if kind is None:
                steps = draw(generator, self.shares)
            elif kind == CLEAN:
                steps = []
            else:
                steps = [Step(kind, (row + 0.5) / self.batch_size)]
            clean = self._clean(generator)
            if scene := [step for step in steps if step.kind in self.kept]:
                clean = to_uint8(degrade(np.float32(clean) / np.float32(255), scene, generator))
                steps = [step for step in steps if step.kind not in self.kept]
            degraded = to_uint8(degrade(np.float32(clean) / np.float32(255), steps, generator))
            start = (len(clean) - self.crop) // 2
            window = np.s_[start : start + self.crop, start : start + self.crop]
            pairs.append((to_planes(degraded[window]), to_planes(clean[window])))
        lq, gt = (torch.stack(images) for images in zip(*pairs, strict=True))
        return lq, gt

    def __getitem__(self, index: int) -> dict[str, Any]:
        lq, gt = (images.float() / 255 for images in self.pixels(index))
        return {"lq": lq, "gt": gt, "kind": self._kind(index) or "any"}


class WholeBatches(L.LightningDataModule):
    """Loaders of data sets whose items are whole batches: `train`, anew in every epoch, and `val`.

    A derived class makes both in `setup`.

    Args:
        crop: side of the training crops, pixels.
        batch_size: crops in a batch.
        batches: training batches an epoch.
        workers: loader processes.
    """

    train: Any
    val: Dataset

    def __init__(self, crop: int, batch_size: int, batches: int, workers: int) -> None:
        super().__init__()
        if min(crop, batch_size, batches) < 1:
            raise ValueError(
                f"data.crop is {crop}, data.batch_size {batch_size} and data.batches {batches}: all"
                " must be positive"
            )
        if workers < 0:
            raise ValueError(f"data.workers is {workers}: it must be 0 or more")
        self.crop = crop
        self.batch_size = batch_size
        self.batches = batches
        self.workers = workers

    def train_dataloader(self) -> DataLoader:
        self.train.epoch = self.trainer.current_epoch  # reloaded every epoch by the trainer
        return DataLoader(self.train, batch_size=None, num_workers=self.workers)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val, batch_size=None, num_workers=self.workers)


class WidePhotos(WholeBatches):
    """Crops of photographs under `severity: any`; validation takes each kind by itself.

    Args:
        photos: folder of the training photographs (any depth, any image format).
        val_photos: folder of the validation photographs. None of them may be in `photos`.
        crop: side of the crops, pixels.
        batch_size: crops in a batch.
        batches: training batches an epoch.
        val_batches: validation batches of each kind, and of clean images.
        longest: photographs are first reduced to this many pixels on their longer side.
        dim: share of the training crops that are dimmed before they are degraded.
        seed: seed of the crops.
        workers: loader processes. 0 makes crops in the training process. Any number gives the same
            batches.
        shares: how often each kind is drawn, such as {rain: 0.4, noise: 0.3}. What is not named is
            never drawn. `null` is the usual mixture.
        kept: kinds that the clean image keeps, so that a network learns to leave them alone. They
            come before the others.
        soften: share of the training crops that are softened before they are degraded. So a
            network learns to leave the softness of a lens alone.
    """

    def __init__(
        self,
        photos: str,
        val_photos: str,
        crop: int = 96,
        batch_size: int = 16,
        batches: int = 1000,
        val_batches: int = 2,
        longest: int = 1536,
        dim: float = 0.1,
        seed: int = 0,
        workers: int = 0,
        shares: dict[str, float] | None = None,
        kept: Sequence[str] = (),
        soften: float = 0.0,
    ) -> None:
        super().__init__(crop, batch_size, batches, workers)
        for key, named in (("shares", shares or {}), ("kept", kept)):
            if unknown := [name for name in named if name not in KINDS]:
                raise ValueError(f"data.{key} has {unknown[0]!r}: the kinds are {', '.join(KINDS)}")
        if shares is not None and (min(shares.values(), default=0) < 0 or not any(shares.values())):
            raise ValueError(
                f"data.shares is {shares}: give shares of 0 or more, not all of them 0"
            )
        for key, share in (("dim", dim), ("soften", soften)):
            if not 0 <= share <= 1:
                raise ValueError(f"data.{key} is {share}: it is a share, from 0 to 1")
        self.photos = photos
        self.val_photos = val_photos
        self.longest = longest
        self.val_batches = val_batches
        self.dim = dim
        self.seed = seed
        self.shares = shares
        self.kept = kept
        self.soften = soften

    def setup(self, stage: str) -> None:
        kinds = [*KINDS, CLEAN]
        if stage == "fit":
            levels = read_levels(self.photos, self.longest, self.crop, "data.photos")
            sizes = self.crop, self.batch_size, self.batches, self.seed, self.dim
            self.train = WideBatches(
                levels, *sizes, shares=self.shares, kept=self.kept, soften=self.soften
            )
        levels = read_levels(self.val_photos, self.longest, self.crop, "data.val_photos")
        sizes = self.crop, 16, self.val_batches * len(kinds), self.seed + 1
        self.val = WideBatches(levels, *sizes, kinds=kinds, kept=self.kept)
