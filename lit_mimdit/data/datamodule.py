"""FoundIR-layout data for training, validation, test and prediction."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader

from lit_mimdit.data.benchmarks import benchmark_pairs
from lit_mimdit.data.buffers import PREFETCH, SharedBuffers
from lit_mimdit.data.faults import Fault
from lit_mimdit.data.layouts import DATASETS, Pair, read_layout, require_complete
from lit_mimdit.data.memory import keep_freed_memory
from lit_mimdit.data.mixing import Mixing, training_order
from lit_mimdit.data.order import Cluster, EpochSampler, ResumableLoader, pairs_at_once
from lit_mimdit.data.pairs import Augment, PairDataset, collate, with_floats
from lit_mimdit.data.photo_files import PhotoFiles, photographs_at
from lit_mimdit.data.quarantine import Quarantine
from lit_mimdit.data.sample_data import write_sample_data
from lit_mimdit.data.shards.cache import ShardCache
from lit_mimdit.data.shards.manifest import MANIFEST, PLAN, QUARANTINE, Manifest
from lit_mimdit.data.shards.source import ShardSource
from lit_mimdit.data.sources import FolderSource, Source


class FoundIRDataModule(L.LightningDataModule):
    """Pairs of degraded and clean images in the layout of FoundIR, or in shards.

    Args:
        root: folder, or s3://bucket/folder of shards, that `train`, `val` and `test` are relative
            to.
        batch_size: training pairs a step, over all processes and accumulated batches together.
        crop: side of the training crop in pixels.
        train: training pairs: a meta file with lines `GT-path, LQ-path`, or a folder of shards, or
            s3://... Commands `data shard` and `data latents` write shards.
        val: validation pairs, given like those of `train`, but no latents.
        test: test pairs, given like those of `val`. `null` reads the folders of `root`, such as
            `01Blur/{GT,LQ}`.
        benchmarks: data sets that `test` evaluates as well, whole. Each layout (`4krd`,
            `realrain1k`, `hazerd`, `uhdll`) has its root, or `{root: ..., frames: ...}` with the
            options of that layout.
        predict: photographs to restore with `predict`: a file or folder.
        micro_batch: training pairs that a process takes at once. `null` divides `batch_size` over
            the processes. The trainer's accumulate_grad_batches must make up the rest, and an error
            says so if it does not. Every step takes exactly `batch_size` pairs: an epoch leaves out
            the rest that fills no whole step.
        eval_batch_size: images in a batch of validation and test. More than 1 needs `eval_crop`.
        eval_crop: side of the middle crop for validation and test, pixels. `null` takes whole
            images.
        augment: `flip` mirrors at random, `dihedral` also turns by quarters, `none` leaves the
            crops as they are.
        workers: loader processes. 0 loads in the training process.
        cache: whether decoded images stay in memory, for small data sets.
        sample_data: whether the small sample data set is written to `root` if nothing is there.
        seed: seed of order, crops, augmentation, noise and times, and of every photograph that
            `predict` restores.
        mixing: `natural` takes each training pair once an epoch. `balanced` takes every degradation
            equally often.
        window: number of shards that are mixed at a time. `null` mixes all, which asks for pieces
            of all shards all the time.
        cache_dir: local folder in which whole shards are kept. `null` reads the pieces where they
            lie.
        cache_gb: largest size of that folder, in 10^9 bytes. A process needs `window` shards of it;
            `balanced` needs as many for each degradation.
        retries: how often a request to S3 that fails is tried again. 10 last about a minute and a
            half.
        max_broken: share of the training pairs that may be unreadable. They are listed in
            quarantine.csv in the run's folder, and another pair takes their place. Above it the run
            stops; 0 stops at the first.
        latents: what training takes of latent shards: `mode` of the GT's posterior, as encoding on
            the spot does, or a `sample` of it.
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
        mixing: Mixing = "natural",
        window: int | None = None,
        cache_dir: str | None = None,
        cache_gb: float = 100.0,
        retries: int = 10,
        max_broken: float = 0.01,
        latents: Literal["mode", "sample"] = "mode",
    ) -> None:
        super().__init__()
        counts = {
            "batch_size": batch_size,
            "crop": crop,
            "eval_batch_size": eval_batch_size,
            "micro_batch": micro_batch,
            "window": window,
        }
        for key, value in counts.items():
            if value is not None and value < 1:
                raise ValueError(f"data.{key} is {value}: it must be at least 1")
        if not 0 <= max_broken <= 1:
            raise ValueError(f"data.max_broken is {max_broken}: it is a share, from 0 to 1")
        if cache_gb <= 0:
            raise ValueError(
                f"data.cache_gb is {cache_gb}: it must be more than 0; for no cache set"
                " data.cache_dir to null"
            )
        if eval_batch_size > 1 and eval_crop is None:
            raise ValueError(
                f"data.eval_batch_size is {eval_batch_size}: images of one batch need one size, so"
                " set data.eval_crop"
            )
        if workers < 0:
            raise ValueError(f"data.workers is {workers}: it must be 0 or more")
        self.root = root if "://" in root else Path(root)
        self.batch_size = batch_size
        self.crop = crop
        self.micro_batch = micro_batch
        self.meta = {"train": train, "val": val, "test": test}
        self.predict_from, self.benchmarks = predict, benchmarks or {}
        self.eval_batch_size = eval_batch_size
        self.eval_crop = eval_crop
        self.augment = augment
        self.workers = workers
        self.cache = cache
        self.sample_data = sample_data
        self.seed = seed
        self.mixing = mixing
        self.window = window
        self.retries = retries
        self.latents = latents
        self.shard_cache = None if cache_dir is None else ShardCache(cache_dir, int(cache_gb * 1e9))
        self.max_broken = max_broken
        self.quarantine = None
        self._written = 0
        self._restored = {}
        self.latents_of: Manifest | None = None  # of the training latents, once they are opened

    def prepare_data(self) -> None:
        if (
            self.sample_data
            and isinstance(self.root, Path)
            and not (self.root.is_dir() and any(self.root.iterdir()))
        ):
            write_sample_data(self.root, seed=self.seed)

    def pairs(self, split: Literal["train", "val", "test"]) -> list[Pair]:
        """Returns the pairs of a split; ValueError if a file is missing or unpaired."""
        meta = self.meta[split]
        if not isinstance(self.root, Path):
            raise ValueError(
                f"data.{split} is {meta!r}: only shards can be read from {self.root}; name their"
                " folder"
            )
        if not self.root.is_dir():
            raise ValueError(
                f"data.root: there is no folder {str(self.root)!r}; `python -m lit_mimdit"
                f" sample-data {self.root}` writes a small set"
            )
        listed = read_layout("foundir", self.root, meta=None if meta is None else self.root / meta)
        if not listed.pairs and not listed.problems:
            raise ValueError(
                f"data.{split}: {self.root / (meta or '')} names no pairs; give a meta file or"
                " folder with some"
            )
        return require_complete(listed)

    @property
    def cluster(self) -> Cluster:
        trainer = self.trainer
        return (
            Cluster(trainer.world_size, trainer.global_rank) if trainer is not None else Cluster()
        )

    def per_step(self) -> int:
        """Returns how many training pairs this process takes at once, so that a step over all
        processes takes `batch_size`.
        """
        accumulate = self.trainer.accumulate_grad_batches if self.trainer is not None else 1
        return pairs_at_once(self.batch_size, self.micro_batch, self.cluster.world_size, accumulate)

    def step_options(self) -> dict[str, Any]:
        """Returns what the trainer says of an optimizer step, as options of EpochSampler."""
        if self.trainer is None:
            return {}
        return {
            "accumulate": self.trainer.accumulate_grad_batches,
            "same": self.trainer.overfit_batches > 0,
        }

    def source(self, split: Literal["train", "val", "test"]) -> Source:
        """Returns where the pairs of a split come from.

        They come from shards if it names a folder of them, else from image files.
        """
        name = self.meta[split] or "."
        place = (
            name
            if "://" in name
            else f"{self.root}/{name}"
            if isinstance(self.root, str)
            else str(self.root / name)
        )
        if "://" in place or Path(place, MANIFEST).is_file():
            source = ShardSource(place, self.shard_cache, self.retries, self.latents == "sample")
            if not len(source):
                raise ValueError(
                    f"data.{split}: {place} holds no pairs; give a folder of shards with some"
                )
            if split == "train":
                source.require(self.crop, self.augment)
                self.latents_of = source.manifest if source.latents else None
            elif source.latents:
                raise ValueError(
                    f"data.{split}: {place} holds latents, and evaluation needs images: name shards"
                    " of images, or a meta file"
                )
            return source
        if Path(place, PLAN).is_file():
            raise ValueError(
                f"data.{split}: {place} holds unfinished shards: give `python -m lit_mimdit data"
                " shard` again, it goes on"
            )
        return FolderSource(self.pairs(split), self.cache and split == "train")

    def _loader(self, dataset: PairDataset, sampler: EpochSampler) -> DataLoader:
        return ResumableLoader(
            dataset,
            sampler,
            num_workers=self.workers,
            prefetch_factor=PREFETCH if self.workers else None,
            collate_fn=SharedBuffers(collate),
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=keep_freed_memory,
            persistent_workers=False,  # workers of a resumed epoch must start at its middle
        )

    def train_dataloader(self) -> DataLoader:
        source = self.source("train")
        order = training_order(source.table(), self.mixing, self.window, self.seed)
        self.quarantine = Quarantine(len(source), self.max_broken)
        self.quarantine.load_state_dict(self._restored or {"rows": []})
        sampler = EpochSampler(
            len(source),
            self.per_step(),
            self.seed,
            shuffle=True,
            drop_last=True,
            cluster=self.cluster,
            order=order,
            **self.step_options(),
        )
        return self._loader(
            PairDataset(source, self.crop, True, self.augment, self.seed, replace=True), sampler
        )

    def _eval_dataloader(self, split: Literal["val", "test"]) -> DataLoader:
        source = self.source(split)
        if split == "test" and self.benchmarks:
            if not isinstance(source, FolderSource):
                raise ValueError(
                    "data.benchmarks are evaluated beside image files only: name a meta file as"
                    f" data.test, not {self.meta[split]!r}"
                )
            source = FolderSource(
                [replace(pair, dataset=DATASETS["foundir"]) for pair in source.pairs]
                + benchmark_pairs(self.benchmarks)
            )
        dataset = PairDataset(source, self.eval_crop, False, "none", self.seed)
        sampler = EpochSampler(
            len(source),
            self.eval_batch_size,
            self.seed,
            shuffle=False,
            drop_last=False,
            cluster=self.cluster,
        )
        return self._loader(dataset, sampler)

    def val_dataloader(self) -> DataLoader:
        return self._eval_dataloader("val")

    def test_dataloader(self) -> DataLoader:
        return self._eval_dataloader("test")

    def predict_dataloader(self) -> DataLoader:
        if self.predict_from is None:
            raise ValueError(
                "data.predict names nothing to restore: set it to a photograph or a folder of"
                " photographs"
            )
        own = photographs_at(self.predict_from, self.cluster)
        return DataLoader(PhotoFiles(own, self.seed), batch_size=None, num_workers=self.workers)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Bytes become floats on the device."""
        return with_floats(batch) if isinstance(batch, dict) else batch

    # -- what cannot be read

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if self.trainer is not None and self.trainer.training and self.quarantine is not None:
            self._take_note(batch.pop("faults", []))
        return batch

    def _take_note(self, faults: list[Fault]) -> None:
        """All ranks learn of the faults of all, so that all stop in the same step if they are too
        many.
        """
        trainer = self.trainer
        if trainer.strategy.reduce_boolean_decision(bool(faults), all=False):
            if trainer.world_size > 1:
                gathered: list[Any] = [None] * trainer.world_size
                torch.distributed.all_gather_object(gathered, faults)
                faults = [fault for rank in gathered for fault in rank]
            for fault in self.quarantine.add(faults, trainer.current_epoch, trainer.global_step):
                rank_zero_warn(
                    f"{'not read' if fault.lost else 'mended'}: {fault.id}: {fault.reason}"
                )
        if len(self.quarantine.rows) == self._written:
            return
        folder = trainer.log_dir or trainer.default_root_dir  # on every process: it is a broadcast
        if trainer.is_global_zero:
            self.quarantine.write(Path(folder, QUARANTINE))
        self._written = len(self.quarantine.rows)
        self.quarantine.require_few(str(Path(folder, QUARANTINE)))

    def state_dict(self) -> dict[str, Any]:
        return (
            self.quarantine.state_dict()
            if self.quarantine is not None and self.quarantine.rows
            else {}
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._restored = dict(state)
