"""AutoDIR, ECCV 2024: CLIP picks what a latent diffusion removes next; inference only."""

from lit_mimdit.systems.autodir.system import AutoDIR

__all__ = ["AutoDIR"]
