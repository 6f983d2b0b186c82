"""Few-step restoration: a student that makes in a few steps what its teacher makes in many."""

from lit_mimdit.systems.few_step.system import FewStep

__all__ = ["FewStep"]
