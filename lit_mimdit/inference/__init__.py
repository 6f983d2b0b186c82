"""Restores degraded images: sampling, tiling, and the command that does it for files."""
