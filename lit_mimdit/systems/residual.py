"""The system that DiffUIR and FoundIR share: training and sampling of residual diffusion."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from lit_mimdit.inference.pixel_restorer import tiled
from lit_mimdit.inference.seeded_restorer import Draw, Progress, SeededRestorer
from lit_mimdit.inference.system_class import class_path_of
from lit_mimdit.inference.tiling import boxes
from lit_mimdit.models.residual_diffusion import (
    ResidualDiffusion,
    restore,
    sample_noise_and_times,
    times,
)
from lit_mimdit.systems.base import METRICS, VERSIONS, Losses, RestorationSystem, plain
from lit_mimdit.systems.optim import OptimizerConfig


class ResidualSystem(RestorationSystem):
    """Residual diffusion from degraded to restored images.

    Args:
        dim: channels of the U-Net's finest level, a multiple of 8.
        dim_mults: channels of each level's exit as multiples of `dim`.
        delta_end: the last delta.
        steps: how often the sampler calls the network.
        timesteps: T of the process.
        sum_scale: variance of the noise that sampling starts from.
        eta: noise that the sampler adds on the way, 0 for none.
        tile: side in pixels of the tiles that larger images are restored in; 0 never cuts.
        overlap: pixels that neighbouring tiles share.
        optimizer: see OptimizerConfig; only training needs it.
        metrics: scores of `test` by key.
        versions: what validation and test score of each image.
        init: exported system or checkpoint to start from instead of fresh weights.

    Raises:
        ValueError: the tiles do not advance, or the process has no such steps.
    """

    def __init__(
        self,
        dim: int,
        dim_mults: Sequence[int],
        delta_end: float,
        steps: int,
        timesteps: int,
        sum_scale: float,
        eta: float,
        tile: int,
        overlap: int,
        optimizer: OptimizerConfig | None = None,
        metrics: list[str] = METRICS,
        versions: list[str] = VERSIONS,
        init: str | None = None,
    ) -> None:
        super().__init__(optimizer, metrics, versions, init)
        if tile and not 0 <= overlap < tile:
            raise ValueError(
                f"tile is {tile} and overlap {overlap} pixels: tiles must advance, so give an"
                " overlap from 0 to below the tile"
            )
        times(steps, timesteps)  # ValueError for steps that the process does not have
        self.tile, self.overlap = tile, overlap
        self.network: nn.Module = ResidualDiffusion(
            dim, dim_mults, delta_end, steps, timesteps, sum_scale, eta
        )

    @property
    def process(self) -> ResidualDiffusion:
        """The network that is trained."""
        assert isinstance(self.network, ResidualDiffusion), "who has others says which"
        return self.network

    @property
    def trained(self) -> nn.Module:
        return self.network

    # L = mean |U([x_t, x_in], 1000 a_t) - (x_in - x_0)|, t uniform (DiffUIR, arXiv 2403.11157)
    def losses(self, batch: dict[str, Any]) -> Losses:
        """Returns the mean absolute error of the residual, at a time step of each image's seed."""
        lq = batch["lq"]
        gt = batch["gt"]
        table = self.process.table
        noise, t_B = sample_noise_and_times(batch["seed"].cpu(), lq.shape[1:], table.timesteps)
        t_B = t_B.to(lq.device)
        error = self.process.errors(lq, gt, noise.to(lq), t_B)
        return Losses(error.mean(), error, {"l1": error}, t=t_B / (table.timesteps - 1))

    def published_rate(self, epoch: int) -> float:
        """Returns 1, as the published rate is constant."""
        return 1.0

    def sample(self, part: Tensor, noise: Tensor, draw: Draw, progress: Progress) -> Tensor:
        """Returns the restored image of one degraded image (1, 3, h, w), whole.

        Args:
            part: the degraded image in [0, 1].
            noise: to start from, of the image's shape.
            draw: source of the noise on the way, where `eta` asks for some.
            progress: counts the calls of the network.
        """
        process = self.process

        def predict(images: Tensor, time: Tensor) -> Tensor:
            residual = process.unet(images, time)
            progress(1)
            return residual

        return restore(
            predict,
            part,
            noise,
            process.table,
            process.sampling_timesteps,
            process.eta,
            draw,
            process.sum_scale,
        )

    def restore_one(self, image: Tensor, draw: Draw, progress: Progress, id: str | None) -> Tensor:
        """Returns the restored image of one degraded image, in tiles where it is large."""
        tile, overlap = self.tiling(*image.shape[-2:])

        def restored(part: Tensor) -> Tensor:
            return self.sample(part, draw(part), draw, progress)

        return tiled(image, 1, restored, None, tile, overlap)

    def tiles(self, height: int, width: int) -> int:
        """Returns how many tiles an image of this size is cut into."""
        return len(boxes(height, width, *self.tiling(height, width), 1))

    def tiling(self, height: int, width: int) -> tuple[int, int]:
        """Returns the side of the tiles and their overlap for an image of this size."""
        return (self.tile, self.overlap) if self.tile else (max(height, width), 0)

    def restorer(self) -> SeededRestorer:
        steps = self.process.sampling_timesteps
        kept = {
            name: plain(value)
            for name, value in self.arguments.items()
            if name not in self.TRAINING_ONLY
        }
        return SeededRestorer(
            self.network,
            self.restore_one,
            lambda height, width: steps * self.tiles(height, width),
            {"class_path": class_path_of(type(self))} | kept,
            {"steps": steps, "tile": self.tile, "overlap": self.overlap},
        )
