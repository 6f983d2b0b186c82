"""From degraded to restored images: sampling, tiling, and the command that does it for files."""
