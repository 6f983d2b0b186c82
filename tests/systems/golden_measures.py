"""What comparisons with golden files measure: intermediate results, gradients, learning rates."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from golden_file import Golden
from golden_report import Report, largest
from torch import Tensor, nn


def stated_error(golden: Golden, report: Report, path: str, name: str, exact: str) -> float:
    """Returns the float32 error of an output that is stored in both precisions.

    path: of the number in the JSON that states it, which is compared.
    """
    error = largest(golden.tensors[name], golden.tensors[exact])
    report.number(path, error, 1e-6)
    return error


def gradient_norms(loss: Tensor, parameters: Mapping[str, Tensor]) -> dict[str, float | None]:
    """The L2 norm of the gradient of each parameter; None where none reaches it."""
    gradients = torch.autograd.grad(
        loss, list(parameters.values()), allow_unused=True, retain_graph=True
    )
    return {
        name: None if gradient is None else float(gradient.norm())
        for name, gradient in zip(parameters, gradients)
    }


def tied(network: nn.Module, name_of: Callable[[str], str]) -> list[list[str]]:
    """Groups of official names that are one parameter. name_of: the official name of ours."""
    groups: dict[int, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name_of(name))
    return [names for names in groups.values() if len(names) > 1]


@contextmanager
def first_calls(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Records what each module returns at its first call; of several outputs, the last."""
    seen: dict[str, Tensor] = {}

    def keep(name: str, output: Any) -> None:
        outputs = output if isinstance(output, tuple | list) else [output]
        held = [one for one in outputs if isinstance(one, Tensor)]
        if held:
            seen.setdefault(name, held[-1])

    handles = [
        module.register_forward_hook(lambda _, __, output, name=name: keep(name, output))
        for name, module in modules.items()
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def rates(
    golden: Golden,
    report: Report,
    name: str,
    rate: Callable[[int], float],
    tolerance: float = 1e-12,
) -> None:
    """Compares the learning rate of every epoch with schedules.json."""
    line = f"schedules.json/{name}"
    if golden.schedules is None:
        report.skip(line, "schedules.json lies neither beside the file nor in ../shared/systems")
        return
    if name not in golden.schedules:
        report.fail(line, "not in the file")
        return
    theirs = torch.tensor(golden.schedules[name], dtype=torch.float64)
    ours = torch.tensor([rate(epoch) for epoch in range(len(theirs))], dtype=torch.float64)
    report.value(line, ours, theirs, tolerance)
