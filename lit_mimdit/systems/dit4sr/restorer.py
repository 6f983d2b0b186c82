"""DiT4SR's own sampler behind the common treatment of image sizes, prompts and colours.

Source: arXiv 2503.23580 and the published test script.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lit_mimdit.inference.restorer import Restorer
from lit_mimdit.inference.run_record import config_hash
from lit_mimdit.inference.sampler import OnStep
from lit_mimdit.inference.seeded_restorer import Progress
from lit_mimdit.models.condition import Prompt
from lit_mimdit.models.decisions import Decisions
from lit_mimdit.models.flow import sample_noise
from lit_mimdit.models.latents import encode, require_finite
from lit_mimdit.systems.dit4sr import sampler


class DiT4SRRestorer(Restorer):
    """Restores by the published noise levels, Euler steps and bell-shaped tiles.

    Args:
        parts: see Restorer.
        negative: text to keep away from, and its embeddings; None is the empty prompt.
        upscale: how many times larger the restored image is.
        process_size: least side of the enlarged image in pixels.

    Raises:
        ValueError: the sampling configuration asks for what this sampler does not have.
    """

    def __init__(
        self,
        *parts: Any,
        negative: tuple[str, Prompt] | None = None,
        upscale: int = 1,
        process_size: int = sampler.PROCESS_SIZE,
    ) -> None:
        super().__init__(*parts)
        config, self.negative = self.config, negative
        self.upscale, self.process_size = upscale, process_size
        wrong = {"solver": config.solver != "euler", "start": config.start != "noise"}
        wrong["overview"] = config.overview > 0
        for name in (name for name, names in wrong.items() if names):
            raise ValueError(
                f"sampling.{name} is {getattr(config, name)}: DiT4SR takes Euler steps from noise"
                " and has no small copy; leave it out"
            )
        self.tile, self.overlap = config.tile // self.factor, config.overlap // self.factor
        self.longest = self.network.backbone.config.pos_embed_max_size * self.patch
        if self.tile > self.patch and (self.tile - self.overlap) % self.patch:
            raise ValueError(
                f"sampling.overlap is {config.overlap} px with tiles of {config.tile} px: their"
                f" difference must be a multiple of {self.multiple} px"
            )

    def record(self) -> dict[str, Any]:
        record = super().record()
        if self.negative is not None:
            record["prompt"] |= {"negative": self.negative[0]}
            record["config_hash"] = config_hash([record["config_hash"], self.negative[0]])
        if self.upscale != 1:
            size = {"upscale": self.upscale, "process_size": self.process_size}
            record |= size | {"config_hash": config_hash([record["config_hash"], size])}
        return record

    def __call__(
        self,
        lq: Tensor,
        seeds: Tensor,
        progress: Progress | None = None,
        ids: Sequence[str] | None = None,
    ) -> tuple[Tensor, list[Decisions]]:
        """Restore images; above an `upscale` of 1 they are enlarged first, as published."""
        if self.upscale == 1:
            return super().__call__(lq, seeds, progress, ids)
        enlarged = sampler.enlarge(lq, self.upscale, self.process_size)
        restored, routing = super().__call__(enlarged, seeds, progress, ids)
        height, width = (side * self.upscale for side in lq.shape[-2:])
        return sampler.resize(restored, height, width), routing

    def evaluations(self, height: int, width: int) -> int:
        if self.upscale != 1:
            given = (width, height), self.upscale, self.process_size
            width, height = sampler.prepared_size(*given)
        tall, wide = (side // self.factor for side in self.layout.padded(height, width))
        cut = sampler.tiling(tall, wide, self.tile, self.overlap, self.longest)
        tiles = 1 if cut is None else len(cut[1]) * len(cut[2])
        return self.config.steps * tiles * (1 if self.config.guidance == 1.0 else 2)

    def _restored(
        self,
        z_lq: Tensor,
        seeds: Tensor,
        prompt: Prompt,
        progress: Progress | None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Restored latents for LQ latents of the same shape."""

        def network(x: Tensor, t: Tensor, lq: Tensor, told: Prompt) -> Tensor:
            result = self.network(x, t, lq, told)
            if progress is not None:
                progress(len(x))
            return result

        away = self.network.prompt if self.negative is None else self.negative[1]
        velocity = sampler.guided(
            network,
            require_finite(z_lq, "the degraded image"),
            prompt,
            away.to(self.device),
            self.config.guidance,
            self.tile,
            self.overlap,
            longest=self.longest,
        )
        noise = sample_noise(seeds, tuple(z_lq.shape[1:]))[0].to(z_lq)
        levels = sampler.sigmas(self.config.steps)
        *_, latent = sampler.trajectory(velocity, noise, levels, on_step)
        return require_finite(latent, "the restored image")

    def _whole(
        self,
        images: Tensor,
        draws: list[Tensor],
        prompt: Prompt,
        progress: Progress | None,
        on_step: OnStep | None = None,
    ) -> tuple[list[Tensor], list[Decisions]]:
        z_lq, restored = encode(self.vae, images), []
        for draw, seeds in enumerate(draws):
            hook = on_step if draw == 0 else None
            restored.append(self._restored(z_lq, seeds, prompt, progress, hook))
        return restored, [()] * len(images)

    def _tiled(
        self, image: Tensor, seed: Tensor, prompt: Prompt, progress: Progress | None
    ) -> tuple[Tensor, Decisions]:
        latent = self._restored(self.tiled_vae.encode(image), seed, prompt, progress)
        return self.tiled_vae.decode(latent), ()
