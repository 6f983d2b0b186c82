"""The memory that a strategy keeps on each device for as long as training lasts."""

from dataclasses import dataclass

from lit_mimdit.estimate import Sizes

# elements of ZeRO's buckets, and those that stage 3 keeps gathered: Lightning's defaults
BUCKET = 200_000_000
LIVE = 1_000_000_000


@dataclass(frozen=True)
class Static:
    """Bytes on each device for as long as training lasts, and on the host of each."""

    frozen: int
    trained: int
    gradients: int
    optimizer: int
    average: int
    host: int

    @property
    def total(self) -> int:
        return self.frozen + self.trained + self.gradients + self.optimizer + self.average


def static(
    sizes: Sizes, *, stage: int, offload: bool, world: int, precision: str, average: bool
) -> Static:
    """Returns what the strategy keeps where; stage 0 is one process or DDP."""
    if stage == 0:
        return _whole(sizes, world, precision, average)
    return _sharded(sizes, stage, offload, world, precision, average)


def _whole(sizes: Sizes, world: int, precision: str, average: bool) -> Static:
    """Returns the memory where everything is on every device.

    DDP's buckets stand beside the gradients.
    """
    size = 2 if precision.endswith("true") and precision != "32-true" else 4
    own = size * sizes.trained
    return Static(
        frozen=sizes.frozen_bytes,
        trained=own,
        gradients=own * (2 if world > 1 else 1),
        optimizer=2 * own,
        average=own if average else 0,
        host=0,
    )


def _sharded(
    sizes: Sizes, stage: int, offload: bool, world: int, precision: str, average: bool
) -> Static:
    """Returns the memory of ZeRO.

    It keeps the parameters in the trainer's precision, and a 32-bit copy of them beside Adam's two
    moments, in parts. Its gradients are reduced through two buckets.

    Stage 2 keeps a part of the gradients. Stage 3 also keeps parts of all parameters, frozen ones
    too, and gathers up to 10^9 of them at a time.
    """
    trained, frozen = sizes.trained, sizes.frozen_bytes
    size = 4 if precision == "32-true" else 2
    part = -(-trained // world)
    states = 4 * part + 8 * part  # master copy and moments
    averages = 4 * part if average else 0
    buckets = 2 * size * min(BUCKET, trained) if world > 1 else 0
    gradients = size * (trained if stage == 1 else part) + buckets
    parameters = size * trained
    if stage == 3:
        parameters = size * part
        gathered = min(LIVE, sizes.frozen + trained) * (sizes.frozen_bytes / max(1, sizes.frozen))
        frozen = round(frozen / world + (gathered if world > 1 else 0))
    return Static(
        frozen=frozen,
        trained=parameters,
        gradients=gradients,
        optimizer=0 if offload else states,
        average=0 if offload else averages,
        host=states + averages if offload else 0,
    )
