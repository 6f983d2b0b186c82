"""Every network that can be trained, exported and restored with, by the kind of its branch."""

from typing import TYPE_CHECKING

from lit_mimdit.baselines.controlnet import ControlNetConfig, ControlNetDiT
from lit_mimdit.models.mim import BranchConfig
from lit_mimdit.models.network import ConditionedBackbone, MiMDiT, Prompt

if TYPE_CHECKING:
    from diffusers import SD3Transformer2DModel

AnyBranch = BranchConfig | ControlNetConfig
NETWORKS = {"mim": (BranchConfig, MiMDiT), "controlnet": (ControlNetConfig, ControlNetDiT)}


def kind_of(config: AnyBranch) -> str:
    """The name of a branch's kind, as checkpoints hold it."""
    return next(
        kind for kind, (configuration, _) in NETWORKS.items() if type(config) is configuration
    )


def build_network(
    transformer: "SD3Transformer2DModel", config: AnyBranch, prompt: Prompt
) -> ConditionedBackbone:
    """The network of this branch on a backbone."""
    return NETWORKS[kind_of(config)][1](transformer, config, prompt)
