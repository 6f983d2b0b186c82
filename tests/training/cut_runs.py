"""A run so small that hundreds of them are cut and resumed in a test: a linear layer, on the
project's own Trainer, loader, optimizer and callbacks."""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lit_mimdit.data.order import Cluster, EpochSampler, ResumableLoader, pairs_at_once, sample_seed
from lit_mimdit.systems.optim import OptimizerConfig, configure
from lit_mimdit.training.callbacks.stop import GracefulStop
from lit_mimdit.training.checkpoint import WholeFiles
from lit_mimdit.training.ema import EMA
from lit_mimdit.training.trainer import Trainer


class Numbers(Dataset):
    """Items (epoch, index) as vectors drawn from them."""

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, Tensor]:
        drawn = np.random.default_rng(sample_seed(0, *item)).normal(size=3)
        return torch.tensor(item), torch.from_numpy(drawn).float()


class Data(L.LightningDataModule):
    """`samples` items, `batch` of them in every step over all processes and batches."""

    def __init__(self, samples: int, batch: int, workers: int = 0) -> None:
        super().__init__()
        self.samples, self.batch, self.workers = samples, batch, workers

    def train_dataloader(self) -> DataLoader:
        trainer = self.trainer
        cluster = Cluster(trainer.world_size, trainer.global_rank)
        accumulate = trainer.accumulate_grad_batches
        sampler = EpochSampler(
            self.samples,
            pairs_at_once(self.batch, None, cluster.world_size, accumulate),
            seed=1,
            shuffle=True,
            drop_last=True,
            cluster=cluster,
            accumulate=accumulate,
            same=trainer.overfit_batches > 0,
        )
        return ResumableLoader(Numbers(), sampler, num_workers=self.workers)

    def val_dataloader(self) -> DataLoader:
        return DataLoader([torch.ones(3)], batch_size=1)


class Line(L.LightningModule):
    """Learns the sum of three numbers; notes which items each optimizer step takes."""

    def __init__(self, **optimizer: Any) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer, self.head = nn.Linear(3, 3), nn.Linear(3, 1)
        self.config = OptimizerConfig(**({"lr": 0.1, "warmup_steps": 2} | optimizer))
        self.steps: dict[int, list[tuple[int, int]]] = {}
        self.validated: list[int] = []

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        items, x = batch
        taken = self.steps.setdefault(self.trainer.global_step, [])
        taken += [tuple(item) for item in items.tolist()]
        return (self.head(self.layer(x)).squeeze(-1) - x.sum(-1)).square().mean()

    def validation_step(self, batch: Tensor, index: int) -> None:
        self.validated.append(self.trainer.global_step)

    def configure_optimizers(self) -> dict[str, Any]:
        return configure(
            self.named_parameters(), self.config, self.trainer.estimated_stepping_batches
        )


class StopAt(L.Callback):
    """Asks for a stop behind the n-th batch of the run, whatever a step is."""

    def __init__(self, batch: int) -> None:
        self.left = batch

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.left -= 1
        if self.left == 0:
            trainer.should_stop = True


class Writes(WholeFiles):
    """Notes the step of each state that is written, and where."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, str]] = []

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        if "global_step" in checkpoint:  # not the weights that a forked rank hands back
            self.seen.append((checkpoint["global_step"], Path(path).name))
        super().save_checkpoint(checkpoint, path, storage_options)


def fit(
    folder: Path,
    resume: Path | None = None,
    *,
    samples: int = 10,
    batch: int = 4,
    workers: int = 0,
    optimizer: dict[str, Any] | None = None,
    every: int = 1000,
    stop_at: int | None = None,
    **trainer: Any,
) -> tuple[Line, L.Trainer, Writes]:
    """One run into `folder`, whose last step is then in `folder/last.ckpt`."""
    module, writes = Line(**(optimizer or {})), Writes()
    keeper = ModelCheckpoint(
        folder, filename="{step}", save_last=True, save_top_k=-1, every_n_train_steps=every
    )
    callbacks: list[L.Callback] = [keeper, EMA(0.9), GracefulStop()]
    made = Trainer(
        **(
            {
                "default_root_dir": folder,
                "accelerator": "cpu",
                "devices": 1,
                "logger": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "use_distributed_sampler": False,
                "num_sanity_val_steps": 0,
                "limit_val_batches": 0,
                "max_epochs": -1,
                "max_steps": -1,
                "check_val_every_n_epoch": None,
                "val_check_interval": 1000,
                "plugins": [writes],
                "callbacks": callbacks + ([StopAt(stop_at)] if stop_at else []),
            }
            | trainer
        )
    )
    made.fit(module, datamodule=Data(samples, batch, workers), ckpt_path=resume)
    return module, made, writes


def read(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True)


def plain(value: Any) -> Any:
    """A checkpoint's part as plain values, to compare bit by bit."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value.tolist() if isinstance(value, Tensor) else value


def content(checkpoint: dict[str, Any]) -> Any:
    """All of a checkpoint that a cut may not change: what validation counted and the folder's
    names are left out."""
    loops = checkpoint["loops"]["fit_loop"]
    return plain(
        {
            "epoch": checkpoint["epoch"],
            "global_step": checkpoint["global_step"],
            "weights": checkpoint["state_dict"],
            "optimizer": checkpoint["optimizer_states"],
            "schedule": checkpoint["lr_schedulers"],
            "average": [v for k, v in checkpoint["callbacks"].items() if k.startswith("EMA")],
            "position": loops["state_dict"],
            "counters": {k: v for k, v in loops.items() if "val_loop" not in k},
        }
    )
