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

EPSILON = 1e-3  # a quarter of an 8-bit step, below which an error does not count


# e = mean |x - y| + w (mean |dx (x - y)| + mean |dy (x - y)|)
def error_per_image(image: Tensor, reference: Tensor, gradient_weight: float) -> Tensor:
    """Error of each of (B, 3, H, W), (B,): L1 of pixels, and of their horizontal and vertical differences."""
    apart = image - reference
    edges = apart.diff(dim=-1).abs().mean((1, 2, 3)) + apart.diff(dim=-2).abs().mean((1, 2, 3))
    return apart.abs().mean((1, 2, 3)) + gradient_weight * edges


def psnr(image: Tensor, reference: Tensor) -> Tensor:
    """PSNR in dB of each of (B, 3, H, W) in [0, 1], (B,)."""
    return -10.0 * torch.log10((image.clamp(0, 1) - reference).square().mean((1, 2, 3)))


class FidelityTraining(L.LightningModule):
    """Mean over images of log(e + EPSILON), e the error above.

    Of the error itself dark images, whose light is guessed, would make up nearly all; the logarithm counts a tenth less error alike in
    an image that was nearly clean.

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
        widths: tuple[int, ...] = (20, 36, 54),
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
        error = error_per_image(self.correct(batch), batch["gt"], self.gradient_weight)
        self.log("train/error", error.mean(), prog_bar=True, batch_size=len(error))
        return (error + EPSILON).log().mean()

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
