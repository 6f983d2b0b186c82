"""DGUNet and DGUNet+: network, objective, the system, and the reading of official checkpoints."""

from lit_mimdit.systems.dgunet.system import DGUNet

__all__ = ["DGUNet"]
