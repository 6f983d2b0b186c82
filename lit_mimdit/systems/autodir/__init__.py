"""AutoDIR (ECCV 2024): CLIP picks what a latent diffusion removes next; inference only."""
