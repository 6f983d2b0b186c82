"""FoundIR: residual diffusion trained on a million pairs, with two specialists behind it."""

from lit_mimdit.systems.foundir.system import FoundIR

__all__ = ["FoundIR"]
