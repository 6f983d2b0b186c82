"""From degraded to restored images with a frozen transformer and a trained branch."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lit_mimdit.inference import overview, tiling
from lit_mimdit.inference.colour import correct
from lit_mimdit.inference.corrector import Corrector
from lit_mimdit.inference.guidance import Conditioned, conditioned
from lit_mimdit.inference.padding import pad_to_multiple
from lit_mimdit.inference.run_record import config_hash
from lit_mimdit.inference.sampler import OnStep, SamplingConfig, evaluations, sample
from lit_mimdit.models.backbone import Identity
from lit_mimdit.models.flow import sample_noise
from lit_mimdit.models.latents import decode, downsampling, encode
from lit_mimdit.models.mim import Decisions, join_rows, rows_of
from lit_mimdit.models.network import ConditionedBackbone, Prompt
from lit_mimdit.models.prompts import Prompts

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler

Progress = Callable[[int], object]
VAE_TILE, VAE_OVERLAP = 512, 64  # pixels


def require_finite(latent: Tensor, of: str) -> Tensor:
    """`latent`; ValueError if any of it is infinite or no number."""
    if not latent.isfinite().all():
        share = 1.0 - latent.isfinite().float().mean().item()
        raise ValueError(
            f"{100 * share:.3g}% of the latent of {of} is not finite: the image holds values that"
            " are no numbers, the branch is damaged, or the precision is too low; try float32"
        )
    return latent


class Restorer:
    """A network with its VAE and scheduler, ready to restore.

    Args:
        network: backbone and branch.
        vae: of the same backbone.
        scheduler: gives the sampling times.
        config: see SamplingConfig.
        identity: of the backbone, for records.
        prompts: what the backbone is told about the images; None: the network's own empty prompt.
        corrector: what corrects the decoded images by the degraded ones; None: nothing, as in the
            paper.
    """

    def __init__(
        self,
        network: ConditionedBackbone,
        vae: "AutoencoderKL",
        scheduler: "FlowMatchEulerDiscreteScheduler",
        config: SamplingConfig,
        identity: Identity | None = None,
        prompts: Prompts | None = None,
        corrector: Corrector | None = None,
    ) -> None:
        self.network, self.vae, self.scheduler, self.config, self.identity = (
            network,
            vae,
            scheduler,
            config,
            identity,
        )
        self.prompts, self.corrector = prompts, corrector
        # called after each solver step of an image, and not of the small copies of it
        self.on_step: OnStep | None = None
        if config.guidance != 1.0 and (
            prompts is None or not (prompts.config.text or prompts.captions)
        ):
            raise ValueError(
                f"sampling.guidance is {config.guidance}, but the prompt is empty, and nothing to"
                " guide by; give a prompt, or set it to 1"
            )
        self.patch = network.backbone.config.patch_size
        self.factor = downsampling(vae)
        self.multiple = self.factor * self.patch
        if corrector is not None and self.multiple % corrector.network.multiple:
            raise ValueError(
                f"the fidelity network takes multiples of {corrector.network.multiple} px, this"
                f" backbone of {self.multiple} px: use one with fewer levels"
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
        """The same restorer with network and VAE on a device."""
        self.network.to(device)
        self.vae.to(device)
        return self

    def corrected_by(self, corrector: Corrector | None) -> "Restorer":
        """A restorer of the same parts, whose results another network corrects; None corrects none."""
        parts = self.network, self.vae, self.scheduler, self.config, self.identity, self.prompts
        return Restorer(*parts, corrector)

    def record(self) -> dict[str, Any]:
        """Everything that decides what a restored image looks like."""
        sampling, branch = asdict(self.config), asdict(self.network.branch.config)
        fidelity = None if self.corrector is None else self.corrector.record()
        backbone = None if self.identity is None else asdict(self.identity)
        decisive = [branch, sampling, backbone] + ([] if fidelity is None else [fidelity])
        told = None if self.prompts is None else self.prompts.config
        return {
            "config_hash": config_hash(decisive),
            "backbone": backbone,
            "sampling": sampling,
            "prompt": {} if told is None else {"text": told.text, "captions": told.captions},
            "fidelity": fidelity,
            "colour_fix": self.config.colour,
        }

    def evaluations(self, height: int, width: int) -> int:
        """Network evaluations of tiles for one image of this size: what `progress` will count."""
        padded = [-(-n // self.multiple) * self.multiple for n in (height, width)]
        size = self._overview_size(*padded)
        copies = (
            0 if size is None else self.config.overview_samples - self._is_sample(size, *padded)
        )
        return evaluations(self.config) * (
            len(self._boxes(*padded, self.patch * self.factor)) + copies
        )

    def _overview_size(self, height: int, width: int) -> tuple[int, int] | None:
        """(height, width) of the small copy of an image; None: it has none."""
        longest, several = self.config.overview, self.config.overview_samples > 1
        if longest == 0 or not (several or max(longest, self.config.tile) < max(height, width)):
            return None
        return (
            overview.small_size(height, width, longest, self.multiple)
            if longest < max(height, width)
            else (height, width)
        )

    def _is_sample(self, size: tuple[int, int], height: int, width: int) -> bool:
        """Whether an image restored in one piece is its own small copy, and so the first of that
        copy's samples.
        """
        return size == (height, width) and max(size) <= self.config.tile

    def _boxes(self, height: int, width: int, multiple: int) -> list[tiling.Box]:
        return tiling.boxes(height, width, self.config.tile, self.config.overlap, multiple)

    def _vae_boxes(self, height: int, width: int) -> tuple[list[tiling.Box], int]:
        """Tiles of the VAE and their overlap:

        its borders cost more than its size, so they are larger than the transformer's.
        """
        tile, overlap = max(self.config.tile, VAE_TILE), max(self.config.overlap, VAE_OVERLAP)
        return tiling.boxes(height, width, tile, overlap, self.multiple), overlap

    def _latent_boxes(self, pixels: list[tiling.Box]) -> list[tiling.Box]:
        return [tuple(n // self.factor for n in box) for box in pixels]

    @torch.no_grad()
    def __call__(
        self,
        lq: Tensor,
        seeds: Tensor,
        progress: Progress | None = None,
        ids: Sequence[str] | None = None,
    ) -> tuple[Tensor, list[Decisions]]:
        """Restore images of one size.

        Args:
            lq: (B, 3, H, W) in [0, 1], any H and W.
            seeds: (B,) int64; the noise of an image depends on its seed and size alone.
            progress: called with the number of tiles after each network evaluation.
            ids: of the images, by which their captions are found.

        Returns:
            restored images (B, 3, H, W) in [0, 1] on the CPU, and the routers' decisions about each
            image, a row a tile.
        """
        padded = pad_to_multiple(lq, self.multiple)
        prompt = (self.prompts.of(ids) if self.prompts is not None else self.network.prompt).to(
            self.device
        )
        size = self._overview_size(*padded.shape[-2:])
        draws = [seeds + number for number in range(self.config.overview_samples)]
        same = size is not None and self._is_sample(size, *padded.shape[-2:])
        copies: list[Tensor] = []
        if max(padded.shape[-2:]) <= self.config.tile:
            copies, routing = self._whole(
                padded.to(self.device), draws if same else draws[:1], prompt, progress, self.on_step
            )
            restored = copies[0]
        else:
            parts = [
                self._tiled(image[None].to(self.device), seed[None], prompt.row(row), progress)
                for row, (image, seed) in enumerate(zip(padded, seeds, strict=True))
            ]
            restored, routing = (
                torch.cat([part for part, _ in parts]),
                [decisions for _, decisions in parts],
            )
        if size is not None:
            if not same:
                copies, _ = self._whole(
                    overview.shrink(padded, size).to(self.device), draws, prompt, progress
                )
            restored = overview.anchor(restored, sum(copies) / len(copies))
        if self.corrector is not None:
            restored = self.corrector(restored, padded)
        restored = restored[..., : lq.shape[-2], : lq.shape[-1]].cpu()
        return correct(self.config.colour, restored, lq.cpu()), routing

    @torch.no_grad()
    def route(self, lq: Tensor) -> list[Decisions]:
        """The routers' decisions about images of one size: those that restoring them returns, at a
        fraction of its cost.

        Args:
            lq: (B, 3, H, W) in [0, 1], any H and W.

        Returns:
            for each image, a row a tile.
        """
        padded = pad_to_multiple(lq, self.multiple)
        if max(padded.shape[-2:]) <= self.config.tile:
            return rows_of(self.network.decide(encode(self.vae, padded.to(self.device))), len(lq))
        found = []
        for image in padded:
            z_lq, groups = self._cut(image[None].to(self.device))
            found.append(
                join_rows(
                    [
                        self.network.decide(torch.cat([tiling.crop(z_lq, box) for box in group]))
                        for group in groups
                    ]
                )
            )
        return found

    @torch.no_grad()
    def round_trip(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W) through the VAE and back: the best that any latent could give."""
        padded = pad_to_multiple(image, self.multiple).to(self.device)
        decoded = torch.cat([self._decode(self._encode(one[None])) for one in padded])
        return decoded[..., : image.shape[-2], : image.shape[-1]].cpu()

    def _encode(self, image: Tensor) -> Tensor:
        pixels, overlap = self._vae_boxes(*image.shape[-2:])
        return tiling.blend(
            image,
            pixels,
            self._latent_boxes(pixels),
            overlap // self.factor,
            1,
            lambda tiles, _: encode(self.vae, tiles),
        )

    def _decode(self, latent: Tensor) -> Tensor:
        pixels, overlap = self._vae_boxes(*(n * self.factor for n in latent.shape[-2:]))
        return tiling.blend(
            latent,
            self._latent_boxes(pixels),
            pixels,
            overlap,
            1,
            lambda tiles, _: decode(self.vae, tiles),
        )

    def _whole(
        self,
        images: Tensor,
        draws: list[Tensor],
        prompt: Prompt,
        progress: Progress | None,
        on_step: OnStep | None = None,
    ) -> tuple[list[Tensor], list[Decisions]]:
        """Images in one piece, once for each of `draws`, the seeds (B,) of their noise; the branch
        looks at them once. `on_step` sees the first draw.
        """
        z_lq = require_finite(encode(self.vae, images), "the degraded image")
        ask = conditioned(self.network, z_lq, prompt, self.config.guidance)

        def velocity(x: Tensor, t: float) -> Tensor:
            result = ask.velocity(x, t)
            if progress is not None:
                progress(len(x))
            return result

        found = []
        for draw, seeds in enumerate(draws):
            noise = sample_noise(seeds, tuple(z_lq.shape[1:]))[0].to(z_lq)
            hook = on_step if draw == 0 else None
            latent = sample(velocity, z_lq, noise, self.scheduler, self.config, hook)
            found.append(decode(self.vae, require_finite(latent, "the restored image")))
        return found, rows_of(ask.routing, len(images))

    def _cut(self, image: Tensor) -> tuple[Tensor, list[list[tiling.Box]]]:
        """The latent of a large image (1, 3, H, W), and its tiles, `tile_batch` at once."""
        tiles = self._latent_boxes(self._boxes(*image.shape[-2:], self.multiple))
        batch = self.config.tile_batch
        return self._encode(image), [
            tiles[first : first + batch] for first in range(0, len(tiles), batch)
        ]

    def _tiled(
        self, image: Tensor, seed: Tensor, prompt: Prompt, progress: Progress | None
    ) -> tuple[Tensor, Decisions]:
        z_lq, groups = self._cut(image)
        require_finite(z_lq, "the degraded image")
        noise = sample_noise(seed, tuple(z_lq.shape[1:]))[0].to(z_lq)
        tiles = [box for group in groups for box in group]
        batch, overlap, guidance = (
            self.config.tile_batch,
            self.config.overlap // self.factor,
            self.config.guidance,
        )
        decisions: dict[int, Decisions] = {}
        kept: dict[
            int, Conditioned
        ] = {}  # as many groups of tiles as the memory given allows; the others are looked at at every step

        def ask(group: int) -> Conditioned:
            if group in kept:
                return kept[group]
            found = conditioned(
                self.network,
                torch.cat([tiling.crop(z_lq, box) for box in groups[group]]),
                prompt,
                guidance,
            )
            decisions[group] = found.routing
            if (
                found.size + sum(other.size for other in kept.values())
                <= self.config.condition_gb * 2**30
            ):
                kept[group] = found
            return found

        def on_tiles(parts: Tensor, group: int, t: float) -> Tensor:
            result = ask(group).velocity(parts, t)
            if progress is not None:
                progress(len(parts))
            return result

        def velocity(x: Tensor, t: float) -> Tensor:
            return tiling.blend(
                x, tiles, tiles, overlap, batch, lambda parts, group: on_tiles(parts, group, t)
            )

        latent = sample(velocity, z_lq, noise, self.scheduler, self.config, self.on_step)
        kept.clear()
        return self._decode(require_finite(latent, "the restored image")), join_rows(
            [decisions[group] for group in range(len(groups))]
        )
