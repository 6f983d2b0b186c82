"""MiM-DiT: a MoE-in-MoE branch on a frozen transformer (arXiv 2603.02710)."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor

from lit_mimdit.inference.sampler import SamplingConfig
from lit_mimdit.models.balance import load_balance_loss, z_loss
from lit_mimdit.models.branch_config import BranchConfig
from lit_mimdit.models.condition import Prompt
from lit_mimdit.models.decisions import Decisions
from lit_mimdit.models.flow import FlowConfig
from lit_mimdit.models.mim import MiM
from lit_mimdit.models.network import MiMDiTNetwork
from lit_mimdit.models.prompts import PromptConfig
from lit_mimdit.systems.base import METRICS, Losses
from lit_mimdit.systems.latent import LATENT_VERSIONS, LatentSystem
from lit_mimdit.systems.optim import OptimizerConfig


@dataclass
class BalanceConfig:
    """Weights of the routers' auxiliary losses; the paper has none.

    Args:
        load: weight of the load-balance loss of the Intra routers.
        z: weight of the z-loss of all routers.
    """

    load: float = 0.0
    z: float = 0.0

    def __post_init__(self) -> None:
        if min(self.load, self.z) < 0:
            raise ValueError(
                f"balance.load is {self.load} and balance.z {self.z}: both must be 0 or more"
            )


def balance_losses(routing: Decisions) -> tuple[Tensor, Tensor]:
    """Returns means over all routers: load balance of the Intra routers, z-loss of Inter and
    Intra.
    """
    intra = [router for mim in routing for router in mim.intra]
    every = intra + [mim.inter for mim in routing]
    load = torch.stack([load_balance_loss(router) for router in intra]).mean()
    return load, torch.stack([z_loss(router) for router in every]).mean()


def collects(config: BranchConfig, gpu: bool, stage: int) -> bool:
    """Returns whether each image's sub-experts' weights are collected and all images computed at
    once.
    """
    return gpu and stage < 3 and config.inter.router == "dense" and config.intra.experts > 1


def as_computed(config: BranchConfig) -> BranchConfig:
    """Returns the branch with as many sub-experts as an image chooses, all of them computed.

    Which sub-experts are chosen is not known without values. Nor is which group an Inter router of
    one group takes: all groups are computed, and the step is an upper bound. Where weights are
    collected, all of this is known.
    """
    config, intra = replace(config, inter=replace(config.inter, router="dense")), config.intra
    if intra.router == "dense":
        return config
    chosen = replace(intra, experts=intra.top_k, top_k=intra.top_k, router="dense")
    return replace(config, intra=chosen)


class MiMDiT(LatentSystem):
    """MiM-DiT for `fit`, `validate`, `test` and `predict`.

    Args:
        backbone: `nano`, a diffusers folder of SD3.5, or a hub id.
        branch: settings of the branch.
        sampling: how validation, test and predict restore. It is also the exported file's default.
        optimizer: settings of the optimizer and its schedule. Only training needs them.
        flow: settings of the times and of the loss.
        balance: weights of the routers' auxiliary losses.
        prompt: what the backbone is told about the images; the empty prompt unless given.
        fidelity: network that corrects what validation, test and predict restore: a file,
            `package`, or `null`, as in the paper.
        fidelity_weight: strength of that network's correction, from 0 to 1.
        backbone_dtype: precision the frozen weights are kept in.
        backbone_quantize: keep the frozen weights, and the large text encoder, in fewer bits:
            `nf4`, `int8`, `fp8` or `gguf:FILE`. `null` keeps them whole. They are computed with in
            backbone_dtype.
        init: exported system or checkpoint to start from instead of fresh weights.
        gradient_checkpointing: recompute the backbone's activations in the backward pass, with less
            memory and one more forward pass.
        compile: compile the blocks of backbone and branch at the first step of training.
        attention: kernel of the attention in training: `auto` leaves the choice to PyTorch. `math`
            is faster on CPUs in bfloat16 at few tokens (benchmarks/attention.py).
        metrics: scores of `test` by key; `python -m lit_mimdit metrics` lists them. Validation
            takes those without a network.
        versions: what validation and test score of each image. Beside `restored` there are
            `degraded`, and `vae_round_trip`, the best a latent could give. A study of many runs
            need not score again what no training changes.
    """

    TRAINING_ONLY: ClassVar[frozenset[str]] = LatentSystem.TRAINING_ONLY | {"balance"}

    def __init__(
        self,
        backbone: str,
        branch: BranchConfig,
        sampling: SamplingConfig,
        optimizer: OptimizerConfig | None = None,
        flow: FlowConfig | None = None,
        balance: BalanceConfig | None = None,
        prompt: PromptConfig | None = None,
        fidelity: str | None = None,
        fidelity_weight: float = 1.0,
        backbone_dtype: Literal["float32", "bfloat16"] = "float32",
        backbone_quantize: str | None = None,
        init: str | None = None,
        gradient_checkpointing: bool = False,
        compile: bool = False,
        attention: Literal["auto", "math"] = "auto",
        metrics: list[str] = METRICS,
        versions: list[str] = LATENT_VERSIONS,
    ) -> None:
        super().__init__(
            backbone=backbone,
            sampling=sampling,
            flow=flow,
            optimizer=optimizer,
            prompt=prompt,
            fidelity=fidelity,
            fidelity_weight=fidelity_weight,
            backbone_dtype=backbone_dtype,
            backbone_quantize=backbone_quantize,
            init=init,
            gradient_checkpointing=gradient_checkpointing,
            compile=compile,
            attention=attention,
            metrics=metrics,
            versions=versions,
        )
        self.branch_config, self.balance = branch, balance or BalanceConfig()

    def build_network(self, transformer: SD3Transformer2DModel, prompt: Prompt) -> MiMDiTNetwork:
        return MiMDiTNetwork(transformer, self.branch_config, prompt)

    def losses(self, batch: dict[str, Any]) -> Losses:
        """Returns the rectified-flow loss, with the routers' auxiliary losses where they have a
        weight.
        """
        losses = super().losses(batch)
        if self.balance.load or self.balance.z:
            load, z = balance_losses(losses.routing)
            losses.terms |= {"load_balance": load, "z": z}
            losses.total = losses.total + self.balance.load * load + self.balance.z * z
        return losses

    @classmethod
    def estimated(cls, arguments: dict[str, Any], gpu: bool, stage: int) -> dict[str, Any]:
        branch = arguments["branch"]
        return arguments | {
            "branch": branch if collects(branch, gpu, stage) else as_computed(branch)
        }

    def prepare_estimate(
        self, arguments: dict[str, Any], batch: dict[str, Any], gpu: bool, stage: int
    ) -> None:
        super().prepare_estimate(arguments, batch, gpu, stage)
        # every branch's: few_step.FewStep has three
        for mim in (module for module in self.modules() if isinstance(module, MiM)):
            mim.as_on_gpu = collects(arguments["branch"], gpu, stage)
