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


def computes_bfloat16(device: torch.device) -> bool:
    """Returns whether a device is a processor with instructions for bfloat16 (AVX-512 or AMX).

    Others convert every number to float32 and back, which is slower than float32 itself.
    """
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    known = [getattr(torch.cpu, name, None) for name in names]
    return device.type == "cpu" and any(has is not None and has() for has in known)
