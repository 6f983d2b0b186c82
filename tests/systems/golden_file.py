"""A golden file as comparisons read it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ALIASES = {"dgunetplus": "dgunet"}


class Absent(ValueError):
    """A name that a comparison needs and the file does not have."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name}: not in the file")
        self.name = name


class Named(dict[str, Any]):
    """Tensors or metadata of a golden file; a name that is not there raises `Absent`."""

    def __missing__(self, name: str) -> Any:
        raise Absent(name)


@dataclass
class Golden:
    """A golden file.

    tensors: all of them, by name. info: the JSON of its metadata. path: where it lies.
    schedules: the learning rates by epoch of every system, or None where they were not found.
    dtype: in which its numbers are recomputed.
    """

    tensors: Mapping[str, Tensor]
    info: Mapping[str, Any]
    path: Path
    schedules: dict[str, Any] | None = None
    dtype: torch.dtype = torch.float64

    def state(self, prefix: str = "state.", dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """The official state dict; floating point tensors are cast to `dtype` if it is given."""
        return {
            name.removeprefix(prefix): value.to(dtype)
            if dtype and value.is_floating_point()
            else value
            for name, value in self.tensors.items()
            if name.startswith(prefix)
        }

    def double(self, name: str) -> Tensor:
        """A stored tensor in float64."""
        return self.tensors[name].double()

    def real(self, name: str) -> Tensor:
        """A stored tensor in the precision of the computation."""
        return self.tensors[name].to(self.dtype)

    @property
    def system(self) -> str:
        """The name of the file in tests/systems/golden/ that knows this golden."""
        name = self.info.get("system") or self.path.stem.split("_")[0]
        plain = re.sub("[^a-z0-9]", "", str(name).lower())
        return ALIASES.get(plain, plain)


def at(info: Mapping[str, Any], path: str) -> Any:
    """What stands at a path such as "losses/stage1", or None where there is nothing."""
    found: Any = info
    for key in path.split("/"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def numbers(value: Any, path: str = "") -> Iterator[tuple[str, float | None]]:
    """Every number below a JSON value with its path; null counts as a number."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from numbers(inner, f"{path}/{key}" if path else key)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from numbers(inner, f"{path}/{index}")
    elif value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        yield path, value


def lists(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every list or text below a JSON value with its path."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from lists(inner, f"{path}/{key}")
    else:
        yield path, value
