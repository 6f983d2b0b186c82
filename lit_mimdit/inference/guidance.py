"""Classifier-free guidance follows the prompt further (Ho and Salimans, arXiv 2207.12598)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lit_mimdit.models.condition import Known, Prompt
from lit_mimdit.models.decisions import Decisions
from lit_mimdit.models.network import ConditionedBackbone
from lit_mimdit.models.what_if import WhatIf

BASES_THAT_HEAR = (
    "position",
    "reference",
)  # their tokens come out of the backbone, so they depend on the prompt


class Conditioned(NamedTuple):
    """Holds the velocity under B LQ latents and their prompts, and what is known beside it.

    Attributes:
        velocity: (x_t, t) -> (n B, C, H, W), for n noisy latents of each image, batch by batch.
        routing: the routers' decisions.
        size: bytes that are kept.
    """

    velocity: Callable[[Tensor, float], Tensor]
    routing: Decisions
    size: int


# v = v_empty + g (v_prompt - v_empty)  (arXiv 2207.12598, eq. 6, with g = 1 + w)
def guide(told: Tensor, empty: Tensor, guidance: float) -> Tensor:
    """Returns the guided velocity (B, C, H, W) of those with the prompt and with the empty one.

    Guidance 1 gives that of the prompt, 0 that of the empty prompt.
    """
    return empty + guidance * (told - empty)


def conditioned(
    network: ConditionedBackbone,
    z_lq: Tensor,
    prompt: Prompt,
    guidance: float,
    given: WhatIf | None = None,
) -> Conditioned:
    """Looks at the LQ latents, once for all steps.

    `given` are weights in the place of the routers' own.
    """
    forced = {} if given is None else {"given": given}  # a ControlNet has no routers
    condition = network.condition(z_lq, prompt, **forced)
    # a ControlNet has no base: it hears the prompt at every step
    hears = guidance != 1.0 and getattr(network.branch.config, "base", None) in BASES_THAT_HEAR
    unprompted = network.condition(z_lq, **forced) if hears else condition

    copies: dict[int, tuple[Known, Known, Prompt]] = {1: (condition, unprompted, prompt)}

    def velocity(x: Tensor, t: float) -> Tensor:
        times = torch.full((len(x),), t, device=x.device)
        count = len(x) // len(z_lq)
        if count not in copies:
            own = condition.repeated(count)
            bare = own if unprompted is condition else unprompted.repeated(count)
            copies[count] = own, bare, prompt.repeated(count)
        known, without, words = copies[count]
        told = network(x, times, known, words)
        return told if guidance == 1.0 else guide(told, network(x, times, without), guidance)

    decided = {id(tensor) for tensor in tree_leaves((condition.routing, unprompted.routing))}
    leaves = [
        leaf
        for leaf in tree_leaves((condition, unprompted))
        if isinstance(leaf, Tensor) and id(leaf) not in decided
    ]
    kept = {id(tensor): tensor.nbytes for tensor in leaves}
    return Conditioned(velocity, condition.routing, sum(kept.values()))
