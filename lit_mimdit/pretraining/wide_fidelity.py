"""Training of the fidelity network under wide degradations, before any branch is behind it."""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lit_mimdit.inference.corrector import load_corrector, save_fidelity
from lit_mimdit.models.fidelity import Fidelity
from lit_mimdit.pretraining.fidelity import CorrectionTraining, error_per_image, psnr

Loss = Literal["relative", "l1", "log"]


class WideFidelity(CorrectionTraining):
    """Trains the fidelity network by itself: it sees the degraded image as the restored one, too.

    Errors are weighed by how damaged an image is. Of the error e itself, haze and darkness make up
    nearly all, and what was clean is harmed; log(e) leaves haze and darkness alone, since its
    gradient vanishes for large errors. The relative loss e / (e_lq + floor) has weights that do not
    change while training.

    Args:
        init: file of a network to start from; None: a new one.
        gain: see Fidelity.
        kind: "relative", "l1" or "log", log(e + floor).
        floor: error of an image that counts as damaged, in the unit of the error.
    """

    def __init__(
        self,
        init: str | None = None,
        gain: bool = True,
        kind: Loss = "relative",
        floor: float = 0.05,
        **kwargs: Any,
    ) -> None:
        if floor <= 0:
            raise ValueError(f"model.floor is {floor}: it must be positive")
        self.gain = gain
        super().__init__(**kwargs)
        self.kind, self.floor = kind, floor
        if (start := load_corrector(init)) is not None:
            self.network.load_state_dict(start.network.state_dict())

    def build(self, widths: tuple[int, ...], blocks: int) -> Fidelity:
        return Fidelity(widths, blocks, self.gain)

    def correct(self, batch: dict[str, Any]) -> Tensor:
        return self.network(batch["lq"], batch["lq"])

    def write(self, path: Path) -> None:
        save_fidelity(path, self.network)

    # L = mean e / (e_lq + floor), mean e, or mean log(e + floor)
    def training_step(self, batch: dict[str, Any], index: int) -> Tensor:
        lq, gt = (
            batch[name].contiguous(memory_format=torch.channels_last) for name in ("lq", "gt")
        )
        error = error_per_image(self.correct({"lq": lq}), gt, self.gradient_weight)
        before = error_per_image(lq, gt, self.gradient_weight)
        relative = (error / (before + self.floor)).mean()
        self.log("train/relative", relative, prog_bar=True, batch_size=len(error))
        if self.kind == "relative":
            return relative
        return error.mean() if self.kind == "l1" else (error + self.floor).log().mean()

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        """Log for each kind the mean gain in PSNR over the degraded image, dB."""
        after = psnr(self.correct(batch).float(), batch["gt"]).clamp(max=60)
        if batch["kind"] == "clean":
            value = after.mean()
        else:
            value = (after - psnr(batch["lq"], batch["gt"]).clamp(max=60)).mean()
        self.log(f"val/{batch['kind']}", value, batch_size=len(after), sync_dist=True)
