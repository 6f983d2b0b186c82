"""Pairs with what a branch made of them, for training what comes behind it."""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from lit_mimdit.data.image_io import read_rgb, to_tensor
from lit_mimdit.data.layouts import read_layout
from lit_mimdit.data.layouts.pairs import Pair, require_complete
from lit_mimdit.data.order import Cluster, EpochSampler, ResumableLoader, sample_seed
from lit_mimdit.data.pairs import augment_array, draw_symmetry
from lit_mimdit.data.sources import crop_box

IMAGES = ("lq", "gt", "restored")


class RestoredImages(Dataset):
    """Samples of `lq`, `gt`, `restored` (3, S, S) float32 in [0, 1] and `degradation`; a function of (seed, epoch, index) alone.

    Args:
        pairs: of a data set.
        restored: folder with a PNG for each pair, named as its LQ image (what `restore` writes).
        crop: side of the crops, pixels.
        random: crops and symmetries drawn; False takes the middle as it is.
        seed: of the draws.
    """

    def __init__(self, pairs: list[Pair], restored: Path, crop: int, random: bool, seed: int) -> None:
        self.pairs, self.crop, self.random, self.seed = pairs, crop, random, seed
        files = {pair.id: restored / f"{pair.lq.stem}.png" for pair in pairs}
        missing = [path.name for path in files.values() if not path.is_file()]
        if missing:
            raise ValueError(f"{len(missing)} pairs have no image in {restored} (such as {missing[0]}): restore them all first")
        self.images = [tuple(read_rgb(path) for path in (pair.lq, pair.gt, files[pair.id])) for pair in pairs]
        for pair, images in zip(pairs, self.images, strict=True):
            if len({image.shape for image in images}) > 1 or min(images[0].shape[:2]) < crop:
                raise ValueError(f"pair {pair.id}: its images differ in size, or are smaller than data.crop ({crop} px)")

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Any]:
        epoch, index = item
        images = self.images[index]
        draw = np.random.default_rng(sample_seed(self.seed, epoch, index)) if self.random else None
        top, left = crop_box(*images[0].shape[:2], self.crop, draw)
        images = [image[top : top + self.crop, left : left + self.crop] for image in images]
        if draw is not None:
            symmetry = draw_symmetry(draw, "dihedral")
            images = [augment_array(image, *symmetry) for image in images]
        return dict(zip(IMAGES, map(to_tensor, images), strict=True)) | {"degradation": self.pairs[index].degradation}


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Images stacked, names as a list."""
    return {name: torch.stack([sample[name] for sample in samples]) for name in IMAGES} | {
        "degradation": [s["degradation"] for s in samples]
    }


class RestoredPairs(L.LightningDataModule):
    """Two FoundIR-layout trees whose degraded images were restored by `restore`.

    Args:
        root: training tree.
        restored: its restored images, one folder.
        val_root: validation tree.
        val_restored: its restored images.
        meta: meta file of both trees.
        batch_size: training pairs a step and process.
        crop: side of the crops, pixels.
        seed: of order and draws.
    """

    def __init__(
        self,
        root: str,
        restored: str,
        val_root: str,
        val_restored: str,
        meta: str = "test.txt",
        batch_size: int = 16,
        crop: int = 96,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.folders = {"train": (Path(root), Path(restored)), "val": (Path(val_root), Path(val_restored))}
        self.meta, self.batch_size, self.crop, self.seed = meta, batch_size, crop, seed

    def _loader(self, split: str) -> DataLoader:
        (root, restored), train = self.folders[split], split == "train"
        pairs = require_complete(read_layout("foundir", root, meta=root / self.meta))
        dataset = RestoredImages(pairs, restored, self.crop, train, self.seed)
        cluster = Cluster(self.trainer.world_size, self.trainer.global_rank)
        sampler = EpochSampler(len(pairs), self.batch_size, self.seed, shuffle=train, drop_last=train, cluster=cluster)
        return ResumableLoader(dataset, sampler, collate_fn=collate)

    def train_dataloader(self) -> DataLoader:
        return self._loader("train")

    def val_dataloader(self) -> DataLoader:
        return self._loader("val")
