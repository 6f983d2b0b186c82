"""Files of trained systems for tests."""

from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from lit_mimdit.inference.sampler import SamplingConfig
from lit_mimdit.inference.system_class import state_of
from lit_mimdit.inference.system_file import SystemFile, save_system
from lit_mimdit.models.backbone import Identity


def mim_file(
    branch: nn.Module, sampling: SamplingConfig, backbone: Identity, prompt: str = ""
) -> SystemFile:
    """What an export of this MiM branch would hold."""
    arguments = {"branch": asdict(branch.config)}
    parts = branch.state_dict(), backbone, asdict(sampling), prompt
    return SystemFile("lit_mimdit.systems.mimdit.MiMDiT", arguments, *parts)


def write_regression(path: Path, seed: int = 0, **arguments) -> bytes:
    """Write a small U-Net that restores, in a file; returns the file's content."""
    from lit_mimdit.systems.regression import Regression

    sizes = {"widths": [4], "blocks": 1}
    torch.manual_seed(seed)
    system = Regression(**sizes)
    for parameter in system.parameters():  # the last layer of a fresh one is zero
        torch.nn.init.normal_(parameter, std=0.1)
    tensors = state_of(system.trained)
    kind = "lit_mimdit.systems.regression.Regression"
    save_system(path, SystemFile(kind, sizes | arguments, tensors))
    return path.read_bytes()
