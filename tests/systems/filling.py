"""The rule by which golden files fill weights: every value depends on seed, name and shape only.

The normal numbers are those of numpy's RandomState, which numpy has frozen, seeded with the CRC32
of "seed:name".
"""

import math
import zlib

import numpy as np
import torch
from torch import Tensor, nn

NORMS_OF_DGUNET = {f"r{stage}" for stage in range(7)}


def stream(seed: int, name: str) -> np.random.RandomState:
    """The random numbers that belong to a name."""
    return np.random.RandomState(zlib.crc32(f"{seed}:{name}".encode()))


def fill(seed: int, name: str, shape, gain: float = 1.0) -> Tensor:
    """The value of the entry `name` of a state dict."""
    shape, last = tuple(shape), name.rpartition(".")[2]
    if last in ("num_batches_tracked", "queue_ptr"):
        return torch.zeros(shape, dtype=torch.int64)
    n = np.asarray(stream(seed, name).standard_normal(shape))
    fan_in = math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 1.0
    if last in ("running_mean", "bias") and len(shape) < 2:
        value = 0.1 * n
    elif last == "running_var":
        value = np.exp(0.2 * n)
    elif last == "queue":
        value = n / np.sqrt((n**2).sum(0, keepdims=True))
    elif last == "temperature":
        value = 1 + 0.2 * n
    elif last in NORMS_OF_DGUNET:
        value = 0.5 + 0.1 * n
    elif last in ("prompt_param", "task_query"):
        value = n
    elif ".conv_du." in name:  # gates that differ
        value = 4 * n / fan_in
    elif len(shape) > 1:
        value = gain * n / fan_in
    elif math.prod(shape) == 1 and last == "weight":  # PReLU
        value = 0.25 + 0.05 * n
    else:
        value = 1 + 0.2 * n
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def fill_network(network: nn.Module, seed: int, name_of=str, gain: float = 1.0) -> nn.Module:
    """Fills every entry of a network's state dict; `name_of` gives the name in the rule."""
    with torch.no_grad():
        for name, value in network.state_dict().items():
            value.copy_(fill(seed, name_of(name), value.shape, gain))
    return network


def picture(seed: int, name: str, shape, low: float = 0.0, high: float = 1.0) -> Tensor:
    """A random picture, uniform in [low, high)."""
    value = low + (high - low) * stream(seed, name).random_sample(tuple(shape))
    return torch.from_numpy(value.astype(np.float32))
