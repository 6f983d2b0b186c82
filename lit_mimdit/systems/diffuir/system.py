"""DiffUIR as a system: four published sizes, trained and sampled as residual diffusion."""

from collections.abc import Mapping
from typing import Any, Literal

from lit_mimdit.models.residual_diffusion import SUM_SCALE, TIMESTEPS
from lit_mimdit.systems.base import METRICS, VERSIONS
from lit_mimdit.systems.diffuir import official
from lit_mimdit.systems.diffuir.network import VARIANTS
from lit_mimdit.systems.diffuir.sampler import STEPS
from lit_mimdit.systems.official import only
from lit_mimdit.systems.optim import OptimizerConfig
from lit_mimdit.systems.residual import ResidualSystem


class DiffUIR(ResidualSystem):
    """DiffUIR, CVPR 2024: residual diffusion for several degradations, in three steps.

    Args:
        variant: published size of the U-Net.
        dim: channels of the finest level, a multiple of 8. `null` takes the variant's.
        dim_mults: channels of each level's exit as multiples of `dim`. `null` takes the variant's.
        delta_end: last value of the process's delta.
        steps: how often the sampler calls the network. The authors take 4 for real photographs.
        timesteps: steps `T` of the process.
        sum_scale: variance of the noise that sampling starts from.
        eta: noise that the sampler adds on the way, 0 for none.
        tile: side in pixels of the tiles that larger images are restored in. 0, as in the authors'
            test script, never cuts.
        overlap: pixels that neighbouring tiles share.
        optimizer: settings of the optimizer and its schedule. Only training needs them.
        metrics: scores of `test` by key.
        versions: what validation and test score of each image.
        init: exported system or checkpoint to start from instead of fresh weights.
    """

    def __init__(
        self,
        variant: Literal["T", "S", "B", "L"] = "L",
        dim: int | None = None,
        dim_mults: tuple[int, ...] | None = None,
        delta_end: float = official.PUBLISHED["delta_end"],
        steps: int = STEPS,
        timesteps: int = TIMESTEPS,
        sum_scale: float = SUM_SCALE,
        eta: float = 0.0,
        tile: int = 0,
        overlap: int = 64,
        optimizer: OptimizerConfig | None = None,
        metrics: list[str] = METRICS,
        versions: list[str] = VERSIONS,
        init: str | None = None,
    ) -> None:
        size = VARIANTS[variant]
        super().__init__(
            dim or size.dim,
            dim_mults or size.dim_mults,
            delta_end,
            steps,
            timesteps,
            sum_scale,
            eta,
            tile,
            overlap,
            optimizer,
            metrics,
            versions,
            init,
        )

    @classmethod
    def from_official(cls, *files: Mapping[str, Any], **overrides: Any) -> "DiffUIR":
        """Returns the system with the averaged weights of an author's file, of any size.

        Args:
            files: content of the checkpoint `model-<k>.pt`, one file.
            overrides: arguments of the official constructors, such as `sampling_timesteps=4`.

        Raises:
            ValueError: the file is another system's, incomplete, or not the only one.
        """
        file = only(files, "DiffUIR")
        network = official.from_official(file, **overrides)
        sizes = network.unet.dim, network.unet.dim_mults
        published = {(one.dim, one.dim_mults): name for name, one in VARIANTS.items()}
        size: dict[str, Any] = {"dim": sizes[0], "dim_mults": sizes[1]}
        if sizes in published:
            size = {"variant": published[sizes]}
        system = cls(
            **size,
            delta_end=network.delta_end,
            steps=network.sampling_timesteps,
            timesteps=network.table.timesteps,
            sum_scale=network.sum_scale,
            eta=network.eta,
        )
        system.network = network
        return system
