"""Plain regression: the same kind of network as models/fidelity.py, from the degraded image alone,
without any prior.

x = x_lq + F(x_lq), trained on L1 as restoration networks are; by the logarithm that fidelity takes
it left darkness and haze as they are.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lit_mimdit.data.image_io import ImageError
from lit_mimdit.inference import tiling
from lit_mimdit.inference.restorer import pad_to_multiple
from lit_mimdit.models.fidelity import Correction
from lit_mimdit.pretraining.fidelity import CorrectionTraining

TILE, OVERLAP = 512, 64  # pixels


class Regression(CorrectionTraining):
    """Trains on the data modules of the systems it is compared with; `predict` restores folders,
    for `evaluate`.
    """

    def build(self, widths: tuple[int, ...], blocks: int) -> nn.Module:
        """A U-Net that sees one image, and its statistics."""
        return Correction(1, 3, widths, blocks, scene=True)

    def correct(self, batch: dict[str, Any]) -> Tensor:
        """Corrected images (B, 3, H, W) of a batch, not clamped."""
        return batch["lq"] + self.network(batch["lq"] - 0.5)

    def write(self, path: Path) -> None:
        """The finished network's file; `predict` takes the checkpoint."""
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(
            {
                name: tensor.half().contiguous()
                for name, tensor in self.network.state_dict().items()
            },
            path,
        )

    def predict_step(self, batch: Any, index: int) -> Tensor:
        """Restored image (3, H, W) in [0, 1] of a photograph of any size.

        Raises ImageError for a broken file.
        """
        _, photo, _ = batch
        if isinstance(photo, ImageError):
            raise photo
        multiple = self.network.multiple
        image = pad_to_multiple(photo.rgb[None].to(self.device), multiple)
        boxes = tiling.boxes(*image.shape[-2:], TILE, OVERLAP, multiple)
        with torch.no_grad():
            restored = tiling.blend(
                image, boxes, boxes, OVERLAP, 1, lambda tiles, _: self.correct({"lq": tiles})
            )
        return restored[0, :, : photo.rgb.shape[-2], : photo.rgb.shape[-1]].clamp(0, 1).cpu()
