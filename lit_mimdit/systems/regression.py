"""Plain regression: a U-Net from the degraded image alone, without any prior.

    x = x_lq + F(x_lq)

It is trained on L1, as restoration networks are. By the logarithm that the fidelity network takes
it left darkness and haze as they are.
"""

from typing import Any

from torch import Tensor

from lit_mimdit.inference.pixel_restorer import OVERLAP, TILE
from lit_mimdit.models.unet import SceneUNet
from lit_mimdit.systems.base import METRICS, VERSIONS, Losses
from lit_mimdit.systems.optim import OptimizerConfig
from lit_mimdit.systems.pixel import PixelSystem, error_per_image


class Regression(PixelSystem):
    """A U-Net that sees one image and the statistics of its scene.

    Args:
        widths: channels by level. Each level after the first halves the resolution.
        blocks: residual blocks on each level, before and after the coarser levels.
        gradient_weight: weight of the L1 on horizontal and vertical differences.
        optimizer: settings of the optimizer and its schedule. Only training needs them.
        tile: side in pixels of the tiles that larger images are restored in. 0 never cuts.
        overlap: pixels that neighbouring tiles share.
        metrics: scores of `test` by key.
        versions: what validation and test score of each image.
        init: exported system or checkpoint to start from instead of fresh weights.
    """

    TRAINING_ONLY = PixelSystem.TRAINING_ONLY | {"gradient_weight"}
    network: SceneUNet

    def __init__(
        self,
        widths: tuple[int, ...] = (48, 92, 140),
        blocks: int = 2,
        gradient_weight: float = 0.0,
        optimizer: OptimizerConfig | None = None,
        tile: int = TILE,
        overlap: int = OVERLAP,
        metrics: list[str] = METRICS,
        versions: list[str] = VERSIONS,
        init: str | None = None,
    ) -> None:
        super().__init__(optimizer, tile, overlap, metrics, versions, init)
        self.gradient_weight = gradient_weight
        self.network = SceneUNet(1, 3, tuple(widths), blocks, scene=True)

    @property
    def multiple(self) -> int:
        return self.network.multiple

    def restore(self, lq: Tensor) -> Tensor:
        return lq + self.network(lq - 0.5)

    def losses(self, batch: dict[str, Any]) -> Losses:
        """Returns the mean of the error above."""
        restored = self.restore(batch["lq"])
        error = error_per_image(restored, batch["gt"], self.gradient_weight)
        return Losses(error.mean(), error, {"error": error})
