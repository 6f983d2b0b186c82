"""DiffUIR: residual diffusion for several degradations, in three steps."""

from lit_mimdit.systems.diffuir.system import DiffUIR

__all__ = ["DiffUIR"]
