"""A restorer for samplers that take one image at a time, each with the noise of its own seed."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_mimdit.inference.run_record import config_hash
from lit_mimdit.models.mim import Decisions

Progress = Callable[[int], object]
Restore = Callable[[Tensor, int, Progress], Tensor]  # (image, seed, progress) -> restored image


class OneByOne:
    """Restores images of any size with a sampler that looks at whole images.

    A batch of four is four batches of one, to the bit.

    Args:
        network: whose parameters tell the device; it is in evaluation mode while it works.
        restore: degraded image (1, 3, H, W) in [0, 1] on that device, its seed and a function that
            counts -> restored image of the same shape, not clamped.
        evaluations: what `progress` counts while one image is restored, whatever its size.
        about: what a record says beside that, as plain values.
    """

    def __init__(
        self, network: nn.Module, restore: Restore, evaluations: int, about: dict[str, Any]
    ) -> None:
        self.network, self.restore, self.about = network, restore, about
        self.count = evaluations

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def evaluations(self, height: int, width: int) -> int:
        """What `progress` will count for one image."""
        return self.count

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
            progress: called with the number of network evaluations after each.
            ids: of the images; not used.

        Returns:
            restored images (B, 3, H, W) in [0, 1] on the CPU, and empty routing for each.
        """
        training, count = self.network.training, progress or (lambda number: None)
        self.network.eval()
        try:
            results = [
                self.restore(image[None].to(self.device), seed, count)
                for image, seed in zip(lq, seeds.tolist(), strict=True)
            ]
        finally:
            self.network.train(training)
        restored = torch.cat(results).float()
        if not restored.isfinite().all():
            raise ValueError(
                "the restored image is not finite: the weights are damaged, or the precision is"
                " too low; try float32"
            )
        return restored.clamp(0, 1).cpu(), [()] * len(lq)

    def record(self) -> dict[str, Any]:
        """Everything that decides what a restored image looks like."""
        return {
            "config_hash": config_hash(self.about),
            "system": self.about,
            "backbone": None,
            "sampling": {"evaluations": self.count},
            "prompt": {},
            "fidelity": None,
            "colour_fix": "none",
        }
