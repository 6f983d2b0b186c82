"""DiffIR: a transformer steered by a vector that a short diffusion finds."""

from lit_mimdit.systems.diffir.system import DiffIR

__all__ = ["DiffIR"]
