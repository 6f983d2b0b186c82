"""AirNet: network, objective, the system, and the reading of official checkpoints."""

from lit_mimdit.systems.airnet.system import AirNet

__all__ = ["AirNet"]
