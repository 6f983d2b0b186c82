"""Training of the fidelity network behind a finished branch."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from lit_mimdit.inference.corrector import save_fidelity
from lit_mimdit.models.fidelity import Fidelity
from lit_mimdit.training.ema import EMA
from lit_mimdit.training.optim import OptimizerConfig, configure


def psnr(image: Tensor, reference: Tensor) -> Tensor:
    """PSNR in dB of each of (B, 3, H, W) in [0, 1], (B,)."""
    return -10.0 * torch.log10((image.clamp(0, 1) - reference).square().mean((1, 2, 3)))


class FidelityTraining(L.LightningModule):
    """L1 between x_hat + F([x_hat ; x_lq]) and the clean image.

    Args:
        optimizer: see OptimizerConfig.
        output: file of the finished network (.safetensors).
        widths: see Correction.
        blocks: see Correction.
        gradient_weight: weight of the L1 on horizontal and vertical differences.
    """

    def __init__(
        self,
        optimizer: OptimizerConfig,
        output: str,
        widths: tuple[int, ...] = (20, 36, 56),
        blocks: int = 2,
        gradient_weight: float = 0.5,
    ) -> None:
        super().__init__()
        self.optimizer_config, self.output, self.gradient_weight = optimizer, output, gradient_weight
        self.network = self.build(tuple(widths), blocks)

    def build(self, widths: tuple[int, ...], blocks: int) -> nn.Module:
        """The network that trains."""
        return Fidelity(widths, blocks)

    def correct(self, batch: dict[str, Any]) -> Tensor:
        """Corrected images (B, 3, H, W) of a batch, not clamped."""
        return self.network(batch["restored"], batch["lq"])

    def training_step(self, batch: dict[str, Any], index: int) -> Tensor:
        difference = self.correct(batch) - batch["gt"]
        l1, edges = difference.abs().mean(), difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
        self.log_dict({"train/l1": l1, "train/edges": edges}, prog_bar=True, batch_size=len(difference))
        return l1 + self.gradient_weight * edges

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        images = {"degraded": batch["lq"], "corrected": self.correct(batch)} | (
            {"restored": batch["restored"]} if "restored" in batch else {}
        )
        for name, image in images.items():
            values = psnr(image, batch["gt"])
            self.log(f"val/psnr_{name}", values.mean(), prog_bar=name == "corrected", batch_size=len(values), sync_dist=True)

    def configure_optimizers(self) -> dict[str, Any]:
        return configure(self.named_parameters(), self.optimizer_config, self.trainer.estimated_stepping_batches)

    def on_fit_end(self) -> None:
        if not self.trainer.is_global_zero or self.trainer.fast_dev_run:
            return
        for callback in self.trainer.callbacks:
            if isinstance(callback, EMA):
                callback.copy_to(self)
        self.write(Path(self.output))

    def write(self, path: Path) -> None:
        """The finished network's file."""
        save_fidelity(path, self.network)
