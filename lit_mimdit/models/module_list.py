"""Lists of modules whose type says what they hold."""

from collections.abc import Iterable, Sequence
from typing import TypeVar, cast

from torch import nn

M = TypeVar("M", bound=nn.Module)


def module_list(modules: Iterable[M]) -> Sequence[M]:
    """Returns an nn.ModuleList, whose elements have their own type for the type checker."""
    return cast(Sequence[M], nn.ModuleList(modules))
