"""The VAE on images of any size: large ones in tiles of its own, which are larger than those of the
transformer.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from lit_mimdit.inference import tiling
from lit_mimdit.inference.layout import Layout
from lit_mimdit.models.latents import decode, encode

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


@dataclass(frozen=True)
class TiledVAE:
    """Encodes and decodes one padded image, in tiles whose results are blended.

    Args:
        vae: of the backbone.
        layout: where the VAE's tiles lie.
    """

    vae: "AutoencoderKL"
    layout: Layout

    def encode(self, image: Tensor) -> Tensor:
        """Returns the latent (1, C, h, w) of an image (1, 3, H, W) in [0, 1]."""
        pixels, overlap = self.layout.vae_boxes(*image.shape[-2:])
        latents = self.layout.latent_boxes(pixels)
        shared = overlap // self.layout.factor
        return tiling.blend(
            image, pixels, latents, shared, 1, lambda part, _: encode(self.vae, part)
        )

    def decode(self, latent: Tensor) -> Tensor:
        """Returns the image (1, 3, H, W) in [0, 1] of a latent (1, C, h, w)."""
        size = (side * self.layout.factor for side in latent.shape[-2:])
        pixels, overlap = self.layout.vae_boxes(*size)
        latents = self.layout.latent_boxes(pixels)
        return tiling.blend(
            latent, latents, pixels, overlap, 1, lambda part, _: decode(self.vae, part)
        )
