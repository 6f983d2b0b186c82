"""DA-CLIP, ICLR 2024: a mean-reverting diffusion steered by a CLIP that names degradations."""

from lit_mimdit.systems.daclip.system import DACLIP

__all__ = ["DACLIP"]
