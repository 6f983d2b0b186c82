"""Image-to-image networks of others, in any architecture that the library spandrel knows.

A file that somebody released restores here like a system of this project. spandrel recognises the
architecture by names and shapes of the tensors. The extra `spandrel` of setup.cfg installs it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from lit_mimdit.inference.pixel_restorer import OVERLAP, TILE
from lit_mimdit.inference.system_file import SystemFile
from lit_mimdit.systems.base import METRICS, VERSIONS, Losses
from lit_mimdit.systems.official import read
from lit_mimdit.systems.pixel import PixelSystem
from lit_mimdit.systems.recognition import how_to_import

__all__ = ["Spandrel"]


def describe(state: Mapping[str, Any]) -> Any:
    """Returns spandrel's descriptor of the network that these tensors belong to.

    Args:
        state: what the file holds, with its wrapping.

    Raises:
        ValueError: spandrel is not installed, knows no such network or cannot build it. Or the
            network does not turn an RGB image into an RGB image of the same size.
    """
    try:
        import spandrel
    except ImportError as error:
        raise ValueError(
            "a network of another project needs spandrel, which is not installed; run:"
            ' pip install "spandrel>=0.4.1,<0.5"'
        ) from error
    try:
        tensors = spandrel.canonicalize_state_dict(dict(state))
        model = spandrel.ModelLoader().load_from_state_dict(tensors)
    except spandrel.UnsupportedModelError as error:
        raise ValueError(
            "spandrel knows no architecture with these tensors; give a file of one that it lists"
        ) from error
    except Exception as error:  # each architecture reads the tensors in its own way
        reason = " ".join(str(error).split())[:160]
        raise ValueError(
            f"spandrel cannot build this network ({type(error).__name__}: {reason}); the file is"
            " damaged or of an unknown variant, so give another"
        ) from error
    if not isinstance(model, spandrel.ImageModelDescriptor):
        raise ValueError(
            f"{model.architecture.name} needs a mask beside the image; only networks from image to"
            " image restore, so give one"
        )
    sizes = model.scale, model.input_channels, model.output_channels
    if sizes != (1, 3, 3):
        raise ValueError(
            f"{model.architecture.name} turns {sizes[1]} channels into {sizes[2]} at scale"
            f" {sizes[0]}; only networks from 3 to 3 channels at scale 1 restore, so give one"
        )
    return model


class Spandrel(PixelSystem):
    """A released network that spandrel builds, padded and tiled as it demands.

    Args:
        shapes: shape of each tensor by name. They decide the architecture and its sizes.
        tile: side in pixels of the tiles that larger images are restored in, rounded up to what the
            network demands. 0 never cuts. A network that cuts by itself gets the whole image.
        overlap: pixels that neighbouring tiles share.
        metrics: scores of `test` by key.
        versions: what validation and test score of each image.
    """

    TRAINABLE: ClassVar[bool] = False

    def __init__(
        self,
        shapes: dict[str, list[int]],
        tile: int = TILE,
        overlap: int = OVERLAP,
        metrics: list[str] = METRICS,
        versions: list[str] = VERSIONS,
    ) -> None:
        super().__init__(None, tile, overlap, metrics, versions)
        empty = {name: torch.zeros(shape, device="cpu") for name, shape in shapes.items()}
        self.descriptor = describe(empty)
        self.network = self.descriptor.model
        if self.descriptor.tiling.name == "INTERNAL":
            self.tile = 0
        self.tile = -(-self.tile // self.multiple) * self.multiple

    @classmethod
    def from_official(cls, *files: Mapping[str, Any], **overrides: Any) -> "Spandrel":
        """Returns the system with the weights of a released file.

        Args:
            files: content of the checkpoint, one file.
            overrides: tile and overlap.

        Raises:
            ValueError: the file is not the only one, or no such network.
        """
        if len(files) != 1:
            raise ValueError(f"spandrel reads one file, and {len(files)} are given; give one")
        if wrong := sorted(overrides.keys() - {"tile", "overlap"}):
            raise ValueError(f"spandrel: no argument {wrong[0]}; it has tile, overlap")
        weights = describe(files[0]).model.state_dict()
        shapes = {name: list(tensor.shape) for name, tensor in weights.items()}
        system = cls(shapes, **overrides)
        system.network.load_state_dict(weights)
        return system

    @property
    def architecture(self) -> str:
        """Name of the architecture, such as NAFNet."""
        return self.descriptor.architecture.name

    @property
    def multiple(self) -> int:
        """Returns what both sides of an image must be divisible by."""
        return self.descriptor.size_requirements.multiple_of

    def restore(self, lq: Tensor) -> Tensor:
        """Degraded images (B, 3, H, W) in [0, 1] -> restored ones, clamped.

        spandrel pads what is below the network's smallest size, and to a square where it asks so.
        """
        return torch.cat([self.descriptor(image[None]) for image in lq]).clone()

    def losses(self, batch: dict[str, Any]) -> Losses:
        raise ValueError(
            f"{self.architecture} of a released file only restores; train a system of"
            " experiments/systems instead"
        )


def read_file(path: Path) -> SystemFile:
    """Returns the system in a released file; code in it is refused. ValueError names the file."""
    content = read(path)
    try:
        return Spandrel.from_official(content).system_file()
    except ValueError as error:
        raise ValueError(f"checkpoint {path}: {how_to_import(content) or error}") from error
