"""Restores degraded images with a frozen transformer and a trained branch."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lit_mimdit.inference import tiling
from lit_mimdit.inference.corrector import Corrector
from lit_mimdit.inference.guidance import Conditioned, conditioned
from lit_mimdit.inference.latent_restorer import LatentRestorer
from lit_mimdit.inference.run_record import config_hash
from lit_mimdit.inference.sampler import OnStep, SamplingConfig, sample
from lit_mimdit.inference.seeded_restorer import Progress
from lit_mimdit.inference.tile_conditions import TileConditions
from lit_mimdit.models.backbone import Identity
from lit_mimdit.models.condition import Prompt
from lit_mimdit.models.decisions import Decisions, join_rows, rows_of
from lit_mimdit.models.flow import sample_noise
from lit_mimdit.models.latents import downsampling, encode, require_finite
from lit_mimdit.models.network import ConditionedBackbone, MiMDiTNetwork
from lit_mimdit.models.padding import pad_to_multiple
from lit_mimdit.models.prompts import PromptSource
from lit_mimdit.models.what_if import NO_ROUTERS, Choice, Weight, WhatIf, what_if

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler


class Restorer(LatentRestorer):
    """A network with its VAE and scheduler, ready to restore.

    Args:
        network: backbone and branch.
        vae: of the same backbone.
        scheduler: gives the sampling times.
        config: see SamplingConfig.
        identity: of the backbone, for records.
        prompts: what the backbone is told about the images; None: the network's own empty prompt.
        corrector: what corrects the decoded images by the degraded ones; spots that these rule out
            are then taken away (inference/spots.py). None: nothing, as in the paper.

    Raises:
        ValueError: there is guidance without a prompt, or the fidelity network takes other
            multiples. Or the backbone does not take the side of a tile or of the small copy.
    """

    def __init__(
        self,
        network: ConditionedBackbone,
        vae: "AutoencoderKL",
        scheduler: "FlowMatchEulerDiscreteScheduler",
        config: SamplingConfig,
        identity: Identity | None = None,
        prompts: PromptSource | None = None,
        corrector: Corrector | None = None,
    ) -> None:
        self.patch = network.backbone.config.patch_size
        super().__init__(vae, config, downsampling(vae) * self.patch, corrector)
        self.network = network
        self.scheduler = scheduler
        self.identity = identity
        self.prompts = prompts
        self.given: WhatIf | None = None  # weights in the place of the routers' own
        if config.guidance != 1.0 and (
            prompts is None or not (prompts.config.text or prompts.captions)
        ):
            raise ValueError(
                f"sampling.guidance is {config.guidance}, but the prompt is empty, and nothing to"
                " guide by; give a prompt, or set it to 1"
            )
        limit = network.backbone.config.pos_embed_max_size * self.multiple
        for key, side in (("tile", config.tile), ("overview", config.overview)):
            if side % self.multiple or side > limit:
                raise ValueError(
                    f"sampling.{key} is {side} px: this backbone takes multiples of {self.multiple}"
                    f" px up to {limit} px"
                )

    @property
    def device(self) -> torch.device:
        return self.network.embeds.device

    def to(self, device: torch.device) -> "Restorer":
        """Moves network and VAE to a device; returns this restorer."""
        parts: tuple[nn.Module, ...] = self.network, self.vae
        for part in parts:
            part.to(device)
        return self

    def forced(
        self,
        inter: str | Mapping[str, Weight] | None = None,
        intra: str | Mapping[str, Choice] | None = None,
    ) -> "Restorer":
        """A restorer of the same parts whose routers are overruled: see models/what_if.py.

        Raises ValueError if they are not what this branch has, or it has no routers.
        """
        other = copy(self)
        other.given = None
        if inter is not None or intra is not None:
            if not isinstance(self.network, MiMDiTNetwork):
                raise ValueError(NO_ROUTERS)
            config = self.network.branch.config
            sizes = config.intra.experts, len(self.network.branch.mims)
            other.given = what_if(config.groups, *sizes, inter, intra)
        return other

    def record(self) -> dict[str, Any]:
        """Returns everything that decides what a restored image looks like."""
        config: Any = self.network.branch.config  # of the branch's own class
        sampling, branch = asdict(self.config), asdict(config)
        fidelity = None if self.corrector is None else self.corrector.record()
        backbone = None if self.identity is None else self.identity.plain()
        forced = {} if self.given is None else {"what_if": self.given.record()}
        tiny = {} if self.tiny_vae is None else {"vae": self.tiny_vae}
        decisive = [branch, sampling, backbone] + ([] if fidelity is None else [fidelity])
        decisive += [part for part in (forced, tiny) if part]
        told = None if self.prompts is None else self.prompts.config
        return {
            "config_hash": config_hash(decisive),
            "backbone": backbone,
            "sampling": sampling,
            "prompt": {} if told is None else {"text": told.text, "captions": told.captions},
            "fidelity": fidelity,
            "colour_fix": self.config.colour,
            **forced,
            **tiny,
        }

    def _prompt_of(self, ids: Sequence[str] | None) -> Prompt:
        prompt = self.network.prompt if self.prompts is None else self.prompts.of(ids)
        return prompt.to(self.device)

    @torch.no_grad()
    def route(self, lq: Tensor) -> list[Decisions]:
        """The routers' decisions about images of one size: those that restoring them returns, at a
        fraction of its cost.

        Args:
            lq: (B, 3, H, W) in [0, 1], any H and W.

        Returns:
            for each image, a row a tile.
        """
        padded = self._reduced(pad_to_multiple(lq, self.multiple))
        if max(padded.shape[-2:]) <= self.config.tile:
            return rows_of(self._decide(encode(self.vae, padded.to(self.device))), len(lq))
        routing = []
        for image in padded:
            z_lq, groups = self._cut(image[None].to(self.device))
            decisions = [self._decide(tiling.crops(z_lq, group)) for group in groups]
            routing.append(join_rows(decisions))
        return routing

    def _decide(self, z_lq: Tensor) -> Decisions:
        forced = {} if self.given is None else {"given": self.given}  # a ControlNet has no routers
        return self.network.decide(z_lq, **forced)

    def _whole(
        self,
        images: Tensor,
        draws: list[Tensor],
        prompt: Prompt,
        progress: Progress | None,
        on_step: OnStep | None = None,
    ) -> tuple[list[Tensor], list[Decisions]]:
        """The branch looks at the images once. The draw that `on_step` sees is sampled alone. Of
        the others as many are sampled at once as tiles are.
        """
        z_lq = require_finite(encode(self.vae, images), "the degraded image")
        condition = conditioned(self.network, z_lq, prompt, self.config.guidance, self.given)
        velocity = _counted(condition.velocity, progress)
        most = max(1, self.config.tile_batch // len(images))
        alone = [] if on_step is None else [draws[:1]]
        rest = draws[len(alone) :]
        together = [rest[first : first + most] for first in range(0, len(rest), most)]
        restored: list[Tensor] = []
        for group in [*alone, *together]:
            noise = sample_noise(torch.cat(group), tuple(z_lq.shape[1:]))[0].to(z_lq)
            start = z_lq.repeat(len(group), 1, 1, 1)
            hook = None if restored else on_step
            latent = sample(velocity, start, noise, self.scheduler, self.config, hook)
            restored += require_finite(latent, "the restored image").split(len(images))
        return restored, rows_of(condition.routing, len(images))

    def _cut(self, image: Tensor) -> tuple[Tensor, list[list[tiling.Box]]]:
        """The latent of a large image (1, 3, H, W), and its tiles, `tile_batch` at once."""
        tiles = self.layout.latent_boxes(self.layout.boxes(*image.shape[-2:]))
        batch = self.config.tile_batch
        return self.tiled_vae.encode(image), [
            tiles[first : first + batch] for first in range(0, len(tiles), batch)
        ]

    def _tiled(
        self, image: Tensor, seed: Tensor, prompt: Prompt, progress: Progress | None
    ) -> tuple[Tensor, Decisions]:
        """A large image (1, 3, H, W): at every step the velocities of its tiles are blended."""
        z_lq, groups = self._cut(image)
        require_finite(z_lq, "the degraded image")
        noise = sample_noise(seed, tuple(z_lq.shape[1:]))[0].to(z_lq)
        tiles = [box for group in groups for box in group]
        overlap = self.config.overlap // self.factor

        def look(group: int) -> Conditioned:
            own = tiling.crops(z_lq, groups[group])
            return conditioned(self.network, own, prompt, self.config.guidance, self.given)

        conditions = TileConditions(look, self.config.condition_gb * 2**30)

        def velocity(x: Tensor, t: float) -> Tensor:
            def of_group(parts: Tensor, group: int) -> Tensor:
                return _counted(conditions.of(group).velocity, progress)(parts, t)

            return tiling.blend(x, tiles, tiles, overlap, self.config.tile_batch, of_group)

        latent = sample(velocity, z_lq, noise, self.scheduler, self.config, self.on_step)
        conditions.kept.clear()  # their memory is for the VAE
        restored = self.tiled_vae.decode(require_finite(latent, "the restored image"))
        return restored, conditions.routing()


def _counted(
    velocity: Callable[[Tensor, float], Tensor], progress: Progress | None
) -> Callable[[Tensor, float], Tensor]:
    """A velocity that reports after each evaluation of how many images or tiles it was."""
    if progress is None:
        return velocity

    def counted(x: Tensor, t: float) -> Tensor:
        result = velocity(x, t)
        progress(len(x))
        return result

    return counted
