"""FoundIR as a system: the generalist, and behind it a specialist where one is asked for."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import Tensor, nn

from lit_mimdit.inference.seeded_restorer import Draw, Progress
from lit_mimdit.models.residual_diffusion import SUM_SCALE, TIMESTEPS, ResidualDiffusion
from lit_mimdit.models.restormer_network import Restormer
from lit_mimdit.systems.base import METRICS, VERSIONS, Losses
from lit_mimdit.systems.foundir import official, sampler
from lit_mimdit.systems.foundir.wave_mamba import WaveMamba
from lit_mimdit.systems.optim import OptimizerConfig
from lit_mimdit.systems.residual import ResidualSystem

Specialist = Literal["none", "weather", "low light", "published"]
LAST_NUMBER = re.compile(r"(\d+)\D*$")


@dataclass
class WeatherSizes:
    """Sizes of the specialist for weather, a Restormer.

    Args:
        dim: channels at full resolution.
        num_blocks: blocks of the four levels.
        num_refinement_blocks: blocks after the finest level.
        heads: attention heads of the four levels.
        ffn_expansion_factor: hidden width of the feed-forward parts, as a multiple of their
            channels.
        bias: whether the convolutions have a bias.
        norm_bias: whether the norms have a bias.
    """

    dim: int = 48
    num_blocks: tuple[int, ...] = (4, 6, 6, 8)
    num_refinement_blocks: int = 4
    heads: tuple[int, ...] = (1, 2, 4, 8)
    ffn_expansion_factor: float = 2.66
    bias: bool = False
    norm_bias: bool = True


@dataclass
class LowLightSizes:
    """Sizes of the specialist for low light, a Wave-Mamba.

    Args:
        wf: channels on every level.
        n_l_blocks: blocks of the low bands, by level.
        n_h_blocks: blocks of the high bands, by level.
        ffn_scale: inner channels of a scan as a multiple of `wf`.
    """

    wf: int = 32
    n_l_blocks: tuple[int, ...] = (1, 2, 4)
    n_h_blocks: tuple[int, ...] = (1, 1, 2)
    ffn_scale: float = 2.0


class FoundIRNetworks(nn.Module):
    """Holds the generalist and those specialists that there are."""

    def __init__(
        self,
        generalist: ResidualDiffusion,
        weather: Restormer | None = None,
        low_light: WaveMamba | None = None,
    ) -> None:
        super().__init__()
        self.generalist = generalist
        self.weather = weather
        self.low_light = low_light


class FoundIR(ResidualSystem):
    """FoundIR, ICCV 2025: one generalist, whose images a specialist may improve.

    Args:
        dim: channels of the U-Net's finest level, a multiple of 8.
        dim_mults: channels of each level's exit as multiples of `dim`.
        delta_end: last value of the process's delta.
        steps: how often the sampler calls the network.
        timesteps: steps `T` of the process.
        sum_scale: variance of the noise that sampling starts from.
        eta: noise that the sampler adds on the way, 0 for none.
        tile: side in pixels of the tiles of images with more than tile x tile pixels. 0 never cuts.
        overlap: pixels that neighbouring tiles share.
        specialist: which specialist improves the generalist's images: `none`, `weather`, `low
            light`, or `published`. The last goes by the number of the test image and is not blind.
        weather: sizes of the specialist for weather. `null` is without.
        low_light: sizes of the specialist for low light. `null` is without.
        optimizer: settings of the optimizer and its schedule. Only training needs them.
        metrics: scores of `test` by key.
        versions: what validation and test score of each image.
        init: exported system or checkpoint to start from instead of fresh weights.

    Raises:
        ValueError: the chosen specialist is not there.
    """

    network: FoundIRNetworks

    def __init__(
        self,
        dim: int = 64,
        dim_mults: tuple[int, ...] = (1, 2, 4, 8),
        delta_end: float = official.PUBLISHED["delta_end"],
        steps: int = official.PUBLISHED["sampling_timesteps"],
        timesteps: int = TIMESTEPS,
        sum_scale: float = SUM_SCALE,
        eta: float = 0.0,
        tile: int = sampler.TILE,
        overlap: int = sampler.OVERLAP,
        specialist: Specialist = "none",
        weather: WeatherSizes | None = None,
        low_light: LowLightSizes | None = None,
        optimizer: OptimizerConfig | None = None,
        metrics: list[str] = METRICS,
        versions: list[str] = VERSIONS,
        init: str | None = None,
    ) -> None:
        super().__init__(
            dim,
            dim_mults,
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
        needed = {"weather": ["weather"], "low light": ["low light"], "none": []}
        there = {"weather": weather, "low light": low_light}
        missing = [name for name in needed.get(specialist, there) if there[name] is None]
        if missing:
            raise ValueError(
                f"model.specialist is {specialist!r}, but the network for {' and '.join(missing)}"
                " is not there; import the specialists' files together with the generalist's"
            )
        self.specialist = specialist
        self.network = FoundIRNetworks(
            super().process,
            None if weather is None else Restormer(**asdict(weather)),
            None if low_light is None else WaveMamba(**asdict(low_light)),
        )

    @classmethod
    def from_official(cls, *files: Mapping[str, Any], **overrides: Any) -> "FoundIR":
        """Returns the system with the weights of the authors' files, in any order.

        Args:
            files: content of the generalist's checkpoint, and of none, one or both specialists'.
            overrides: arguments of the generalist's official constructors, and `specialist`. With
                one specialist's file that specialist is used unless said otherwise.

        Raises:
            ValueError: a file is another system's, incomplete, or there twice; the generalist's is
                missing; or both specialists are given without a choice.
        """
        wanted = overrides.pop("specialist", None)
        parts: dict[str, Any] = {}
        for file in files:
            specialised = official.holds_specialist(file)
            network = official.from_official(file, **({} if specialised else overrides))
            kinds = {Restormer: "weather", WaveMamba: "low_light"}
            name = kinds.get(type(network), "generalist")
            if name in parts:
                raise ValueError(f"FoundIR: two files hold the network {name}; give each once")
            parts[name] = network
        if "generalist" not in parts:
            raise ValueError(
                "FoundIR: the generalist's file is missing, and specialists improve its images;"
                " give model-2000.pt as well"
            )
        if wanted is None and len(parts) == 3:
            raise ValueError(
                "FoundIR: both specialists are given, and one must be chosen; give the override"
                ' {"specialist": "weather"}, "low light" or "published"'
            )
        only: Any = next((name for name in parts if name != "generalist"), "none")
        generalist = parts["generalist"]
        system = cls(
            dim=generalist.unet.dim,
            dim_mults=generalist.unet.dim_mults,
            delta_end=generalist.delta_end,
            steps=generalist.sampling_timesteps,
            timesteps=generalist.table.timesteps,
            sum_scale=generalist.sum_scale,
            eta=generalist.eta,
            specialist=wanted or only.replace("_", " "),
            weather=WeatherSizes(**parts["weather"].sizes) if "weather" in parts else None,
            low_light=LowLightSizes(**parts["low_light"].sizes) if "low_light" in parts else None,
        )
        system.network = FoundIRNetworks(**parts)
        return system

    @property
    def process(self) -> ResidualDiffusion:
        return self.network.generalist

    def losses(self, batch: dict[str, Any]) -> Losses:
        """Returns the generalist's loss; ValueError with specialists, whose recipe is not
        published.
        """
        if self.network.weather is not None or self.network.low_light is not None:
            raise ValueError(
                "model has specialists, and how they are trained is not published; train the"
                " generalist with model.weather and model.low_light null"
            )
        return super().losses(batch)

    def restore_one(self, image: Tensor, draw: Draw, progress: Progress, id: str | None) -> Tensor:
        """Returns the restored image; a specialist is given the generalist's image in 8 bits."""
        specialist = self.specialist_of(id)

        def generalist(part: Tensor, noise: Tensor) -> Tensor:
            return self.sample(part, noise, draw, progress)

        general = sampler.restore(generalist, image, draw, *self.tiling(*image.shape[-2:]))
        if specialist == "weather":
            assert self.network.weather is not None, "the constructor demands it"
            return sampler.restore_weather(self.network.weather, sampler.in_8_bits(general))
        if specialist == "low light":
            assert self.network.low_light is not None, "the constructor demands it"
            return sampler.restore_low_light(self.network.low_light, sampler.in_8_bits(general))
        return general

    def specialist_of(self, id: str | None) -> str | None:
        """Returns which specialist improves the image `id`; None for none.

        Raises:
            ValueError: the choice goes by the image's number, and `id` ends in none.
        """
        if self.specialist != "published":
            return None if self.specialist == "none" else self.specialist
        number = LAST_NUMBER.search(id or "")
        if number is None:
            raise ValueError(
                f"the image {id!r} has no number, by which model.specialist published chooses;"
                " choose none, weather or low light"
            )
        return sampler.published_specialist(int(number[1]))

    def tiles(self, height: int, width: int) -> int:
        tile, overlap = self.tiling(height, width)
        if height * width <= tile**2:
            return 1
        return len(sampler.corners(height, width, tile, overlap))
