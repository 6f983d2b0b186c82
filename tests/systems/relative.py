"""Comparisons of losses and gradient norms that are stored in float32."""

import torch

LOSS, GRADIENT = 1e-6, 1e-4  # relative; float32 carries no more of numbers near 0


def scalar(golden, report, name, ours):
    """Compares a loss with a stored tensor of no axes."""
    report.tensor(name, ours, LOSS * abs(golden.tensors[name].item()))


def gradients(golden, report, name, norms, order):
    """Compares norms by official name with a stored row, each relative to its own size.

    order: the official names in the order of the row. A stored 0 demands 0.
    """
    assert sorted(order) == sorted(norms), set(order) ^ set(norms)
    ours = torch.tensor([norms[parameter] for parameter in order], dtype=torch.float64)
    stored = golden.double(name)
    report.tensor(name, ours, 1e-6 * max(1.0, float(stored.max())))
    scale = torch.where(stored == 0, 1e-12, stored)
    report.value(f"{name} (relative)", ours / scale, stored / scale, GRADIENT)
