"""DiT4SR (ICCV 2025): the degraded image as a second stream through SD3.5's transformer."""
