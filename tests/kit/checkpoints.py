"""What two checkpoints are compared by."""

from pathlib import Path

import torch


def read(path: str | Path) -> dict:
    return torch.load(path, map_location="cpu", weights_only=True)


def tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """Parameters, average if there is one, and moments of a checkpoint, by name."""
    checkpoint = read(path)
    named = {f"parameter {name}": tensor for name, tensor in checkpoint["state_dict"].items()}
    for name, state in checkpoint["callbacks"].items():
        if name.startswith("EMA"):
            named |= {f"average {key}": tensor for key, tensor in state["average"].items()}
    for index, state in checkpoint["optimizer_states"][0]["state"].items():
        named |= {f"moment {index} {key}": tensor for key, tensor in state.items()}
    return named
