"""Holds what a backbone is told about images: text, and what a branch makes of degraded ones."""

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from lit_mimdit.models.decisions import Decisions
from lit_mimdit.models.injection import BlockCondition


class Prompt(NamedTuple):
    """Text conditioning as embeddings.

    embeds: (1 or B, T, joint_attention_dim); pooled: (1 or B, pooled_projection_dim).
    """

    embeds: Tensor
    pooled: Tensor

    def expand(self, batch: int) -> "Prompt":
        return Prompt(self.embeds.expand(batch, -1, -1), self.pooled.expand(batch, -1))

    def to(self, device: torch.device) -> "Prompt":
        return Prompt(self.embeds.to(device), self.pooled.to(device))

    def repeated(self, times: int) -> "Prompt":
        """Returns the prompts of `times` copies of the batch; the common one if all have one."""
        if len(self.embeds) == 1:
            return self
        return Prompt(self.embeds.repeat(times, 1, 1), self.pooled.repeat(times, 1))

    def row(self, index: int) -> "Prompt":
        """Returns the prompt of one image, batch 1; the common one if all have the same."""
        return (
            self
            if len(self.embeds) == 1
            else Prompt(self.embeds[index : index + 1], self.pooled[index : index + 1])
        )


class Condition(NamedTuple):
    """All that the backbone needs to know of the LQ images.

    It has one BlockCondition a block, and the routers' decisions.
    """

    blocks: tuple[BlockCondition, ...]
    routing: Decisions

    def repeated(self, times: int) -> "Condition":
        """Returns it for `times` copies of the batch, one after the other."""
        blocks = (
            BlockCondition(
                block.key.repeat(times, 1, 1, 1), block.value.repeat(times, 1, 1, 1), block.gate
            )
            for block in self.blocks
        )
        return Condition(tuple(blocks), self.routing)


class Known(Protocol):
    """Holds what a network computes of the LQ images once: Condition, or a NamedTuple like it."""

    @property
    def routing(self) -> Decisions: ...

    def repeated(self, times: int) -> Any: ...
