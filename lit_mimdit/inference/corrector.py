"""The fidelity network (models/fidelity.py) at work: behind a restorer, on images of any size."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_mimdit.inference import spots, tiling
from lit_mimdit.inference.fidelity_file import read_fidelity
from lit_mimdit.inference.system_file import PACKAGE
from lit_mimdit.models.backbone import nano_folder
from lit_mimdit.models.fidelity import CELL, Fidelity
from lit_mimdit.models.scene_light import trust

TILE, OVERLAP = 512, 64  # pixels
DAMAGE = 0.55, 0.65  # probabilities that a scene's light is damaged: nothing is corrected, all is
QUIET, LOUD = 0.01, 0.02  # changes of a scene's light, of 1: none is trusted, all are


class Prepared(NamedTuple):
    """Degraded images as F sees them.

    damaged: from 0 to 1, how much a correction counts by the light of the scene. None: wholly.
    cleaned is (B, 3, H, W), damaged (B, 1, 1, 1).
    """

    cleaned: Tensor
    damaged: Tensor | None

    def is_settled(self) -> bool:
        """Returns whether nothing of any correction counts: `cleaned` is the result."""
        return self.damaged is not None and not self.damaged.any()


class Corrector:
    """Corrects restored images by their degraded ones.

    Args:
        network: trained behind the branch that restores.
        weight: from 0, nothing, to 1.
        about: of the network's file, for records.
    """

    def __init__(
        self, network: Fidelity, weight: float = 1.0, about: dict[str, Any] | None = None
    ) -> None:
        if not 0 <= weight <= 1:
            raise ValueError(f"fidelity_weight is {weight}: it must lie in [0, 1]")
        self.network = network.eval()
        self.weight = weight
        self.about = about or {}

    def record(self) -> dict[str, Any]:
        """Returns what a result must say of it, and of the bound on spots that goes with it."""
        bound = spots.record() if self.weight > 0 else None
        return self.about | {"weight": self.weight, "spots": bound}

    @torch.no_grad()
    def prepared(self, lq: Tensor) -> Prepared:
        """Returns what the networks before F make of degraded images (B, 3, H, W); H and W as the
        network's `multiple` demands.
        """
        self.network.to(lq.device)
        cleaned, better = self.network.prepared(
            lq, lambda network, images: _applied(network, images, images).clamp_(0, 1)
        )
        return Prepared(cleaned, None if better is None else trust(better, DAMAGE).to(cleaned))

    @torch.no_grad()
    def __call__(self, restored: Tensor, lq: Tensor, prepared: Prepared | None = None) -> Tensor:
        """Corrected images (B, 3, H, W) in [0, 1] of restored and degraded ones; H and W as the
        network's `multiple` demands.

        `prepared` is that of the degraded images, where it is known already.
        """
        if self.weight == 0:
            return restored
        self.network.to(restored.device)
        lq = lq.to(restored)
        if not self.network.first and self.network.scene_light is None:
            return _applied(self.network, restored, lq, self.weight).clamp_(0, 1)
        cleaned, damaged = self.prepared(lq) if prepared is None else prepared
        corrected = _applied(self.network, restored, cleaned).clamp_(0, 1)
        corrected = trusted(corrected, cleaned)
        if damaged is not None:
            corrected = cleaned.lerp(corrected, damaged)
        return restored.lerp(corrected, self.weight)


# x = c + t (x' - c),  t = clamp((m - QUIET) / (LOUD - QUIET), 0, 1),  m = mean |box_8(x' - c)|
def trusted(corrected: Tensor, cleaned: Tensor) -> Tensor:
    """Returns the cleaned image of a scene where the correction x' hardly changes its light.

    Haze and darkness change the light of a scene by much. Where they are absent, a branch and the
    network behind it can only harm a cleaned image c. The mean m is over the scene. Both images are
    (B, 3, H, W), with sides that are multiples of CELL.
    """
    coarse = F.avg_pool2d(corrected, CELL) - F.avg_pool2d(cleaned, CELL)
    counts = trust(coarse.abs().mean((1, 2, 3)), (QUIET, LOUD))
    return cleaned.lerp(corrected, counts.to(cleaned))


def _applied(network: Fidelity, restored: Tensor, lq: Tensor, weight: float = 1.0) -> Tensor:
    """Returns what a network makes of images of any size, in tiles where they are large.

    The result is not clamped.
    """
    height, width = restored.shape[-2:]
    boxes = tiling.boxes(height, width, TILE, OVERLAP, network.multiple)
    if len(boxes) == 1:
        return network.correct(restored, lq, weight)
    pairs = zip(restored.split(1), lq.split(1), strict=True)
    return tiling.joined([_tiled(network, pair, boxes, weight) for pair in pairs])


def _tiled(
    network: Fidelity, pair: tuple[Tensor, Tensor], boxes: list[tiling.Box], weight: float
) -> Tensor:
    """Correct a restored and degraded image, each (1, 3, H, W), in tiles.

    The tiles share the statistics of the scene.
    """
    tiles = (tiling.crops(pair, [box]) for box in boxes)
    scene = torch.stack([network.statistics(tile[:, :3], tile[:, 3:]) for tile in tiles]).mean(0)

    def correct(tile: Tensor, _: int) -> Tensor:
        return network.correct(tile[:, :3], tile[:, 3:], weight, scene)

    return tiling.blend(pair, boxes, boxes, OVERLAP, 1, correct)


def choose_fidelity(fidelity: str, own_branch: bool) -> str | None:
    """Returns what `load_corrector` takes, for a command's value.

    auto means the package's network behind the package's own branch, and none behind others.
    """
    return {"auto": PACKAGE if own_branch else None, "none": None}.get(fidelity, fidelity)


def load_corrector(fidelity: str | None, weight: float = 1.0) -> Corrector | None:
    """Returns the corrector of a file, of "package", or None for none. ValueError if it is no such
    file.
    """
    if fidelity is None:
        return None
    path = nano_folder() / "fidelity.safetensors" if fidelity == PACKAGE else Path(fidelity)
    if not path.is_file():
        raise ValueError(
            f"fidelity {path}: no such file; experiments/nano/fidelity.yaml trains one, null does"
            " without"
        )
    network = read_fidelity(path)
    return Corrector(
        network,
        weight,
        {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
    )
