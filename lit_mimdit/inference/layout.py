"""Cuts an image of any size: its tiles, those of the VAE, and its small copy."""

from dataclasses import dataclass

from lit_mimdit.inference import overview, tiling
from lit_mimdit.inference.sampler import SamplingConfig, evaluations

VAE_TILE, VAE_OVERLAP = 512, 64  # pixels


@dataclass(frozen=True)
class Layout:
    """Answers for a padded image, in pixels, where it is cut.

    Args:
        config: tile, overlap, overview and longest of it are read.
        factor: pixels a side of a position of the latent.
        multiple: pixels a side of a token; both sides of a padded image are multiples.
    """

    config: SamplingConfig
    factor: int
    multiple: int

    def padded(self, height: int, width: int) -> list[int]:
        """Returns the sides of an image (height, width) raised to multiples."""
        return [-(-side // self.multiple) * self.multiple for side in (height, width)]

    def evaluations(self, height: int, width: int) -> int:
        """Returns the network evaluations of tiles for one image (height, width), not padded."""
        padded = self.padded(height, width)
        size = self.overview_size(*padded)
        copies = 0
        if size is not None:
            copies = self.config.overview_samples - self.is_sample(size, *padded)
        return evaluations(self.config) * (len(self.boxes(*padded)) + copies)

    def reduced_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the sides at which a padded image is sampled behind a fidelity network."""
        if not 0 < self.config.longest < max(height, width):
            return height, width
        return overview.small_size(height, width, self.config.longest, self.multiple)

    def overview_size(self, height: int, width: int) -> tuple[int, int] | None:
        """Returns (height, width) of the small copy of an image; None: it has none."""
        longest, several = self.config.overview, self.config.overview_samples > 1
        if longest == 0 or not (several or max(longest, self.config.tile) < max(height, width)):
            return None
        if longest < max(height, width):
            return overview.small_size(height, width, longest, self.multiple)
        return height, width

    def is_sample(self, size: tuple[int, int], height: int, width: int) -> bool:
        """Returns whether an image restored in one piece is its own small copy, and so the first of
        that copy's samples.
        """
        return size == (height, width) and max(size) <= self.config.tile

    def boxes(self, height: int, width: int) -> list[tiling.Box]:
        """Returns the tiles of the transformer."""
        return tiling.boxes(height, width, self.config.tile, self.config.overlap, self.multiple)

    def vae_boxes(self, height: int, width: int) -> tuple[list[tiling.Box], int]:
        """Returns the tiles of the VAE and their overlap.

        Its borders cost more than its size, so they are larger than the transformer's.
        """
        tile, overlap = max(self.config.tile, VAE_TILE), max(self.config.overlap, VAE_OVERLAP)
        return tiling.boxes(height, width, tile, overlap, self.multiple), overlap

    def latent_boxes(self, pixels: list[tiling.Box]) -> list[tiling.Box]:
        """Returns boxes of pixels as boxes of the latent."""
        return [tuple(side // self.factor for side in box) for box in pixels]
