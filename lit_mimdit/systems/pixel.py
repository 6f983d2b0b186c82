"""Systems whose network turns a degraded image into a restored one, without a backbone."""

from typing import Any, ClassVar

from torch import Tensor, nn

from lit_mimdit.inference.pixel_restorer import OVERLAP, TILE, PixelRestorer
from lit_mimdit.inference.system_class import class_path_of
from lit_mimdit.systems.base import METRICS, VERSIONS, Losses, RestorationSystem, plain
from lit_mimdit.systems.optim import OptimizerConfig


# e = mean |x - y| + w (mean |dx (x - y)| + mean |dy (x - y)|)
def error_per_image(image: Tensor, reference: Tensor, gradient_weight: float = 0.0) -> Tensor:
    """Returns the error of each of (B, 3, H, W), (B,).

    It is the L1 of pixels, and of their horizontal and vertical differences.
    """
    apart = image - reference
    error = apart.abs().mean((1, 2, 3))
    if gradient_weight == 0:
        return error
    edges = apart.diff(dim=-1).abs().mean((1, 2, 3)) + apart.diff(dim=-2).abs().mean((1, 2, 3))
    return error + gradient_weight * edges


class PixelSystem(RestorationSystem):
    """A network from degraded to restored images; by default it is trained on L1.

    A subclass sets `network` and, where they differ, `restore`, `losses` and `MULTIPLE`.

    Args:
        optimizer: see OptimizerConfig; only training needs it.
        tile: side in pixels of the tiles that larger images are restored in; 0 never cuts.
        overlap: pixels that neighbouring tiles share.
        metrics: scores of `test` by key.
        versions: what validation and test score of each image.
        init: exported system or checkpoint to start from instead of fresh weights.
    """

    MULTIPLE: ClassVar[int] = 1  # what both sides of an image must be divisible by
    network: nn.Module

    def __init__(
        self,
        optimizer: OptimizerConfig | None = None,
        tile: int = TILE,
        overlap: int = OVERLAP,
        metrics: list[str] = METRICS,
        versions: list[str] = VERSIONS,
        init: str | None = None,
    ) -> None:
        super().__init__(optimizer, metrics, versions, init)
        self.tile, self.overlap = tile, overlap

    @property
    def trained(self) -> nn.Module:
        if "network" not in self._modules:
            raise ValueError(
                f"{class_path_of(type(self))} has no network: set self.network in its constructor"
                " (lit_mimdit/systems/pixel.py)"
            )
        return self.network

    @property
    def multiple(self) -> int:
        """Returns what both sides of an image must be divisible by."""
        return self.MULTIPLE

    def restore(self, lq: Tensor) -> Tensor:
        """Degraded images (B, 3, H, W) in [0, 1] -> restored ones, not clamped."""
        return self.network(lq)

    def losses(self, batch: dict[str, Any]) -> Losses:
        """Returns the mean absolute error."""
        per_sample = error_per_image(self.restore(batch["lq"]), batch["gt"])
        return Losses(per_sample.mean(), per_sample, {"l1": per_sample})

    def restorer(self) -> PixelRestorer:
        file = {
            name: plain(value)
            for name, value in self.arguments.items()
            if name not in self.TRAINING_ONLY
        }
        about = {"class_path": class_path_of(type(self))} | file
        parts = self.network, self.restore, self.multiple, about
        return PixelRestorer(*parts, self.tile, self.overlap)
