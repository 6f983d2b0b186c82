"""The parts of a pipeline that diffusers does not have: branch, fidelity network and prompt."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.modeling_utils import ModelMixin

from lit_mimdit.inference.restorer import Restorer
from lit_mimdit.models.branch_config import BranchConfig
from lit_mimdit.models.condition import Prompt
from lit_mimdit.models.fidelity import Fidelity
from lit_mimdit.models.network import Branch, MiMDiTNetwork
from lit_mimdit.models.prompts import PromptConfig
from lit_mimdit.settings import build

# what the index of an exported folder calls the file of these classes: folders outlive files
INDEXED = "lit_mimdit.inference.pipeline"


class BranchModel(ModelMixin, ConfigMixin):
    """The trained branch as a component of a pipeline, with the embeddings of the prompts that it
    knows.

    Args:
        branch: BranchConfig as plain values.
        outer_width, outer_heads, blocks: of the backbone.
        text_tokens, text_width, pooled_width: sizes of a prompt's embeddings.
    """

    @register_to_config
    def __init__(
        self,
        branch: dict[str, Any],
        outer_width: int,
        outer_heads: int,
        blocks: int,
        text_tokens: int,
        text_width: int,
        pooled_width: int,
    ) -> None:
        super().__init__()
        self.inner = Branch(build(BranchConfig, branch), outer_width, outer_heads, blocks)
        for name in ("empty", "told"):
            self.register_buffer(f"{name}_embeds", torch.zeros(1, text_tokens, text_width))
            self.register_buffer(f"{name}_pooled", torch.zeros(1, pooled_width))

    @classmethod
    def of(cls, branch: Branch, empty: Prompt, told: Prompt) -> "BranchModel":
        """Returns a component that holds `branch` itself, and copies of the embeddings."""
        outer = branch.mims[0].zero_linear.out_features
        heads = 1 if branch.gates is None else branch.gates.shape[1]
        sizes = dict(
            zip(
                ("text_tokens", "text_width", "pooled_width"),
                (*empty.embeds.shape[1:], empty.pooled.shape[1]),
                strict=True,
            )
        )
        model = cls(asdict(branch.config), outer, heads, len(branch.mims), **sizes)
        model.inner = branch
        for name, prompt in (("empty", empty), ("told", told)):
            getattr(model, f"{name}_embeds").copy_(prompt.embeds)
            getattr(model, f"{name}_pooled").copy_(prompt.pooled)
        return model

    @property
    def empty(self) -> Prompt:
        return Prompt(self.empty_embeds, self.empty_pooled)

    @property
    def told(self) -> Prompt:
        return Prompt(self.told_embeds, self.told_pooled)


class FidelityModel(ModelMixin, ConfigMixin):
    """The fidelity network as a component of a pipeline.

    Args:
        widths, blocks, gain, cleaner, light, deblurrer: see Fidelity.
    """

    @register_to_config
    def __init__(
        self,
        widths: list[int],
        blocks: int,
        gain: bool = False,
        cleaner: tuple[list[int], int, bool] | None = None,
        light: tuple[int, int] | None = None,
        deblurrer: tuple[list[int], int, bool] | None = None,
    ) -> None:
        super().__init__()
        first, second = (
            None if sizes is None else (tuple(sizes[0]), sizes[1], sizes[2])
            for sizes in (cleaner, deblurrer)
        )
        scene = None if light is None else (light[0], light[1])
        self.inner = Fidelity(tuple(widths), blocks, gain, first, scene, second)

    @classmethod
    def of(cls, network: Fidelity) -> "FidelityModel":
        """Returns a component that holds `network` itself."""
        cleaner, deblurrer = (
            None if first is None else (list(first.widths), first.blocks, first.gain)
            for first in (network.cleaner, network.deblurrer)
        )
        light = None if network.scene_light is None else network.scene_light.sizes
        model = cls(list(network.widths), network.blocks, network.gain, cleaner, light, deblurrer)
        model.inner = network
        return model


@dataclass
class FixedPrompt:
    """Gives all images one prompt, in the place of Prompts.

    Its embeddings are in the folder, so no text encoder is.
    """

    config: PromptConfig
    fixed: Prompt
    captions: dict[str, str] = field(default_factory=dict)

    def of(self, ids: Sequence[str] | None = None) -> Prompt:
        return self.fixed


def parts_of(restorer: Restorer) -> dict[str, Any]:
    """Returns what MiMDiTPipeline is built of, by the names of its arguments.

    Raises ValueError if the restorer's branch is no MiM, or it has a caption an image.
    """
    network = restorer.network
    if not isinstance(network, MiMDiTNetwork):
        raise ValueError("--pipeline: only a MiM branch has a pipeline; export this one without")
    told = restorer.prompts
    if told is not None and told.captions:
        raise ValueError(
            "--pipeline: a pipeline has one prompt for all images; restore with captions by the"
            " restore command"
        )
    branch = BranchModel.of(
        network.branch, network.prompt, network.prompt if told is None else told.of()
    )
    own = restorer.identity
    identity = None if own is None else replace(own, quantize=own.shown_quantize()).plain()
    if identity is not None and Path(identity["name"]).is_absolute():
        identity["name"] = Path(identity["name"]).name  # where it lay is nobody's business
    text, corrector = "" if told is None else told.config.text, restorer.corrector
    behind = (
        (None, 1.0)
        if corrector is None
        else (FidelityModel.of(corrector.network), corrector.weight)
    )
    return {
        "transformer": network.backbone,
        "vae": restorer.vae,
        "scheduler": restorer.scheduler,
        "branch": branch,
        "fidelity": behind[0],
        "fidelity_weight": behind[1],
        "sampling": asdict(restorer.config),
        "backbone": identity,
        "prompt": text,
    }


BranchModel.__module__ = FidelityModel.__module__ = INDEXED
