"""All routing callbacks collect the routers' decisions and show them from time to time.

They change nothing of the run.
"""

from typing import Any

import lightning as L
from torch import Tensor

from lit_mimdit.models.branch_config import BranchConfig
from lit_mimdit.routing.records import Choices, choices_of, records_of
from lit_mimdit.routing.tally import Tally, gather


def group_names(config: BranchConfig) -> list[str]:
    """0_spatial, 1_channel, ...: they sort as the model has them, and a kind may appear twice."""
    return [f"{number}_{kind}" for number, kind in enumerate(config.groups)]


class RoutingCallback(L.Callback):
    """Collects the decisions of training since the last time, and those of a whole validation or
    test, from all processes.

    A class that derives from it writes `show`, which every process calls with the same tallies.

    Args:
        every_n_steps: training steps between two looks.
    """

    def __init__(self, every_n_steps: int) -> None:
        if every_n_steps < 1:
            raise ValueError(
                f"{type(self).__name__}: every_n_steps is {every_n_steps}; it must be at least 1"
            )
        self.every_n_steps = every_n_steps
        self._seen: dict[str, list[tuple[list[str], Tensor, list[str], Choices]]] = {
            "train": [],
            "val": [],
            "test": [],
        }
        self._shown = 0

    def show(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        stage: str,
        tallies: dict[str, Tally],
    ) -> None:
        """Show the tallies by degradation (at least one) of `stage`: train, val or test."""
        raise NotImplementedError

    def _flush(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        seen, self._seen[stage] = self._seen[stage], []
        batches = [
            (list(zip(ids, seeds.tolist(), strict=True)), names, choices)
            for ids, seeds, names, choices in seen
        ]
        tallies = gather(records_of(batches) if batches else None)
        if tallies:
            self.show(trainer, pl_module, stage, tallies)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if not isinstance(getattr(pl_module, "branch_config", None), BranchConfig):
            raise ValueError(
                f"trainer.callbacks holds {type(self).__name__}, but this network has no routers:"
                " take it out"
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._shown, self._seen["train"] = trainer.global_step, []

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        # tensors stay on their device until the next look: no step waits for them
        self._seen["train"].append(
            (batch["id"], batch["seed"], batch["degradation"], choices_of(outputs["routing"]))
        )
        if (
            trainer.global_step % self.every_n_steps == 0 and trainer.global_step != self._shown
        ):  # once a step when accumulating
            self._shown = trainer.global_step
            self._flush(trainer, pl_module, "train")

    def _add_images(self, stage: str, outputs: Any, batch: Any) -> None:
        for row, decisions in enumerate(outputs["routing"]):  # of an image, a row a tile
            self._seen[stage].append(
                (
                    [batch["id"][row]],
                    batch["seed"][row : row + 1],
                    [batch["degradation"][row]],
                    choices_of(decisions).mean(),
                )
            )

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._seen["val"] = []

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._add_images("val", outputs, batch)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._flush(trainer, pl_module, "val")

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._seen["test"] = []

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._add_images("test", outputs, batch)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._flush(trainer, pl_module, "test")
