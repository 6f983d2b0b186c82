"""Restores images of any size in the latents of a VAE, whatever samples there."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from lit_mimdit.inference import overview, tiling
from lit_mimdit.inference.colour import correct
from lit_mimdit.inference.corrector import Corrector, Prepared
from lit_mimdit.inference.layout import Layout
from lit_mimdit.inference.sampler import OnStep, SamplingConfig
from lit_mimdit.inference.seeded_restorer import Progress
from lit_mimdit.inference.spots import without_spots
from lit_mimdit.inference.tiled_vae import TiledVAE
from lit_mimdit.models.condition import Prompt
from lit_mimdit.models.decisions import Decisions
from lit_mimdit.models.latents import decode, downsampling
from lit_mimdit.models.padding import pad_to_multiple

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, AutoencoderTiny


class LatentRestorer(ABC):
    """Takes an image apart, has its pieces sampled, and puts what they give together.

    A derived class samples: `_whole` images in one piece, and `_tiled` a large one.

    Args:
        vae: gives the latents.
        config: of it are read what an image is cut into, its small copy and the colour fix.
        multiple: pixels a side of a token; images are padded to multiples of it.
        corrector: what corrects the decoded images by the degraded ones. None: nothing.

    Raises:
        ValueError: the fidelity network takes other multiples.
    """

    def __init__(
        self,
        vae: "AutoencoderKL",
        config: SamplingConfig,
        multiple: int,
        corrector: Corrector | None = None,
    ) -> None:
        self.vae = vae
        self.tiny_vae: dict[str, str] | None = None  # what took the place of the backbone's own
        self.config = config
        self.multiple = multiple
        self.factor = downsampling(vae)
        self.layout = Layout(config, self.factor, multiple)
        self.corrector = self._fitting(corrector)
        # called after each solver step of an image, and not of the small copies of it
        self.on_step: OnStep | None = None
        # nothing is sampled for an image of whose restoration the corrector would take nothing. The
        # result is the same, and there are no decisions about such an image
        self.skip_unused = False

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """The device on which pieces are sampled."""

    @abstractmethod
    def _prompt_of(self, ids: Sequence[str] | None) -> Prompt:
        """The prompt of the images on this device; None: of images without a caption."""

    @abstractmethod
    def _whole(
        self,
        images: Tensor,
        draws: list[Tensor],
        prompt: Prompt,
        progress: Progress | None,
        on_step: OnStep | None = None,
    ) -> tuple[list[Tensor], list[Decisions]]:
        """The restored latents of images in one piece, and the routers' decisions about each.

        There is one of each image for each of `draws`, the seeds (B,) of their noise. `on_step`
        sees the first draw.
        """

    @abstractmethod
    def _tiled(
        self, image: Tensor, seed: Tensor, prompt: Prompt, progress: Progress | None
    ) -> tuple[Tensor, Decisions]:
        """A large image (1, 3, H, W), restored in tiles, and the decisions about them."""

    @property
    def tiled_vae(self) -> TiledVAE:
        """The VAE on images of any size."""
        return TiledVAE(self.vae, self.layout)

    def with_vae(self, vae: "AutoencoderTiny", about: dict[str, str]) -> Self:
        """A restorer of the same parts with another VAE of the same latents; `about` is for
        records.
        """
        other = copy(self)
        other.vae, other.tiny_vae = vae, about
        return other

    def corrected_by(self, corrector: Corrector | None) -> Self:
        """A restorer of the same parts with another fidelity network, or with none."""
        other = copy(self)
        other.corrector = self._fitting(corrector)
        return other

    def _fitting(self, corrector: Corrector | None) -> Corrector | None:
        """Raises ValueError for a fidelity network that does not take this backbone's multiples."""
        if corrector is not None and self.multiple % corrector.network.multiple:
            raise ValueError(
                f"the fidelity network takes multiples of {corrector.network.multiple} px, this"
                f" backbone of {self.multiple} px: use one with fewer levels"
            )
        return corrector

    def evaluations(self, height: int, width: int) -> int:
        """Network evaluations of tiles for one image of this size: what `progress` will count."""
        padded = self.layout.padded(height, width)
        return self.layout.evaluations(*self._sampled_size(*padded))

    def _sampled_size(self, height: int, width: int) -> tuple[int, int]:
        """The sides at which a padded image is sampled."""
        if not self._is_corrected():
            return height, width
        return self.layout.reduced_size(height, width)

    def _reduced(self, padded: Tensor) -> Tensor:
        """Padded images (B, 3, H, W) as they are sampled."""
        size = self._sampled_size(*padded.shape[-2:])
        return padded if size == padded.shape[-2:] else overview.shrink(padded, size)

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
        prompt = self._prompt_of(ids)
        if self.skip_unused and self.on_step is None and self._is_corrected():
            restored, routing = self._as_needed(padded, seeds, prompt, progress)
        else:
            restored, routing = self._sampled(padded, seeds, prompt, progress)
            restored = self.corrected(restored, padded)
        restored = restored[..., : lq.shape[-2], : lq.shape[-1]].cpu()
        return correct(self.config.colour, restored, lq.cpu()), routing

    def _sampled(
        self, padded: Tensor, seeds: Tensor, prompt: Prompt, progress: Progress | None
    ) -> tuple[Tensor, list[Decisions]]:
        """Images (B, 3, H, W), sampled at the size that is due, with the light of their small
        copies.
        """
        images = self._reduced(padded)
        height, width = padded.shape[-2:]
        size = self.layout.overview_size(*images.shape[-2:])
        if size is None:
            restored, routing = self._in_pieces(images, seeds, prompt, progress)
        elif self.layout.is_sample(size, *images.shape[-2:]):
            restored, routing = self._own_copy(images, seeds, prompt, progress)
        else:
            restored, routing = self._in_pieces(images, seeds, prompt, progress)
            small = self._mean_copy(images, size, seeds, prompt, progress)
            restored = overview.anchor(restored, small)
        return overview.enlarge(restored, (height, width)), routing

    def _is_corrected(self) -> bool:
        """Returns whether results are wholly those of the corrector."""
        return self.corrector is not None and self.corrector.weight == 1

    def _as_needed(
        self, padded: Tensor, seeds: Tensor, prompt: Prompt, progress: Progress | None
    ) -> tuple[Tensor, list[Decisions]]:
        """Images (B, 3, H, W), restored and corrected one by one, sampled only if that counts."""
        assert self.corrector is not None
        results, routing = [], []
        for row, image in enumerate(padded):
            lq = image[None].to(self.device)
            prepared = self.corrector.prepared(lq)
            if prepared.is_settled():
                result, decisions = without_spots(prepared.cleaned, lq), ()
                if progress is not None:
                    progress(self.evaluations(*lq.shape[-2:]))
            else:
                own = seeds[row : row + 1], prompt.row(row)
                restored, (decisions,) = self._sampled(image[None], *own, progress)
                result = self.corrected(restored, lq, prepared)
            results.append(result)
            routing.append(decisions)
        return tiling.joined(results), routing

    def _in_pieces(
        self, padded: Tensor, seeds: Tensor, prompt: Prompt, progress: Progress | None
    ) -> tuple[Tensor, list[Decisions]]:
        """Images (B, 3, H, W) restored in one piece, or in tiles where that is too large."""
        if max(padded.shape[-2:]) > self.config.tile:
            return self._all_tiled(padded, seeds, prompt, progress)
        images = padded.to(self.device)
        (latent,), routing = self._whole(images, [seeds], prompt, progress, self.on_step)
        return decode(self.vae, latent), routing

    def _own_copy(
        self, padded: Tensor, seeds: Tensor, prompt: Prompt, progress: Progress | None
    ) -> tuple[Tensor, list[Decisions]]:
        """Images (B, 3, H, W) that are their own small copies: sampled as often as copies are.

        The first sample is the result, and the mean of all gives it its light.
        """
        images, draws = padded.to(self.device), self._draws(seeds)
        latents, routing = self._whole(images, draws, prompt, progress, self.on_step)
        samples = [decode(self.vae, latent) for latent in latents]
        return overview.anchor(samples[0], sum(samples[1:], samples[0]) / len(samples)), routing

    def corrected(
        self, restored: Tensor, padded: Tensor, prepared: Prepared | None = None
    ) -> Tensor:
        """Returns restored images (B, 3, H, W) that the degraded ones have corrected.

        Without a corrector they are returned as they are. H and W are multiples of `multiple`.
        `prepared` is what the corrector makes of the degraded ones, where it is known already.
        """
        if self.corrector is None:
            return restored
        restored = self.corrector(restored, padded, prepared)
        if self.corrector.weight > 0:
            restored = without_spots(restored, padded.to(restored))
        return restored

    def _draws(self, seeds: Tensor) -> list[Tensor]:
        """The seeds (B,) of each sample of a small copy; the first are the images' own."""
        return [seeds + number for number in range(self.config.overview_samples)]

    def _mean_copy(
        self,
        padded: Tensor,
        size: tuple[int, int],
        seeds: Tensor,
        prompt: Prompt,
        progress: Progress | None,
    ) -> Tensor:
        """The small copies (B, 3, h, w), restored: the mean of their samples."""
        small = overview.shrink(padded, size).to(self.device)
        latents, _ = self._whole(small, self._draws(seeds), prompt, progress)
        samples = [decode(self.vae, latent) for latent in latents]
        return sum(samples[1:], samples[0]) / len(samples)

    @torch.no_grad()
    def round_trip(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W) through the VAE and back: the best that any latent could give."""
        padded = pad_to_multiple(image, self.multiple).to(self.device)
        decoded = torch.cat(
            [self.tiled_vae.decode(self.tiled_vae.encode(one[None])) for one in padded]
        )
        return decoded[..., : image.shape[-2], : image.shape[-1]].cpu()

    def _all_tiled(
        self, images: Tensor, seeds: Tensor, prompt: Prompt, progress: Progress | None
    ) -> tuple[Tensor, list[Decisions]]:
        """Large images (B, 3, H, W), one after the other."""
        restored, routing = [], []
        for row, (image, seed) in enumerate(zip(images, seeds, strict=True)):
            result, decisions = self._tiled(
                image[None].to(self.device), seed[None], prompt.row(row), progress
            )
            restored.append(result)
            routing.append(decisions)
        return tiling.joined(restored), routing
