"""MiM-DiT: a frozen SD3.5 transformer and the branch that conditions it (arXiv 2603.02710).

    x_lq = PatchEmbed(z_lq)                            frozen, with the backbone's positions
    for block i:  c_i = base_i + ZeroLinear_i(MiM_i(x_lq))     computed once an image
                  attention_i([x_i ; c_i], text)       c_i as keys and values only
    velocity = backbone(x_t, t, text | c_1..c_L)

B = batch, C = latent channels, N = h * w tokens, D = backbone width, d = branch width.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lit_mimdit.models.branch_config import BranchConfig
from lit_mimdit.models.condition import Condition, Known, Prompt
from lit_mimdit.models.decisions import Decisions
from lit_mimdit.models.injection import hidden_states, install, project_condition
from lit_mimdit.models.mim import MiM, share_routers
from lit_mimdit.models.module_list import module_list
from lit_mimdit.models.what_if import WhatIf

if TYPE_CHECKING:
    from diffusers import SD3Transformer2DModel


class Branch(nn.Module):
    """The trained part has a MiM for each of `blocks` blocks of width D.

    With fusion zero_gated it has a gate for each of their heads.
    """

    def __init__(
        self, config: BranchConfig, outer_width: int, outer_heads: int, blocks: int
    ) -> None:
        super().__init__()
        self.config = config
        self.mims = module_list(
            MiM(outer_width, config, shifted=index % 2 == 1) for index in range(blocks)
        )
        if config.routers == "shared":
            share_routers(self.mims)
        self.gates = (
            nn.Parameter(torch.zeros(blocks, outer_heads))
            if config.fusion == "zero_gated"
            else None
        )
        self.gradient_checkpointing = False

    def forward(
        self, x_BND: Tensor, grid: tuple[int, int], given: WhatIf | None = None
    ) -> tuple[list[Tensor], Decisions]:
        """Turns LQ tokens (B, N, D) into what each block's condition tokens add to their base.

        `given` are weights in the place of the routers' own.

        Returns:
            a list of (B, N, D), one a block, and the routers' decisions.
        """
        tokens = []
        decisions = []
        previous = None
        for block, mim in enumerate(self.mims):
            if self.gradient_checkpointing and torch.is_grad_enabled():
                c_BND, hidden_BNd, routing = checkpoint(
                    mim, x_BND, grid, previous, use_reentrant=False, preserve_rng_state=False
                )
            else:
                own = None if given is None else given.at(block)
                c_BND, hidden_BNd, routing = mim(x_BND, grid, previous, own)
            previous = hidden_BNd if self.config.chained else None
            tokens.append(c_BND)
            decisions.append(routing)
        return tokens, tuple(decisions)


class ConditionedBackbone(nn.Module):
    """A frozen transformer that a trained `branch` conditions: what MiM-DiT and the systems it is
    compared with share.

    A subclass sets `branch`, and gives `condition` (what is computed once an image), `decide` (what
    the routers say of it) and `forward` (the velocity).

    Args:
        transformer: an SD3 or SD3.5 transformer of diffusers; it is frozen.
        prompt: text conditioning used when none is given (the empty prompt).
    """

    branch: nn.Module
    condition: Callable[..., Known]
    decide: Callable[..., Decisions]
    embeds: Tensor
    pooled: Tensor

    def __init__(self, transformer: "SD3Transformer2DModel", prompt: Prompt) -> None:
        from diffusers import SD3Transformer2DModel

        super().__init__()
        if not isinstance(transformer, SD3Transformer2DModel):
            raise ValueError(
                f"the backbone is a {type(transformer).__name__}: only Stable Diffusion 3 and 3.5's"
                " SD3Transformer2DModel works; give one"
            )
        self.backbone = transformer.requires_grad_(False).eval()
        self.register_buffer("embeds", prompt.embeds, persistent=False)
        self.register_buffer("pooled", prompt.pooled, persistent=False)

    def train(self, mode: bool = True) -> "ConditionedBackbone":
        """The backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def enable_gradient_checkpointing(self) -> None:
        """Recompute activations in the backward pass instead of keeping them."""
        self.backbone.enable_gradient_checkpointing()

    @property
    def prompt(self) -> Prompt:
        return Prompt(self.embeds, self.pooled)

    def grid(self, latent: Tensor) -> tuple[int, int]:
        """(h, w) of the tokens of a latent (B, C, H, W).

        Raises ValueError if it is no latent of this backbone.
        """
        sizes, patch = self.backbone.config, self.backbone.config.patch_size
        if latent.ndim != 4 or latent.shape[1] != sizes.in_channels:
            raise ValueError(
                f"latent has shape {tuple(latent.shape)}: this backbone takes (batch,"
                f" {sizes.in_channels}, height, width)"
            )
        if latent.shape[2] % patch or latent.shape[3] % patch:
            raise ValueError(
                f"latent is {latent.shape[2]} x {latent.shape[3]}: both sides must be multiples of"
                f" the patch size {patch}; pad the image"
            )
        grid = latent.shape[2] // patch, latent.shape[3] // patch
        if max(grid) > sizes.pos_embed_max_size:
            limit = sizes.pos_embed_max_size
            raise ValueError(
                f"latent has {grid[0]} x {grid[1]} tokens, the backbone positions for {limit} x"
                f" {limit}: use smaller tiles"
            )
        return grid

    def _wake(self) -> None:
        """Brings a backbone that rests in main memory to its device.

        accelerate's hook does so when it is called as a whole; some use single layers before.
        """
        hook = getattr(self.backbone, "_hf_hook", None)
        if hook is not None:
            hook.pre_forward(self.backbone)

    def _velocity(
        self, x_t: Tensor, t: Tensor, prompt: Prompt | None, **conditioning: object
    ) -> Tensor:
        """The transformer's output, float32; `conditioning` are arguments of its forward."""
        self.grid(x_t)
        embeds, pooled = (prompt or self.prompt).expand(len(x_t))
        dtype = self.backbone.dtype
        return self.backbone(
            hidden_states=x_t.to(dtype),
            encoder_hidden_states=embeds.to(dtype),
            pooled_projections=pooled.to(dtype),
            timestep=1000.0 * t,
            return_dict=False,
            **conditioning,
        )[0].float()


