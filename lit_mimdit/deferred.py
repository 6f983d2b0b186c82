"""Defers the import of a library that others import and hardly anyone uses.

diffusers imports bitsandbytes wherever it is installed, and pyiqa installs it. That brings in
PyTorch's inductor, an eighth of the start of every command. The library is loaded in full when
something of it is first used, e.g. a quantized backbone.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


class Deferred(ModuleType):
    """A module that runs its code when it is first asked for a name."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system's questions
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r} yet")
        load(self)
        return getattr(self, name)


class Loader:
    """Makes a module without running its code."""

    def __init__(self, own: Any) -> None:
        self.own = own

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return Deferred(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Leaves the code for later."""


def load(module: ModuleType) -> None:
    """Runs the code of a deferred module, which then is a module like others."""
    spec = module.__spec__
    assert spec is not None and isinstance(spec.loader, Loader)
    module.__class__ = ModuleType
    module.__loader__ = spec.loader = spec.loader.own
    spec.loader.exec_module(module)


class Finder:
    """Finds the library `name`, deferred, and loads it before a part of it is imported.

    Args:
        name: of a top-level package.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.startswith(f"{self.name}.") and isinstance(sys.modules.get(self.name), Deferred):
            load(sys.modules[self.name])
        if name != self.name:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = Loader(spec.loader)
        return spec


def defer(name: str) -> None:
    """Defers the import of the top-level package `name`, unless it was imported already."""
    if name not in sys.modules:
        sys.meta_path.insert(0, Finder(name))
