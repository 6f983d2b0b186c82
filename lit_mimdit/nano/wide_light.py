"""Training of a SceneLight on the cells of crops under haze and darkness."""

from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor

from lit_mimdit.inference.fidelity_file import read_light, save_light
from lit_mimdit.models.scene_light import SceneLight
from lit_mimdit.systems.blending import blend_with, require_share
from lit_mimdit.systems.optim import OptimizerConfig, configure_for

DAMAGED = 2e-4  # squared error of cells that counts as damage, 37 dB
BETTER = 0.8  # of that error: what a correction must not exceed to be called better


# e = mean (K m + B - m_gt)^2 + (K s - s_gt)^2
def cell_error(gain: Tensor, offset: Tensor, lq: Tensor, gt: Tensor) -> Tensor:
    """Returns the squared error of each scene, (B,), of lit cells against clean ones.

    It is that of the pixels as long as their detail keeps its place. Gain and offset are (B, 3, h,
    w). Both lq and gt begin with 3 means m and 3 deviations s.
    """
    light = gain * lq[:, :3] + offset - gt[:, :3]
    detail = gain * lq[:, 3:6] - gt[:, 3:6]
    return (light.square() + detail.square()).mean((1, 2, 3))


def _as_large(light: SceneLight, wanted: SceneLight, file: str) -> SceneLight:
    """Returns `light` if it has the wanted sizes; ValueError if it has others."""
    if light.sizes != wanted.sizes:
        width, blocks = light.sizes
        raise ValueError(
            f"model.init {file} has width {width} and {blocks} blocks, model.width is"
            f" {wanted.width} and model.blocks {wanted.blocks}: give the same sizes"
        )
    return light


class WideLight(L.LightningModule):
    """Trains a SceneLight: what corrects on damaged scenes alone, what doubts on all.

    The correction's loss is mean log(e + floor) over the scenes whose light is damaged. So it is
    not timid. That of the doubt is the cross entropy of p with what the correction achieves.

    Args:
        optimizer: settings of the optimizer and its schedule.
        output: file of the finished network (.safetensors).
        init: file of a light of the same sizes to start from. `null` makes a new one.
        blend: share of what was learnt in the finished weights, see WideFidelity. Less than 1 needs
            `init`. The mean of two such networks is wrong less often than either.
        width: see SceneLight.
        blocks: see SceneLight.
        floor: squared error below which a scene hardly counts.
        doubt: weight of the cross entropy.
    """

    ENDS_AVERAGED: ClassVar[bool] = True  # the EMA callback leaves its average for the file

    def __init__(
        self,
        optimizer: OptimizerConfig,
        output: str,
        width: int = 64,
        blocks: int = 4,
        floor: float = 1e-3,
        doubt: float = 0.5,
        init: str | None = None,
        blend: float = 1.0,
    ) -> None:
        if floor <= 0 or doubt < 0:
            raise ValueError(
                f"model.floor is {floor} and model.doubt {doubt}: floor must be positive, doubt 0"
                " or more"
            )
        require_share(blend, init)
        super().__init__()
        self.optimizer_config, self.output = optimizer, output
        self.floor, self.doubt = floor, doubt
        self.network = SceneLight(width, blocks)
        if init is not None:
            self.network = _as_large(read_light(Path(init)), self.network, init)
        self.blend = blend
        self.start = {name: value.clone() for name, value in self.network.state_dict().items()}

    def _judged(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns error, error of the degraded scenes, damage in {0, 1} and the logit of p."""
        gain, offset, logit = self.network(batch["lq"])
        after = cell_error(gain, offset, batch["lq"], batch["gt"])
        before = cell_error(
            torch.ones_like(gain), torch.zeros_like(offset), batch["lq"], batch["gt"]
        )
        return after, before, (before > DAMAGED).float(), logit

    # L = sum d log(e + floor) / sum d + doubt BCE(p, d [e < BETTER e_lq])
    def training_step(self, batch: dict[str, Any], index: int) -> Tensor:
        after, before, damaged, logit = self._judged(batch)
        better = damaged * (after < BETTER * before)
        recognised = F.binary_cross_entropy_with_logits(logit, better)
        corrected = ((after + self.floor).log() * damaged).sum() / damaged.sum().clamp(min=1)
        self.log("train/bce", recognised, prog_bar=True, batch_size=len(logit))
        return corrected + self.doubt * recognised

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        """Logs the gain of damaged scenes without any doubt, dB, and how often p is right."""
        after, before, damaged, logit = self._judged(batch)
        hit = damaged.bool()
        gain = 10 * ((before + 1e-6) / (after + 1e-6)).log10()[hit]
        right = (logit > 0).float() == damaged * (after < BETTER * before)
        self.log("val/gain", gain.mean(), batch_size=int(hit.sum()), sync_dist=True)
        self.log("val/right", right.float().mean(), batch_size=len(logit), sync_dist=True)

    def configure_optimizers(self) -> dict[str, Any]:
        return configure_for(self.trainer, self.named_parameters(), self.optimizer_config)

    def on_fit_end(self) -> None:
        if self.trainer.is_global_zero and not self.trainer.fast_dev_run:
            blend_with(self.start, self.network, self.blend)
            save_light(Path(self.output), self.network)
