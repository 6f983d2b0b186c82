"""ControlNet for SD3 (Zhang et al., arXiv 2302.05543; diffusers' SD3ControlNetModel) on the same
frozen backbone.

    residual_0..residual_{n-1} = ControlNet(x_t, t, text, z_lq)        n trained copies of the
    backbone's first blocks, at every step velocity = backbone(x_t, t, text), residual_floor(i n /
    L) added after block i of L, counted from 0; none after the last

With n above L / 2 diffusers' rule adds the last layers nowhere. There floor(i n / (L - 1)) is
taken, by which every layer has a block.

B = batch, C = latent channels, N = tokens, D = width, n = layers, L = blocks of the backbone.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from torch import Tensor, nn

from lit_mimdit.inference.sampler import SamplingConfig
from lit_mimdit.models.condition import Prompt
from lit_mimdit.models.decisions import Decisions
from lit_mimdit.models.flow import FlowConfig
from lit_mimdit.models.network import ConditionedBackbone
from lit_mimdit.models.prompts import PromptConfig
from lit_mimdit.models.quantize import plain_state
from lit_mimdit.systems.base import METRICS
from lit_mimdit.systems.latent import LATENT_VERSIONS, LatentSystem
from lit_mimdit.systems.optim import OptimizerConfig

if TYPE_CHECKING:
    from diffusers import SD3Transformer2DModel


@dataclass
class ControlNetConfig:
    """The trained branch: a ControlNet. Its width is the backbone's, into whose blocks its outputs
    are added.

    Args:
        layers: blocks copied from the backbone's start. The published ones for SD3.5-medium have 23
            and 12 of its 24.
    """

    layers: int

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise ValueError(f"branch.layers is {self.layers}: a ControlNet needs at least 1")


class ControlCondition(NamedTuple):
    """Holds what a ControlNet can know of the LQ images in advance: their latents (B, C, H, W).

    It has no routers.
    """

    z_lq: Tensor
    routing: Decisions = ()

    def repeated(self, times: int) -> "ControlCondition":
        """Returns it for `times` copies of the batch, one after the other."""
        return ControlCondition(self.z_lq.repeat(times, 1, 1, 1))


class ControlBranch(nn.Module):
    """diffusers' ControlNet, its weights copied from the transformer, its input and output
    projections 0 at the start.
    """

    def __init__(self, config: ControlNetConfig, transformer: "SD3Transformer2DModel") -> None:
        from diffusers import SD3ControlNetModel

        super().__init__()
        sizes = transformer.config
        if config.layers >= sizes.num_layers:
            limit = (
                sizes.num_layers - 1
            )  # the last block of SD3 has no text output and cannot be copied
            raise ValueError(
                f"branch.layers is {config.layers}: this backbone of {sizes.num_layers} blocks"
                f" gives 1 to {limit}"
            )
        self.config = config
        # as SD3ControlNetModel.from_transformer, which writes into the transformer's own
        # configuration
        changes = {"num_layers": config.layers, "extra_conditioning_channels": 0}
        net = SD3ControlNetModel.from_config(
            {k: v for k, v in sizes.items() if not k.startswith("_")} | changes
        )
        for part in ("pos_embed", "time_text_embed", "context_embedder"):
            getattr(net, part).load_state_dict(plain_state(getattr(transformer, part)))
        for own, theirs in zip(
            net.transformer_blocks, transformer.transformer_blocks, strict=False
        ):
            own.load_state_dict(plain_state(theirs))
        # what the last block says of the text goes nowhere: without a gradient its weights would
        # stop training on several processes
        net.transformer_blocks[-1].attn.to_add_out = nn.Identity()
        net.transformer_blocks[-1].ff_context = nn.Identity()
        net.pos_embed.register_buffer(
            "pos_embed", net.pos_embed.pos_embed, persistent=False
        )  # fixed; not part of what is trained
        self.net = net

    def forward(self, x_t: Tensor, t: Tensor, z_lq: Tensor, prompt: Prompt) -> list[Tensor]:
        """Returns residuals (B, N, D), one a layer, for latents x_t at times t (B,) and the LQ
        latents.
        """
        dtype = self.net.dtype
        return self.net(
            hidden_states=x_t.to(dtype),
            controlnet_cond=z_lq.to(dtype),
            encoder_hidden_states=prompt.embeds.to(dtype),
            pooled_projections=prompt.pooled.to(dtype),
            timestep=1000.0 * t,
            return_dict=False,
        )[0]


class ControlNetDiT(ConditionedBackbone):
    """The frozen transformer and a ControlNet, in MiMDiT's place.

    Args:
        transformer: an SD3 or SD3.5 transformer of diffusers; it is frozen.
        config: the branch.
        prompt: text conditioning used when none is given (the empty prompt).
    """

    branch: ControlBranch

    def __init__(
        self, transformer: "SD3Transformer2DModel", config: ControlNetConfig, prompt: Prompt
    ) -> None:
        super().__init__(transformer, prompt)
        self.branch = ControlBranch(config, transformer)

    def enable_gradient_checkpointing(self) -> None:
        super().enable_gradient_checkpointing()
        self.branch.net.enable_gradient_checkpointing()

    def decide(self, z_lq: Tensor) -> Decisions:
        """Returns no decisions, as there are no routers."""
        return ()

    def condition(self, z_lq: Tensor, prompt: Prompt | None = None) -> ControlCondition:
        """Keeps the LQ latents (B, C, H, W), which a ControlNet looks at together with x_t.

        Raises ValueError if they do not fit.
        """
        self.grid(z_lq)
        return ControlCondition(z_lq)

    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        condition: ControlCondition | None,
        prompt: Prompt | None = None,
    ) -> Tensor:
        """Returns the velocity (B, C, H, W), float32, of latents `x_t` at times `t` (B,) from 0 to
        1 (noise); condition None: the bare backbone.
        """
        if condition is None:
            return self._velocity(x_t, t, prompt)
        residuals = self.branch(x_t, t, condition.z_lq, (prompt or self.prompt).expand(len(x_t)))
        residuals = [residual.to(self.backbone.dtype) for residual in residuals]
        blocks, layers = len(self.backbone.transformer_blocks), len(residuals)
        if 2 * layers > blocks:  # given one for every block, diffusers leaves the order as it is
            residuals = [
                residuals[min(block * layers // (blocks - 1), layers - 1)]
                for block in range(blocks)
            ]
        return self._velocity(x_t, t, prompt, block_controlnet_hidden_states=residuals)


class ControlNet(LatentSystem):
    """A ControlNet on the frozen backbone for `fit`, `validate`, `test` and `predict`.

    It has no routers, so callbacks that show routing have nothing to show.

    Args:
        backbone: `nano`, a diffusers folder of SD3.5, or a hub id.
        branch: settings of the branch.
        sampling: how validation, test and predict restore. It is also the exported file's default.
        optimizer: settings of the optimizer and its schedule. Only training needs them.
        flow: settings of the times and of the loss.
        prompt: what the backbone is told about the images; the empty prompt unless given.
        fidelity: network that corrects what validation, test and predict restore: a file,
            `package`, or `null`, as in the paper.
        fidelity_weight: strength of that network's correction, from 0 to 1.
        backbone_dtype: precision the frozen weights are kept in.
        backbone_quantize: keep the frozen weights, and the large text encoder, in fewer bits:
            `nf4`, `int8`, `fp8` or `gguf:FILE`. `null` keeps them whole. They are computed with in
            backbone_dtype.
        init: exported system or checkpoint to start from instead of the backbone's copies.
        gradient_checkpointing: recompute activations in the backward pass.
        compile: compile the blocks of backbone and branch at the first step of training.
        attention: kernel of the attention in training: `auto` leaves the choice to PyTorch. `math`
            is faster on CPUs in bfloat16 at few tokens (benchmarks/attention.py).
        metrics: scores of `test` by key.
        versions: what validation and test score of each image.
    """

    def __init__(
        self,
        backbone: str,
        branch: ControlNetConfig,
        sampling: SamplingConfig,
        optimizer: OptimizerConfig | None = None,
        flow: FlowConfig | None = None,
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
        self.branch_config = branch

    def build_network(self, transformer: "SD3Transformer2DModel", prompt: Prompt) -> ControlNetDiT:
        return ControlNetDiT(transformer, self.branch_config, prompt)
