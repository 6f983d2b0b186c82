"""DA-CLIP (ICLR 2024): a mean-reverting diffusion steered by a CLIP that names degradations."""
