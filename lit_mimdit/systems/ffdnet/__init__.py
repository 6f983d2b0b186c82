"""FFDNet: a denoiser that is told the noise level."""

from lit_mimdit.systems.ffdnet.system import FFDNet

__all__ = ["FFDNet"]
