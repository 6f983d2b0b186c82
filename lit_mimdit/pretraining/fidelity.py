"""Training of the fidelity network behind a finished branch, and of the same network by itself, for comparison."""

from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from safetensors.torch import save_file
from torch import Tensor

from lit_mimdit.models.fidelity import Correction, Fidelity
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
        sees: "both", or "degraded": x_lq + F(x_lq), plain regression, which shows what the branch adds.
    """

    def __init__(
        self,
        optimizer: OptimizerConfig,
        output: str,
        widths: tuple[int, ...] = (20, 36, 56),
        blocks: int = 2,
        gradient_weight: float = 0.5,
        sees: Literal["both", "degraded"] = "both",
    ) -> None:
        super().__init__()
        self.optimizer_config, self.output, self.gradient_weight, self.sees = optimizer, output, gradient_weight, sees
        self.network = Fidelity(widths, blocks) if sees == "both" else Correction(1, tuple(widths), blocks)

    def _correct(self, batch: dict[str, Any]) -> Tensor:
        if self.sees == "both":
            return self.network(batch["restored"], batch["lq"])
        return batch["lq"] + self.network(batch["lq"] - 0.5)

    def training_step(self, batch: dict[str, Any], index: int) -> Tensor:
        difference = self._correct(batch) - batch["gt"]
        l1, edges = difference.abs().mean(), difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
        self.log_dict({"train/l1": l1, "train/edges": edges}, prog_bar=True, batch_size=len(difference))
        return l1 + self.gradient_weight * edges

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        images = {"degraded": batch["lq"], "corrected": self._correct(batch)} | (
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
        path = Path(self.output)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.half().contiguous() for name, tensor in self.network.state_dict().items()}, path)
