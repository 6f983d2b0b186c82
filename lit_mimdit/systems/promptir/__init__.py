"""PromptIR: network, objective, the system, and the reading of official checkpoints."""

from lit_mimdit.systems.promptir.system import PromptIR

__all__ = ["PromptIR"]
