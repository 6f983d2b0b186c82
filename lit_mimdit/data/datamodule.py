"""FoundIR-layout data for training, validation, test and prediction."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset

from lit_mimdit.data.image_io import ImageError, Photo, list_images, read_photo
from lit_mimdit.data.layouts import DATASETS, Pair, read_layout, require_complete
from lit_mimdit.data.order import Cluster, EpochSampler, ResumableLoader
from lit_mimdit.data.pairs import Augment, PairDataset, collate
from lit_mimdit.data.sample_data import write_sample_data


class PhotoFiles(Dataset):
    """Photographs to restore, without references: (name of the result, Photo, seed of the noise); for a broken file its ImageError."""

    def __init__(self, files: dict[Path, Path], seed: int) -> None:
        self.files, self.seed = list(files.items()), seed

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Path, Photo | ImageError, int]:
        name, path = self.files[index]
        try:
            return name, read_photo(path), self.seed
        except ImageError as error:
            return name, error, self.seed


class FoundIRDataModule(L.LightningDataModule):
    """Pairs of degraded and clean images in the layout of FoundIR.

    Args:
        root: folder that the paths of the meta files are relative to.
        batch_size: training pairs a step, over all processes and accumulated batches together.
        crop: side of the training crop in pixels.
        train: meta file of the training pairs (`GT-path, LQ-path` lines), relative to `root`.
        val: the same for validation.
        test: the same for test; null reads the folders of `root` (`01Blur/{GT,LQ}`, ...).
        benchmarks: data sets that `test` evaluates as well, whole: layout (4krd, realrain1k, hazerd, uhdll) and its root, or
            {root: ..., frames: ...} with the options of that layout.
        predict: photographs to restore with `predict`: a file or folder.
        micro_batch: training pairs a process takes at once; null divides `batch_size` over the processes. The trainer's
            accumulate_grad_batches must make up the rest, and an error says so if it does not.
        eval_batch_size: images a batch in validation and test; larger than 1 needs `eval_crop`.
        eval_crop: middle crop for validation and test in pixels; null takes whole images.
        augment: "none", "flip" or "dihedral".
        workers: loader processes; 0 loads in the training process.
        cache: keep decoded images in memory (small data sets).
        sample_data: write the small sample data set to `root` if nothing is there.
        seed: of order, crops, augmentation, noise and times; the seed of every photograph that `predict` restores.
    """

    def __init__(
        self,
        root: str,
        batch_size: int,
        crop: int,
        train: str = "train.txt",
        val: str = "val.txt",
        test: str | None = "test.txt",
        predict: str | None = None,
        micro_batch: int | None = None,
        eval_batch_size: int = 1,
        eval_crop: int | None = None,
        augment: Augment = "dihedral",
        workers: int = 0,
        cache: bool = False,
        sample_data: bool = False,
        seed: int = 0,
        benchmarks: dict[str, str | dict[str, str]] | None = None,
    ) -> None:
        super().__init__()
        for key, value in {"batch_size": batch_size, "crop": crop, "eval_batch_size": eval_batch_size, "micro_batch": micro_batch}.items():
            if value is not None and value < 1:
                raise ValueError(f"data.{key} is {value}: it must be at least 1")
        if eval_batch_size > 1 and eval_crop is None:
            raise ValueError(f"data.eval_batch_size is {eval_batch_size}: images of one batch need one size, so set data.eval_crop")
        if workers < 0:
            raise ValueError(f"data.workers is {workers}: it must be 0 or more")
        self.root, self.batch_size, self.crop, self.micro_batch = Path(root), batch_size, crop, micro_batch
        self.meta = {"train": train, "val": val, "test": test}
        self.predict_from, self.benchmarks = predict, benchmarks or {}
        self.eval_batch_size, self.eval_crop, self.augment = eval_batch_size, eval_crop, augment
        self.workers, self.cache, self.sample_data, self.seed = workers, cache, sample_data, seed

    def prepare_data(self) -> None:
        if self.sample_data and not (self.root.is_dir() and any(self.root.iterdir())):
            write_sample_data(self.root, seed=self.seed)

    def pairs(self, split: Literal["train", "val", "test"]) -> list[Pair]:
        """The pairs of a split; ValueError if a file is missing or unpaired."""
        meta = self.meta[split]
        if not self.root.is_dir():
            raise ValueError(
                f"data.root: there is no folder {str(self.root)!r}; `python -m lit_mimdit sample-data {self.root}` writes a small set"
            )
        found = read_layout("foundir", self.root, meta=None if meta is None else self.root / meta)
        if not found.pairs and not found.problems:
            raise ValueError(f"data.{split}: {self.root / (meta or '')} names no pairs")
        return require_complete(found)

    def benchmark_pairs(self) -> list[Pair]:
        """The pairs of all benchmarks, with their data set's name."""
        found: list[Pair] = []
        for layout, place in self.benchmarks.items():
            options = {"root": place} if isinstance(place, str) else dict(place)
            if layout not in DATASETS or "root" not in options:
                raise ValueError(f"data.benchmarks: {layout!r} needs a layout of {', '.join(DATASETS)} and a root, got {place!r}")
            pairs = require_complete(read_layout(layout, options.pop("root"), **options))
            found += [replace(pair, dataset=DATASETS[layout], id=f"{DATASETS[layout]}/{pair.id}") for pair in pairs]
        return found

    @property
    def cluster(self) -> Cluster:
        trainer = self.trainer
        return Cluster(trainer.world_size, trainer.global_rank) if trainer is not None else Cluster()

    def per_step(self) -> int:
        """Training pairs that this process takes at once, so that a step over all processes takes `batch_size`."""
        world, accumulate = self.cluster.world_size, self.trainer.accumulate_grad_batches if self.trainer is not None else 1
        micro = self.micro_batch or self.batch_size // (world * accumulate)
        if micro * world * accumulate != self.batch_size:
            raise ValueError(
                f"data.batch_size is {self.batch_size}, but {world} processes x {accumulate} accumulated batches x {micro} pairs make "
                f"{micro * world * accumulate}: change data.micro_batch, trainer.accumulate_grad_batches or data.batch_size"
            )
        return micro

    def _loader(self, split: Literal["train", "val", "test"], dataset: PairDataset, batch_size: int) -> DataLoader:
        training = split == "train"
        sampler = EpochSampler(len(dataset), batch_size, self.seed, shuffle=training, drop_last=training, cluster=self.cluster)
        return ResumableLoader(
            dataset,
            sampler,
            num_workers=self.workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=False,  # workers of a resumed epoch must start at its middle
        )

    def train_dataloader(self) -> DataLoader:
        dataset = PairDataset(self.pairs("train"), self.crop, True, self.augment, self.seed, self.cache)
        return self._loader("train", dataset, self.per_step())

    def _eval_dataloader(self, split: Literal["val", "test"]) -> DataLoader:
        pairs = self.pairs(split)
        if split == "test" and self.benchmarks:
            pairs = [replace(pair, dataset=DATASETS["foundir"]) for pair in pairs] + self.benchmark_pairs()
        return self._loader(split, PairDataset(pairs, self.eval_crop, False, "none", self.seed), self.eval_batch_size)

    def val_dataloader(self) -> DataLoader:
        return self._eval_dataloader("val")

    def test_dataloader(self) -> DataLoader:
        return self._eval_dataloader("test")

    def predict_dataloader(self) -> DataLoader:
        if self.predict_from is None:
            raise ValueError("data.predict names nothing to restore: set it to a photograph or a folder of photographs")
        source = Path(self.predict_from)
        found = [source] if source.is_file() else list_images(source)
        if not found:
            raise ValueError(f"data.predict: no images in {str(source)!r}")
        files: dict[Path, Path] = {}
        for path in found:
            name = path.relative_to(source.parent if source.is_file() else source).with_suffix(".png")
            if name in files:
                raise ValueError(f"data.predict: {files[name]} and {path} would both be written to {name}: restore them separately")
            files[name] = path
        own = dict(list(files.items())[self.cluster.rank :: self.cluster.world_size])
        return DataLoader(PhotoFiles(own, self.seed), batch_size=None, num_workers=self.workers)
