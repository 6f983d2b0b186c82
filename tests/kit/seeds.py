"""A pytest plugin that seeds what draws numbers, so that no test depends on what ran before it."""

import random
import zlib

import pytest


def seed(name: str = "") -> None:
    """Seed Python's, NumPy's and PyTorch's own generators with a number that stands for a name."""
    import numpy as np
    import torch

    number = zlib.crc32(name.encode())
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002  libraries draw from it
    torch.manual_seed(number)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Every test draws the same numbers, alone or after others."""
    seed()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef) -> object:
    """A fixture of several tests draws the same numbers, whichever of them is the first.

    That test goes on as if the fixture had drawn none.
    """
    if fixturedef.scope == "function":
        return (yield)
    from lightning.pytorch.utilities.seed import isolate_rng

    with isolate_rng(include_cuda=False):
        seed(fixturedef.argname)
        return (yield)
