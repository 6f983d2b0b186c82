"""DiffUIR: residual diffusion for several degradations, in three steps."""
