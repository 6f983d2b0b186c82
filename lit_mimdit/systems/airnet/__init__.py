"""AirNet: network, objective, and the reading of official checkpoints."""
