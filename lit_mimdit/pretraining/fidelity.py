"""Training of the fidelity network behind a finished branch, on what that branch makes of pairs
while they come.
"""

from collections import deque
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from lit_mimdit.inference.corrector import PACKAGE, load_corrector, save_fidelity
from lit_mimdit.inference.restore import load_restorer
from lit_mimdit.inference.restorer import Restorer
from lit_mimdit.models.fidelity import Fidelity
from lit_mimdit.training.ema import EMA
from lit_mimdit.training.optim import OptimizerConfig, configure

EPSILON = 1e-3  # a quarter of an 8-bit step, below which an error does not count
KEPT = 16  # restored batches that steps are drawn from where each is used several times
IMAGES = ("lq", "gt", "restored")


# e = mean |x - y| + w (mean |dx (x - y)| + mean |dy (x - y)|)
def error_per_image(image: Tensor, reference: Tensor, gradient_weight: float) -> Tensor:
    """Error of each of (B, 3, H, W), (B,):

    L1 of pixels, and of their horizontal and vertical differences.
    """
    apart = image - reference
    edges = apart.diff(dim=-1).abs().mean((1, 2, 3)) + apart.diff(dim=-2).abs().mean((1, 2, 3))
    return apart.abs().mean((1, 2, 3)) + gradient_weight * edges


def psnr(image: Tensor, reference: Tensor) -> Tensor:
    """PSNR in dB of each of (B, 3, H, W) in [0, 1], (B,)."""
    return -10.0 * torch.log10((image.clamp(0, 1) - reference).square().mean((1, 2, 3)))


class CorrectionTraining(L.LightningModule):
    """Of networks that correct images by the mean of the error above.

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
        self.optimizer_config, self.output, self.gradient_weight = (
            optimizer,
            output,
            gradient_weight,
        )
        self.network = self.build(tuple(widths), blocks).to(
            memory_format=torch.channels_last
        )  # a third faster on a CPU

    def build(self, widths: tuple[int, ...], blocks: int) -> nn.Module:
        """The network that trains."""
        raise NotImplementedError

    def correct(self, batch: dict[str, Any]) -> Tensor:
        """Corrected images (B, 3, H, W) of a batch, not clamped."""
        raise NotImplementedError

    def write(self, path: Path) -> None:
        """The finished network's file."""
        raise NotImplementedError

    def loss(self, error: Tensor) -> Tensor:
        """Of the error (B,) of each image."""
        return error.mean()

    def training_step(self, batch: dict[str, Any], index: int) -> Tensor:
        error = error_per_image(self.correct(batch), batch["gt"], self.gradient_weight)
        self.log("train/error", error.mean(), prog_bar=True, batch_size=len(error))
        return self.loss(error)

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        images = {"degraded": batch["lq"], "corrected": self.correct(batch)}
        if "restored" in batch:
            images["restored"] = batch["restored"]
        for name, image in images.items():
            values = psnr(image, batch["gt"])
            self.log(
                f"val/psnr_{name}",
                values.mean(),
                prog_bar=name == "corrected",
                batch_size=len(values),
                sync_dist=True,
            )

    def configure_optimizers(self) -> dict[str, Any]:
        return configure(
            self.named_parameters(), self.optimizer_config, self.trainer.estimated_stepping_batches
        )

    def on_fit_end(self) -> None:
        if not self.trainer.is_global_zero or self.trainer.fast_dev_run:
            return
        for callback in self.trainer.callbacks:
            if isinstance(callback, EMA):
                callback.copy_to(self)
        self.write(Path(self.output))


