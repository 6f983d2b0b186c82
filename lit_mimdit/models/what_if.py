"""Shows what a branch would do if its routers decided otherwise.

A user gives weights of groups and sub-experts in the routers' place.

Nothing is renormalised. A group that is not named keeps its router's weight, so `spatial=0` takes
away exactly what the spatial group adds. Weights equal to the router's change no bit.

B = batch, L = blocks (MiMs), G = groups, E = sub-experts of a group, K = sub-experts selected.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from lit_mimdit.models.routers import Routing

OTHERS = "others"  # all groups that are not named
NO_ROUTERS = (
    "inter or intra is given, but this system has no routers that could be overruled; leave them"
    " out, or restore with a MiM-DiT branch"
)
Gates = dict[int, float | None]  # sub-expert -> its gate; None: the router's own
# a number for all blocks, or one for each block, None where the router decides
Weight = float | Sequence[float | None]
# sub-experts (or their gates) for all blocks, or for each block
Choice = Sequence[int] | Mapping[int, float | None] | Sequence[Sequence[int] | Mapping | None]


class BlockWhatIf(NamedTuple):
    """The weights that are given for one block.

    They are each group's weight and its sub-experts' gates; None where the router decides.
    """

    inter: tuple[float | None, ...]
    intra: tuple[Gates | None, ...]


@dataclass(frozen=True)
class WhatIf:
    """Weights in the place of those that the routers give.

    Args:
        inter: group -> its weight in each block, L values; None where the router decides.
        intra: group -> its sub-experts in each block with their gates, L values; None where the
            router decides.
        groups: names of all groups, in the branch's order.
    """

    inter: dict[str, list[float | None]] = field(default_factory=dict)
    intra: dict[str, list[Gates | None]] = field(default_factory=dict)
    groups: tuple[str, ...] = ()

    def at(self, block: int) -> BlockWhatIf:
        """Returns what is given for a block."""
        return BlockWhatIf(
            tuple(self.inter[name][block] if name in self.inter else None for name in self.groups),
            tuple(self.intra[name][block] if name in self.intra else None for name in self.groups),
        )

    def record(self) -> dict[str, Any]:
        """Returns what a result must say of it, as plain values; one value where all blocks have
        the same.
        """
        plain = {name: [_plain(gates) for gates in each] for name, each in self.intra.items()}
        both: dict[str, dict[str, Any]] = {"inter": self.inter, "intra": plain}
        return {
            router: dict(zip(given, map(_shortest, given.values()), strict=True))
            for router, given in both.items()
            if given
        }


def _plain(gates: Gates | None) -> dict[str, float | None] | None:
    return None if gates is None else {str(key): gate for key, gate in gates.items()}


def _shortest(each: list[Any]) -> Any:
    """One value where all blocks have the same."""
    return each[0] if all(value == each[0] for value in each) else each


def titles(groups: Sequence[str]) -> list[str]:
    """Returns names of a branch's groups: their kinds, with a number before each where a kind
    appears twice.
    """
    once = len(set(groups)) == len(groups)
    return [kind if once else f"{number}_{kind}" for number, kind in enumerate(groups)]


def what_if(
    groups: Sequence[str],
    experts: int,
    blocks: int,
    inter: str | Mapping[str, Weight] | None = None,
    intra: str | Mapping[str, Choice] | None = None,
) -> WhatIf | None:
    """Returns what a user wants in the place of the routers' decisions; None for nothing.

    Args:
        groups: kinds of the branch's expert groups.
        experts: E.
        blocks: L.
        inter: weights by group, such as {"spatial": 0, "channel": 1} or `spatial=0,channel=1`. The
            name "others" stands for all groups not named, and `spatial@2=0` speaks of block 2
            alone.
        intra: sub-experts by group, such as {"swin": [0, 2]} or "swin=0+2". They keep the gates of
            the router's softmax; {"swin": {0: 0.7}} or "swin=0:0.7" sets a gate.

    Raises:
        ValueError: unknown groups, blocks or sub-experts, a weight that is negative or no number,
            a block whose weights are all zero.
    """
    names = titles(groups)
    weights = _by_block("inter", inter, names, blocks, _number, _is_number)
    gates = _by_block("intra", intra, names, blocks, _gates, _is_gates)
    for name, each in gates.items():
        for given in each:
            _require_sub_experts(name, given, experts)
    for block in range(blocks):
        if len(weights) == len(names) and all(weights[name][block] == 0 for name in names):
            raise ValueError(
                f"inter: all weights of block {block} are 0, and nothing would be left of its"
                " experts; give one group more than 0"
            )
    return WhatIf(weights, gates, tuple(names)) if weights or gates else None


def _by_block(option, given, names, blocks, read, is_one) -> dict[str, list[Any]]:
    """The values of each group that is named, one a block."""
    pairs = _pairs(option, given) if isinstance(given, str) else list((given or {}).items())
    given_to: dict[str, list[Any]] = {}
    for key, value in pairs:
        name, _, at = str(key).partition("@")
        if name != OTHERS and name not in names:
            raise ValueError(
                f"{option}: there is no group {name!r}: choose among {', '.join(names)}, {OTHERS}"
            )
        if at and not (at.isdecimal() and int(at) < blocks):
            raise ValueError(
                f"{option}: there is no block {at!r}: this branch has blocks 0 to {blocks - 1}"
            )
        if at or is_one(value):
            each = [read(option, name, value)] * blocks
        else:
            if len(value) != blocks:
                raise ValueError(
                    f"{option}: {name} has {len(value)} values, and this branch {blocks} blocks;"
                    " give one for all, or one each"
                )
            each = [None if one is None else read(option, name, one) for one in value]
        targets = (
            [one for one in names if one not in {str(key).partition("@")[0] for key, _ in pairs}]
            if name == OTHERS
            else [name]
        )
        for target in targets:
            own = given_to.setdefault(target, [None] * blocks)
            for block in [int(at)] if at else range(blocks):
                own[block] = each[block]
    return given_to


def _pairs(option: str, text: str) -> list[tuple[str, str]]:
    """The groups and values of a text such as "spatial=0,channel=1"."""
    pairs = [part.partition("=") for part in text.replace(" ", "").split(",") if part]
    if not pairs or not all(name and value for name, _, value in pairs):
        example = "spatial=0,channel=1" if option == "inter" else "swin=0+2,se=1"
        raise ValueError(f"{option} is {text!r}: write GROUP=VALUE with commas, such as {example}")
    keys = [name for name, _, _ in pairs]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise ValueError(f"{option} names {twice} twice: give one value")
    return [(name, value) for name, _, value in pairs]


def _is_number(value: Any) -> bool:
    return isinstance(value, (str, int, float))


def _number(option: str, name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise ValueError(f"{option}: {name} is {value!r}: a weight must be a number of 0 or more")
    return number


def _is_gates(value: Any) -> bool:
    return isinstance(value, (str, int, Mapping)) or all(isinstance(one, int) for one in value)


def _gates(option: str, name: str, value: Any) -> Gates:
    """The sub-experts of one group; a gate is None where the router's own is kept."""
    if isinstance(value, str):
        if not re.fullmatch(r"\d+(:[^:+]+)?(\+\d+(:[^:+]+)?)*", value):
            raise ValueError(
                f"{option}: {name} is {value!r}: write the numbers of sub-experts, such as 0+2, or"
                " with gates 0:0.7+2:0.3"
            )
        parts = [part.partition(":") for part in value.split("+")]
        pairs: list[tuple[int, Any]] = [(int(key), gate or None) for key, _, gate in parts]
    elif isinstance(value, Mapping):
        pairs = list(value.items())
    else:
        pairs = [(key, None) for key in ([value] if isinstance(value, int) else value)]
    numbers = [key for key, _ in pairs]
    if len(set(numbers)) != len(numbers):
        raise ValueError(f"{option}: {name} names a sub-expert twice: give each once")
    gates = {
        key: None if gate is None else _number(option, f"{name} {key}", gate) for key, gate in pairs
    }
    if not gates or all(gate == 0 for gate in gates.values()):
        raise ValueError(
            f"{option}: {name} has no sub-expert left: give one a gate of more than 0, or switch"
            f" the group off with inter {name}=0"
        )
    return gates


