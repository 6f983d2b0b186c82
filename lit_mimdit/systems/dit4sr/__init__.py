"""DiT4SR, ICCV 2025: the degraded image as a second stream through SD3.5's transformer."""

from lit_mimdit.systems.dit4sr.system import DiT4SR

__all__ = ["DiT4SR"]
