"""The answers of a system: the losses of a batch, an object that restores, and plain arguments."""

from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from lit_mimdit.models.decisions import Decisions


class ImageRestorer(Protocol):
    """Turns degraded images into restored ones, for any height and width."""

    @property
    def device(self) -> torch.device:
        """Returns where it computes."""

    def __call__(
        self, lq: Tensor, seeds: Tensor, progress: Any = None, ids: Any = None
    ) -> tuple[Tensor, list[Decisions]]:
        """Degraded (B, 3, H, W) in [0, 1] and seeds (B,) -> restored images on the CPU, routing."""

    def evaluations(self, height: int, width: int) -> int:
        """Returns how often `progress` counts while one image of this size is restored."""

    def record(self) -> dict[str, Any]:
        """Returns everything that decides what a restored image looks like, as plain values."""


@dataclass
class Losses:
    """The losses that a system computes for a training batch.

    Args:
        total: scalar that is minimised.
        per_sample: one value for each sample, (B,).
        terms: what `total` is made of, by name; those not finite are named when a run stops.
        routing: the routers' decisions; empty without routers.
        t: times of the samples in [0, 1], (B,), for systems that have them.
    """

    total: Tensor
    per_sample: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)
    routing: Decisions = ()
    t: Tensor | None = None


def plain(value: Any) -> Any:
    """Returns constructor arguments as values that JSON holds: dataclasses become dicts, tuples
    lists.

    AssertionError for anything else: a system's arguments must be readable from a file.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    assert value is None or isinstance(value, (bool, int, float, str)), type(value)
    return value
