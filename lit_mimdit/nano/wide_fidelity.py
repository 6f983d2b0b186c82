"""Training of the fidelity network under wide degradations, by itself or behind a branch."""

from pathlib import Path
from typing import Any, ClassVar, Literal

import lightning as L
import torch
from torch import Tensor

from lit_mimdit.data.wide_photos import CLEAN
from lit_mimdit.evaluation.pixel import psnr
from lit_mimdit.inference.corrector import load_corrector
from lit_mimdit.inference.fidelity_file import read_light, save_fidelity
from lit_mimdit.models.fidelity import Fidelity
from lit_mimdit.nano.charbonnier import charbonnier_per_image
from lit_mimdit.nano.widen import holds, widen
from lit_mimdit.systems.blending import blend_with, require_share
from lit_mimdit.systems.optim import OptimizerConfig, configure_for

Loss = Literal["relative", "l1", "log"]


class WideFidelity(L.LightningModule):
    """Trains the fidelity network behind a branch, or by itself.

    Batches of a bank (data/wide_bank.py) hold what a branch has restored. In other batches the
    network sees the degraded image in its place, too.

    Errors are weighed by how damaged an image is. Haze and darkness make up nearly all of the
    error e itself, and with it what was clean is harmed. The loss log(e) leaves haze and darkness
    alone, since its gradient vanishes for large errors. The relative loss e / (e_lq + floor) has
    weights that do not change while training.

    Below `smooth`, an error of a pixel counts by its square (charbonnier.py). An L1
    has the slope 1 at any error, and with it clean images kept the network at the identity.

    Args:
        optimizer: settings of the optimizer and its schedule.
        output: file of the finished network (.safetensors).
        init: file of a network to start from, of as many levels. A smaller one is widened, and
            computes the same at first. `null` makes a new one.
        widths: channels of the U-Net by level. Each level after the first halves the resolution.
        blocks: residual blocks on each level, before and after the coarser levels.
        gain: whether the network also has gains, one for each channel and pixel of the input.
        gradient_weight: weight of the L1 on horizontal and vertical differences.
        kind: how an error `e` counts. `l1` takes it as it is, `log` takes log(e + floor) and adds
            linear * e. `relative` divides it by the degraded image's error plus `floor`.
        floor: error of an image that counts as damaged, in the unit of the error.
        linear: what makes large errors count beside the logarithm, whose slope vanishes there.
        smooth: error of a pixel below which it counts by its square; 0 is the L1.
        cleaner: file of a network that cleans the degraded image first. It stays as it is, and the
            finished file has both. `null` does without.
        light: file of the light of a scene (models/scene_light.py), which follows cleaner and
            deblurrer and stays as it is, too. `null` does without.
        deblurrer: file of a network that takes blur away next. It stays as it is, too. `null` does
            without.
        blend: share of what was learnt in the finished weights; the rest is the network that it
            started from. Less than 1 needs `init`. Blended weights keep more of what that network
            could do (WiSE-FT, arXiv 2109.01903).
    """

    ENDS_AVERAGED: ClassVar[bool] = True  # the EMA callback leaves its average for the file

    def __init__(
        self,
        optimizer: OptimizerConfig,
        output: str,
        init: str | None = None,
        widths: tuple[int, ...] = (32, 64, 128),
        blocks: int = 2,
        gain: bool = True,
        gradient_weight: float = 0.0,
        kind: Loss = "relative",
        floor: float = 0.1,
        smooth: float = 0.02,
        linear: float = 0.0,
        cleaner: str | None = None,
        light: str | None = None,
        blend: float = 1.0,
        deblurrer: str | None = None,
    ) -> None:
        if floor <= 0:
            raise ValueError(f"model.floor is {floor}: it must be positive")
        if linear < 0 or (linear and kind != "log"):
            raise ValueError(f"model.linear is {linear}: give 0 or more, with model.kind log")
        require_share(blend, init)
        super().__init__()
        self.optimizer_config, self.output = optimizer, output
        self.gradient_weight = gradient_weight
        self.kind = kind
        self.floor = floor
        self.smooth = smooth
        self.linear = linear
        self.blend = blend
        first, second = _one(cleaner, "cleaner"), _one(deblurrer, "deblurrer")
        scene = None if light is None else read_light(Path(light))
        self.network = Fidelity(
            tuple(widths),
            blocks,
            gain,
            None if first is None else first.sizes,
            None if scene is None else scene.sizes,
            None if second is None else second.sizes,
        )
        for given, own in (
            (first, self.network.cleaner),
            (second, self.network.deblurrer),
            (scene, self.network.scene_light),
        ):
            if given is not None and own is not None:
                own.load_state_dict(given.state_dict())
                own.requires_grad_(False)
        if (start := load_corrector(init)) is not None:
            if not holds(start.network, self.network):
                raise ValueError(
                    f"model.init {init} has (widths, blocks, gain) {start.network.sizes}, and the"
                    f" YAML says {self.network.sizes}: give as many levels, and no fewer channels"
                    " or blocks, and gains if it has them"
                )
            widen(start.network, self.network)
        self.start = {
            name: value.clone() for name, value in self.network.correction.state_dict().items()
        }

    # e = c(d) + w (c(dx d) + c(dy d)), c: see charbonnier_per_image
    def error(self, image: Tensor, reference: Tensor) -> Tensor:
        """Returns the error of each of (B, 3, H, W), (B,)."""
        apart = image - reference
        error = charbonnier_per_image(apart, self.smooth)
        if self.gradient_weight == 0:
            return error
        edges = [charbonnier_per_image(apart.diff(dim=axis), self.smooth) for axis in (-1, -2)]
        return error + self.gradient_weight * sum(edges)

    # L = mean e / (e_lq + floor), mean e, or mean log(e + floor) + linear e
    def training_step(self, batch: dict[str, Any], index: int) -> Tensor:
        lq, gt = (
            batch[name].contiguous(memory_format=torch.channels_last) for name in ("lq", "gt")
        )
        error = self.error(self.network(_restored(batch), lq), gt)
        before = self.error(lq, gt)
        relative = (error / (before + self.floor)).mean()
        self.log("train/relative", relative, prog_bar=True, batch_size=len(error))
        if self.kind == "relative":
            return relative
        if self.kind == "l1":
            return error.mean()
        return ((error + self.floor).log() + self.linear * error).mean()

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        """Log for each kind the mean gain in PSNR over the degraded image, and clean images' PSNR.

        PSNR stops at 60 dB: an image that comes back without any change would else weigh all.
        """
        kind = batch["kind"]
        corrected = self.network(_restored(batch), batch["lq"]).clamp(0, 1)
        after = psnr(corrected, batch["gt"]).clamp(max=60)
        before = 0.0 if kind == CLEAN else psnr(batch["lq"], batch["gt"]).clamp(max=60)
        gain = (after - before).float().mean()
        self.log(f"val/{kind}", gain, batch_size=len(after), sync_dist=True)

    def configure_optimizers(self) -> dict[str, Any]:
        return configure_for(self.trainer, self.named_parameters(), self.optimizer_config)

    def on_fit_end(self) -> None:
        """Write the finished network, blended with the one that it started from."""
        if self.trainer.is_global_zero and not self.trainer.fast_dev_run:
            blend_with(self.start, self.network.correction, self.blend)
            save_fidelity(Path(self.output), self.network)


def _one(file: str | None, key: str) -> Fidelity | None:
    """Returns the network of a file that must have no others before it."""
    if (corrector := load_corrector(file)) is None:
        return None
    if corrector.network.first:
        raise ValueError(f"model.{key} {file} has a cleaner or deblurrer itself: give that one")
    return corrector.network


def _restored(batch: dict[str, Any]) -> Tensor:
    """The images that a branch has restored, or the degraded ones without a branch."""
    return batch.get("restored", batch["lq"]).contiguous(memory_format=torch.channels_last)
