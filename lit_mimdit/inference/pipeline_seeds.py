"""The seeds of a call of the pipeline, from diffusers' generators."""

from collections.abc import Sequence

import torch
from torch import Tensor


def seeds_of(
    generator: torch.Generator | Sequence[torch.Generator] | None, count: int, times: int
) -> Tensor:
    """Returns one seed a restored image, (count times,) int64.

    Args:
        generator: draws them; one generator for all, or one an image; None: 0, 1, ... `times` - 1
            for each image.
        count: images.
        times: restorations of each.

    Raises:
        ValueError: the generators are neither one nor one an image.
    """
    if generator is None:
        return torch.arange(times).repeat(count)
    each = [generator] * count if isinstance(generator, torch.Generator) else list(generator)
    if len(each) not in (count, count * times):
        raise ValueError(
            f"generator holds {len(each)} for {count} images: give one, or one an image"
        )
    if len(each) == count:
        each = [one for one in each for _ in range(times)]
    return torch.cat(
        [torch.randint(2**63 - 1, (1,), generator=one, device=one.device).cpu() for one in each]
    )
