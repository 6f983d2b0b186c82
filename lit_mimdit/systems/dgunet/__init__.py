"""DGUNet and DGUNet+: network, objective, and the reading of official checkpoints."""
