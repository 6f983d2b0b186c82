"""Image-to-image systems whose sampler begins with random numbers: each image has its own seed."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lit_mimdit.inference.run_record import config_hash
from lit_mimdit.models.decisions import Decisions

Draw = Callable[[Tensor], Tensor]  # a tensor -> standard normal numbers of its shape
Progress = Callable[[int], object]


class RestoreOne(Protocol):
    """Restores one image (1, 3, H, W) in [0, 1] of any size; the result may lie outside."""

    def __call__(self, image: Tensor, draw: Draw, progress: Progress, id: str | None) -> Tensor:
        """Returns the restored image, and calls `progress` with each step that it announces."""


def seeded(seed: int) -> Draw:
    """Returns a source of standard normal numbers that depends on `seed` alone.

    The numbers come from the CPU's generator, so that every device is given the same.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator).to(like)

    return draw


class SeededRestorer:
    """Restores images one by one, each from noise of its own seed.

    A batch of four is therefore four batches of one, to the bit.

    Args:
        network: whose parameters tell the device; it is put into evaluation mode while it works.
        restore: what restores one image.
        count: height and width -> how often `progress` is called for an image of this size.
        about: the system and its arguments as plain values, for the record.
        sampling: what decides how it samples, as plain values, for the record.
    """

    def __init__(
        self,
        network: nn.Module,
        restore: RestoreOne,
        count: Callable[[int, int], int],
        about: dict[str, Any],
        sampling: dict[str, Any],
    ) -> None:
        self.network = network
        self.restore = restore
        self.count = count
        self.about, self.sampling = about, sampling

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def evaluations(self, height: int, width: int) -> int:
        """Returns how many steps an image of this size takes: what `progress` will count."""
        return self.count(height, width)

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
            seeds: (B,), of the images' noise.
            progress: called after each step of each image.
            ids: of the images.

        Returns:
            restored images (B, 3, H, W) in [0, 1] on the CPU, and empty routing for each.
        """
        training = self.network.training
        self.network.eval()
        try:
            results = [
                self.restore(
                    image[None].to(self.device),
                    seeded(seed),
                    progress or (lambda steps: None),
                    None if ids is None else ids[row],
                )
                for row, (image, seed) in enumerate(zip(lq, seeds.tolist(), strict=True))
            ]
        finally:
            self.network.train(training)
        return torch.cat(results).float().clamp(0, 1).cpu(), [()] * len(lq)

    def record(self) -> dict[str, Any]:
        """Returns everything that decides what a restored image looks like."""
        return {
            "config_hash": config_hash([self.about, self.sampling]),
            "system": self.about,
            "backbone": None,
            "sampling": self.sampling,
            "prompt": {},
            "fidelity": None,
            "colour_fix": "none",
        }