def _require_sub_experts(name: str, given: Gates | None, experts: int) -> None:
    unknown = [key for key in given or {} if not 0 <= key < experts]
    if unknown:
        raise ValueError(
            f"intra: {name} has no sub-expert {unknown[0]}: choose among 0 to {experts - 1}"
        )


def forced_inter(routing: Routing, given: Sequence[float | None]) -> Routing:
    """Returns the decision (B, G) of an Inter router with the given weights in the place of its
    own.

    A top-1 router selects as many groups as it did where one is left; else all of them work.
    """
    if all(weight is None for weight in given):
        return routing
    columns = [
        column if weight is None else torch.full_like(column, weight)
        for column, weight in zip(routing.weights.unbind(1), given, strict=True)
    ]
    weights = torch.stack(columns, 1)
    count = routing.selected.shape[1]
    if (weights > 0).sum(1).max() > count:
        count = weights.shape[1]
    return Routing(weights, weights.topk(count, dim=-1).indices, routing.logits)


def forced_intra(routing: Routing, given: Gates | None, renormalise: bool) -> Routing:
    """Returns the decision (B, E) of an Intra router that selects the given sub-experts.

    Args:
        routing: what the router decided.
        given: sub-experts with their gates; None: as the router decided.
        renormalise: whether this router divides the gates that it selects by their sum.
    """
    if given is None:
        return routing
    chosen = torch.tensor(list(given), device=routing.logits.device)
    gates_BE = routing.logits.softmax(-1)
    outside = torch.ones_like(gates_BE, dtype=torch.bool).index_fill(1, chosen, False)
    top_BK, selected_BK = gates_BE.masked_fill(outside, -1.0).topk(len(given), dim=-1)
    if renormalise:
        top_BK = top_BK / top_BK.sum(-1, keepdim=True)
    weights = torch.zeros_like(gates_BE).scatter(1, selected_BK, top_BK)
    for expert, gate in given.items():
        if gate is not None:
            weights[:, expert] = gate
    return Routing(weights, selected_BK, routing.logits)
