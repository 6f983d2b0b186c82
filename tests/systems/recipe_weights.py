"""Weights of a full-size golden file, each a function of its official name and shape."""

import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


def weight(name: str, shape: tuple[int, ...], constants: Mapping[str, float]) -> Tensor:
    """A tensor by the rule that the file's metadata state under `recipe`.

    constants: the values of tensors that the official initialisation makes constant.
    """
    stream = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)
    noise = stream.standard_normal(shape).astype(np.float32)
    if name in constants:
        value = constants[name] + 0.05 * noise
    elif name.endswith("A_logs"):
        value = np.broadcast_to(np.log(np.arange(1, shape[1] + 1)), shape)
    elif name.endswith("dt_projs_bias"):
        value = -3 + 0.5 * noise
    elif len(shape) <= 1:
        value = 0.05 * noise
    else:
        value = noise / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.array(value, dtype=np.float32))


def state(shapes: Mapping[str, tuple[int, ...]], constants: Mapping[str, float]) -> dict:
    """Every tensor of a network, given its official names and shapes."""
    return {name: weight(name, tuple(shape), constants) for name, shape in shapes.items()}


def fingerprint(report, network: str, values: Mapping[str, Tensor]) -> None:
    """Compares number and absolute sum of the weights with the file's metadata."""
    total = sum(float(value.double().abs().sum()) for value in values.values())
    report.number(f"fingerprint/{network}/n", sum(v.numel() for v in values.values()), 0)
    report.number(f"fingerprint/{network}/sum_abs", total, 1e-6)