class FidelityTraining(CorrectionTraining):
    """Of the fidelity network, behind a branch that restores each batch as it would restore
    photographs: mean of log(e + EPSILON).

    Of the error e itself dark images, whose light is guessed, would make up nearly all; the
    logarithm counts a tenth less error alike in an image that was nearly clean.

    Restoring a batch costs far more than learning from it. So each is used in `reuse` steps, in the
    company of others: those steps' images are drawn from the last KEPT batches.

    Args:
        branch: finished branch, a file or "package".
        init: file of a network to start from, of the same `widths` and `blocks`, or "package";
            None: a new one.
        reuse: gradient steps an optimizer step of the trainer, one restored batch each time.
        blend: share of the trained weights in the finished network's, in (0, 1]; the rest is those
            of `init`. Between the two ends of a short training lie networks that keep more of what
            it did not teach (WiSE-FT, Wortsman et al., arXiv 2109.01903).
    """

    def __init__(
        self,
        branch: str = PACKAGE,
        init: str | None = None,
        reuse: int = 1,
        blend: float = 1.0,
        **kwargs: Any,
    ) -> None:
        if reuse < 1:
            raise ValueError(f"model.reuse is {reuse}: a batch is used at least once")
        if not 0 < blend <= 1 or (blend < 1 and init is None):
            raise ValueError(
                f"model.blend is {blend} and model.init {init}: give a share in (0, 1], and below 1"
                " the network to blend with"
            )
        super().__init__(**kwargs)
        self.branch, self.reuse, self.blend = branch, reuse, blend
        self.start: dict[str, Tensor] = {}
        if (start := load_corrector(init)) is not None:
            found, wanted = (
                (network.widths, network.blocks) for network in (start.network, self.network)
            )
            if found != wanted:
                raise ValueError(
                    f"model.init {init} has (widths, blocks) {found}, and the YAML says {wanted}:"
                    " make them the same"
                )
            self.start = start.network.state_dict()
            self.network.load_state_dict(self.start)
        self.restorer: Restorer | None = None
        self.kept: deque[dict[str, Tensor]] = deque(maxlen=KEPT if reuse > 1 else 1)

    def setup(self, stage: str) -> None:
        if self.restorer is None:
            checkpoint = None if self.branch == PACKAGE else self.branch
            self.restorer = load_restorer(checkpoint, None, self.trainer.strategy.root_device)

    def build(self, widths: tuple[int, ...], blocks: int) -> Fidelity:
        return Fidelity(widths, blocks)

    def correct(self, batch: dict[str, Any]) -> Tensor:
        return self.network(batch["restored"], batch["lq"])

    # w = (1 - b) w_init + b w_trained
    def write(self, path: Path) -> None:
        if self.blend < 1:
            with torch.no_grad():
                for name, trained in self.network.state_dict().items():
                    trained.copy_(self.start[name].to(trained).lerp(trained, self.blend))
        save_fidelity(path, self.network)

    def loss(self, error: Tensor) -> Tensor:
        return (error + EPSILON).log().mean()

    def restored(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with what the branch makes of it, in float32 whatever the small network's
        precision.
        """
        with torch.autocast(self.device.type, enabled=False):
            restored, _ = self.restorer(batch["lq"], batch["seed"], ids=batch["id"])
        return batch | {"restored": restored.to(batch["lq"])}

    def on_train_batch_start(self, batch: dict[str, Any], index: int) -> None:
        batch = self.restored(batch)
        self.kept.append({name: batch[name] for name in IMAGES})

    def drawn(self) -> dict[str, Tensor]:
        """As many images as a batch has, of all that are kept; a batch as it is where each is used
        once.
        """
        if len(self.kept) == 1:
            return self.kept[0]
        sizes = [len(batch["lq"]) for batch in self.kept]
        rows = torch.randperm(sum(sizes))[: sizes[-1]].to(self.device)
        return {name: torch.cat([batch[name] for batch in self.kept])[rows] for name in IMAGES}

    def optimizer_step(self, epoch: int, index: int, optimizer: Any, closure: Any = None) -> None:
        for _ in range(self.reuse):
            optimizer.step(closure=closure)

    def training_step(self, batch: dict[str, Any], index: int) -> Tensor:
        return super().training_step(self.drawn(), index)

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        super().validation_step(self.restored(batch), index)
