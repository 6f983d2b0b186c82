"""FFDNet as a system: it removes white noise of a level that the user states."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from lit_mimdit.systems.base import METRICS, VERSIONS, Losses
from lit_mimdit.systems.ffdnet import official
from lit_mimdit.systems.ffdnet.network import STEP, FFDNetNetwork
from lit_mimdit.systems.official import only
from lit_mimdit.systems.optim import OptimizerConfig
from lit_mimdit.systems.pixel import PixelSystem, error_per_image

LEVELS = 255.0  # grey levels of an 8-bit image, in which sigma is given
MOST = 75.0  # the published training draws sigma between 0 and this


class FFDNet(PixelSystem):
    """FFDNet (IEEE TIP 2018) for colour: a plain network that is told the noise level.

    Args:
        sigma: standard deviation of the noise to remove, in grey levels of 255, 0 to 75.
        width: channels of the hidden layers.
        depth: number of convolutions.
        optimizer: settings of the optimizer and its schedule. Only training needs them.
        tile: side in pixels of the tiles that larger images are restored in. 0 never cuts.
        overlap: pixels that neighbouring tiles share.
        metrics: scores of `test` by key.
        versions: what validation and test score of each image.
        init: exported system or checkpoint to start from instead of fresh weights.
    """

    MULTIPLE: ClassVar[int] = STEP

    def __init__(
        self,
        sigma: float = 25.0,
        width: int = 96,
        depth: int = 12,
        optimizer: OptimizerConfig | None = None,
        tile: int = 0,
        overlap: int = 32,
        metrics: list[str] = METRICS,
        versions: list[str] = VERSIONS,
        init: str | None = None,
    ) -> None:
        if not 0 <= sigma <= MOST:
            raise ValueError(
                f"sigma is {sigma}: FFDNet knows noise of 0 to {MOST:g} grey levels of 255; give"
                " one of these"
            )
        super().__init__(optimizer, tile, overlap, metrics, versions, init)
        self.sigma = sigma
        self.network = FFDNetNetwork(width, depth)

    @classmethod
    def from_official(cls, *files: Mapping[str, Any], **overrides: Any) -> "FFDNet":
        """Returns the system with the weights of an author's file.

        Args:
            files: content of the checkpoint, one file.
            overrides: sigma, of which the file says nothing.

        Raises:
            ValueError: the file is another system's, incomplete, or not the only one.
        """
        file = only(files, "FFDNet")
        if wrong := sorted(overrides.keys() - {"sigma"}):
            raise ValueError(f"FFDNet: no argument {wrong[0]}; it has sigma")
        network = official.from_official(file)
        system = cls(width=network.width, depth=len(network.layers), **overrides)
        system.network = network
        return system

    def restore(self, lq: Tensor) -> Tensor:
        """Noisy images (B, 3, H, W) in [0, 1] -> denoised ones, not clamped."""
        return self.network(lq, lq.new_full((len(lq),), self.sigma / LEVELS))

    def losses(self, batch: dict[str, Any]) -> Losses:
        """Mean absolute error at the stated noise level; the pairs bring their own noise."""
        error = error_per_image(self.restore(batch["lq"]), batch["gt"])
        return Losses(error.mean(), error, {"l1": error})
