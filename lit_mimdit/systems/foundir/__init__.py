"""FoundIR: residual diffusion trained on a million pairs, with two specialists behind it."""
