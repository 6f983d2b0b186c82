"""DGUNet and DGUNet+ as a system: every stage's picture is trained, the last one restores."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lit_mimdit.systems.base import METRICS, VERSIONS, Losses
from lit_mimdit.systems.dgunet import inference, objective, official
from lit_mimdit.systems.dgunet.network import STAGES, DGUNetNetwork
from lit_mimdit.systems.official import only, switch
from lit_mimdit.systems.optim import OptimizerConfig
from lit_mimdit.systems.pixel import PixelSystem


class DGUNet(PixelSystem):
    """DGUNet and DGUNet+, CVPR 2022: proximal gradient descent, unrolled into stages.

    Args:
        n_feat: channels `F` at full resolution.
        scale_unetfeats: channels `S` that each level adds: level i of a stage's U-Net has F + i S
            channels.
        scale_orsnetfeats: channels `O` of the output of DGUNet, which narrows to F + O channels.
            DGUNet+ has no use for it.
        reduction: squeeze factor of the channel attention.
        depth: middle stages.
        plus: whether it is DGUNet+, whose middle stages have weights of their own.
        task: published recipe that loss and learning rate follow.
        ensemble: whether the mean over 8 flips and rotations is restored, as the authors do for
            SIDD and DND.
        optimizer: settings of the optimizer and its schedule. Only training needs them.
        tile: side in pixels of the tiles that larger images are restored in. 0, as in the authors'
            test script, never cuts.
        overlap: pixels that neighbouring tiles share.
        metrics: scores of `test` by key.
        versions: what validation and test score of each image.
        init: exported system or checkpoint to start from instead of fresh weights.
    """

    MULTIPLE: ClassVar[int] = 8
    TRAINING_ONLY = PixelSystem.TRAINING_ONLY | {"task"}
    IDLE: ClassVar[dict[int, int]] = {17_216_312: 115_200, 3_633_112: 28_800}
    network: DGUNetNetwork

    def __init__(
        self,
        n_feat: int = 80,
        scale_unetfeats: int = 48,
        scale_orsnetfeats: int = 32,
        reduction: int = 4,
        depth: int = STAGES - 2,
        plus: bool = False,
        task: Literal["deraining", "deblurring", "denoising"] = "deblurring",
        ensemble: bool = False,
        optimizer: OptimizerConfig | None = None,
        tile: int = 0,
        overlap: int = 32,
        metrics: list[str] = METRICS,
        versions: list[str] = VERSIONS,
        init: str | None = None,
    ) -> None:
        super().__init__(optimizer, tile, overlap, metrics, versions, init)
        self.network = DGUNetNetwork(
            n_feat, scale_unetfeats, scale_orsnetfeats, reduction, depth, plus
        )
        self.recipe, self.ensemble = objective.RECIPES[task], ensemble

    @classmethod
    def from_official(cls, *files: Mapping[str, Any], **overrides: Any) -> "DGUNet":
        """Returns the system with the weights of an author's file.

        Args:
            files: content of the checkpoint, one file; its names tell the variant.
            overrides: `plus`, arguments of the official constructor that shapes do not tell, and
                `ensemble` of this class, which the imported file keeps.

        Raises:
            ValueError: the file is another system's or variant's, incomplete, or not the only one;
                or `ensemble` is neither true nor false.
        """
        file = only(files, "DGUNet")
        purpose = "restore the mean over 8 flips and rotations"
        ensemble = switch(overrides, "ensemble", "DGUNet", purpose)
        network = official.from_official(file, **overrides)
        system = cls(**network.sizes, ensemble=ensemble)
        system.network = network
        return system

    def restore(self, lq: Tensor) -> Tensor:
        return inference.restore(self.network, lq, self.ensemble)

    def losses(self, batch: dict[str, Any]) -> Losses:
        """Returns Charbonnier and edge terms of the pictures of all stages."""
        terms = objective.terms(self.network(batch["lq"]), batch["gt"], self.recipe)
        per_sample = torch.stack(list(terms.values())).sum(0)
        return Losses(per_sample.mean(), per_sample, terms)

    def published_rate(self, epoch: int) -> float:
        """Warm-up over 3 epochs, then the cosine of the task."""
        return objective.learning_rate(epoch, self.recipe) / self.recipe.lr
