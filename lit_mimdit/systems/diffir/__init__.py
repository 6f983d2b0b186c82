"""DiffIR: a transformer steered by a vector that a short diffusion finds."""
