"""Files of trained systems for tests."""

from dataclasses import asdict

from torch import nn

from lit_mimdit.inference.sampler import SamplingConfig
from lit_mimdit.inference.system_file import SystemFile
from lit_mimdit.models.backbone import Identity


def mim_file(
    branch: nn.Module, sampling: SamplingConfig, backbone: Identity, prompt: str = ""
) -> SystemFile:
    """What an export of this MiM branch would hold."""
    arguments = {"branch": asdict(branch.config)}
    parts = branch.state_dict(), backbone, asdict(sampling), prompt
    return SystemFile("lit_mimdit.systems.mimdit.MiMDiT", arguments, *parts)
