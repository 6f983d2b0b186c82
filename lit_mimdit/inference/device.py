"""Chooses the device that computes."""

import torch


def choose_device(name: str) -> torch.device:
    """Returns the device of this name; auto takes a GPU if there is one.

    Raises ValueError if it cannot be used.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device is {name!r}: it cannot be used here ({str(error).splitlines()[0]}); try cpu"
        ) from error