class MiMDiTNetwork(ConditionedBackbone):
    """The frozen transformer and its MiM branch.

    Args:
        transformer: an SD3 or SD3.5 transformer of diffusers; it is frozen and its attention
            processors are replaced.
        branch: what is trained, or its configuration for a new one.
        prompt: text conditioning used when none is given (the empty prompt).
    """

    branch: Branch

    def __init__(
        self, transformer: "SD3Transformer2DModel", branch: BranchConfig | Branch, prompt: Prompt
    ) -> None:
        super().__init__(transformer, prompt)
        sizes = self.backbone.config
        width, heads = (
            sizes.num_attention_heads * sizes.attention_head_dim,
            sizes.num_attention_heads,
        )
        self.branch = (
            branch if isinstance(branch, Branch) else Branch(branch, width, heads, sizes.num_layers)
        )
        mims, outer = len(self.branch.mims), self.branch.mims[0].zero_linear.out_features
        if (mims, outer) != (sizes.num_layers, width):
            raise ValueError(
                f"the branch was made for {mims} blocks of width {outer}, this backbone has"
                f" {sizes.num_layers} of width {width}: use the backbone it was trained on"
            )
        install(self.backbone, latent_only=self.branch.config.fusion == "concat_latent")

    def enable_gradient_checkpointing(self) -> None:
        super().enable_gradient_checkpointing()
        self.branch.gradient_checkpointing = True

    def _base(self, z_lq: Tensor, x_BND: Tensor, prompt: Prompt) -> list[Tensor | None]:
        kind, batch = self.branch.config.base, len(z_lq)
        if kind == "zero":
            return [None] * len(self.branch.mims)
        if kind == "embed":
            return [F.layer_norm(x_BND, x_BND.shape[-1:])] * len(self.branch.mims)
        # "position": an empty latent at pure noise, once for every prompt; "reference": the LQ
        # latent as if it were clean
        latent, t = (torch.zeros_like(z_lq[:1]), 1000.0) if kind == "position" else (z_lq, 0.0)
        count = max(len(latent), len(prompt.embeds))
        embeds, pooled = prompt.expand(count)
        timestep = torch.full((count,), t, device=latent.device)
        states = hidden_states(
            self.backbone,
            latent.expand(count, -1, -1, -1),
            timestep,
            embeds.to(latent.dtype),
            pooled.to(latent.dtype),
        )
        return [state.expand(batch, -1, -1) for state in states]

    @torch.no_grad()
    def _embed(self, z_lq: Tensor) -> Tensor:
        """LQ latents of the backbone's dtype -> LQ tokens (B, N, D)."""
        embed = self.backbone.pos_embed
        return (
            embed(z_lq)
            if self.branch.config.positions
            else embed.proj(z_lq).flatten(2).transpose(1, 2)
        )

    def _ask(
        self, x_BND: Tensor, grid: tuple[int, int], given: WhatIf | None
    ) -> tuple[list[Tensor], Decisions]:
        """The branch on LQ tokens; when it is not trained, in the backbone's precision, which its
        tokens will have anyway.
        """
        own, dtype = self.branch.mims[0].project.weight.dtype, self.backbone.dtype
        low = not self.training and dtype in (torch.bfloat16, torch.float16)
        with torch.autocast(x_BND.device.type, dtype) if low else nullcontext():
            return self.branch(x_BND.to(own), grid, given)

    def decide(self, z_lq: Tensor, given: WhatIf | None = None) -> Decisions:
        """Returns what the routers decide about the LQ latents (B, C, H, W).

        The decisions are those of `condition`, without its keys and values. `given` are weights in
        the place of the routers' own.
        """
        grid = self.grid(z_lq)
        self._wake()
        return self._ask(self._embed(z_lq.to(self.backbone.dtype)), grid, given)[1]

    def condition(
        self, z_lq: Tensor, prompt: Prompt | None = None, given: WhatIf | None = None
    ) -> Condition:
        """Look at the LQ latents (B, C, H, W) once.

        `given` are weights in the place of the routers' own. The keys and values for every block
        are differentiable in the branch.
        """
        grid, prompt = self.grid(z_lq), prompt or self.prompt
        self._wake()
        dtype = self.backbone.dtype
        z_lq = z_lq.to(dtype)
        x_BND = self._embed(z_lq)
        with torch.no_grad():
            bases = self._base(z_lq, x_BND, prompt)
        tokens, decisions = self._ask(x_BND, grid, given)
        gates = self.branch.gates if self.branch.gates is not None else [None] * len(tokens)
        blocks = tuple(
            project_condition(block.attn, (c_BND if base is None else base + c_BND).to(dtype), gate)
            for block, c_BND, base, gate in zip(
                self.backbone.transformer_blocks, tokens, bases, gates, strict=True
            )
        )
        return Condition(blocks, decisions)

    def forward(
        self, x_t: Tensor, t: Tensor, condition: Condition | None, prompt: Prompt | None = None
    ) -> Tensor:
        """Returns the velocity (B, C, H, W), float32, of latents `x_t` at times `t` (B,) from 0 to
        1 (noise); condition None: the bare backbone.
        """
        return self._velocity(
            x_t,
            t,
            prompt,
            joint_attention_kwargs=(
                {"condition": condition.blocks} if condition is not None else None
            ),
        )
