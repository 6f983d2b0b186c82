"""DiffUIR's network in its four published sizes."""

from dataclasses import dataclass

from lit_mimdit.models.residual_unet import ResidualUNet


@dataclass(frozen=True)
class Variant:
    """Holds a published size of the U-Net.

    Attributes:
        dim: channels of the finest level.
        dim_mults: channels of each level as multiples of `dim`.
        parameters: how many the network has, as published.
    """

    dim: int
    dim_mults: tuple[int, ...]
    parameters: int

    def build(self) -> ResidualUNet:
        """Returns the network of this size with random weights."""
        return ResidualUNet(self.dim, self.dim_mults)


VARIANTS = {
    "T": Variant(32, (1, 1, 1, 1), 886_435),
    "S": Variant(32, (1, 2, 2, 4), 3_268_643),
    "B": Variant(64, (1, 2, 2, 4), 12_406_851),
    "L": Variant(64, (1, 2, 4, 8), 36_261_187),
}
