"""The condition enters each joint attention of the backbone as keys and values, through diffusers'
attention processors.

The paper concatenates condition tokens c to the latent tokens x before a block's attention and
drops their outputs after it:

    split(attention([x ; c ; text]))

The outputs of c are thrown away and c is not modulated by the timestep. So its queries are never
needed, and its keys and values depend on the LQ image alone. `project_condition` computes them once
an image; all sampling steps reuse them, exactly. With `latent_only` the text tokens' queries do not
read c: less attention, and no longer the paper's.

All attention goes through diffusers' dispatcher. So `transformer.set_attention_backend("flash")`
chooses the kernel, as in diffusers' own pipelines.

B = batch, N = condition tokens, D = backbone width, H = backbone heads.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

# torch.compiler.disable for code that must not wait for the compiler to load
from torch._compile import _disable_dynamo

if TYPE_CHECKING:
    from diffusers import SD3Transformer2DModel
    from diffusers.models.attention_processor import Attention


class BlockCondition(NamedTuple):
    """The condition that one block attends to.

    Key and value are (B, N, H, D/H); fusion zero_gated has the gate (H,) before its tanh.
    """

    key: Tensor
    value: Tensor
    gate: Tensor | None = None


def split_heads(attn: "Attention", x: Tensor) -> Tensor:
    """(B, N, D) -> (B, N, H, D/H)."""
    return x.unflatten(-1, (attn.heads, -1))


def project_condition(
    attn: "Attention", c_BND: Tensor, gate: Tensor | None = None
) -> BlockCondition:
    """Returns keys and values of condition tokens by the block's own frozen projections, (B, N, D)
    -> BlockCondition.
    """
    key, value = split_heads(attn, attn.to_k(c_BND)), split_heads(attn, attn.to_v(c_BND))
    return BlockCondition(attn.norm_k(key) if attn.norm_k is not None else key, value, gate)


class DispatchedAttention:
    """A processor whose attention is that of the backend which `set_attention_backend` chose.

    diffusers writes the name of the backend into `_attention_backend`; None is its default.
    """

    def __init__(self) -> None:
        from diffusers.models.attention_dispatch import dispatch_attention_fn

        self._attention_backend: Any = None
        self._dispatch = dispatch_attention_fn

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Returns softmax(q k^T / sqrt(d)) v of tensors (B, tokens, H, d)."""
        return self._dispatch(query, key, value, backend=self._attention_backend)

    @staticmethod
    def project(attn: "Attention", hidden_states: Tensor) -> list[Tensor]:
        """Returns the latent tokens' query, key and value, each (B, N, H, D/H)."""
        query, key, value = (
            split_heads(attn, layer(hidden_states)) for layer in (attn.to_q, attn.to_k, attn.to_v)
        )
        if attn.norm_q is not None:
            query, key = attn.norm_q(query), attn.norm_k(key)
        return [query, key, value]


class ConditionedJointAttention(DispatchedAttention):
    """diffusers' joint attention of SD3 with additional keys and values.

    `condition` is the block's own BlockCondition, or None.

    Args:
        latent_only: only the latent tokens' queries read the additional keys, not the text's.
    """

    def __init__(self, latent_only: bool = False) -> None:
        super().__init__()
        self.latent_only = latent_only

    def __call__(
        self,
        attn: "Attention",
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        condition: BlockCondition | None = None,
    ) -> tuple[Tensor, Tensor]:
        tokens = hidden_states.shape[1]
        own = self.project(attn, hidden_states)
        text = [
            split_heads(attn, layer(encoder_hidden_states))
            for layer in (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
        ]
        if attn.norm_added_q is not None:
            text[0], text[1] = attn.norm_added_q(text[0]), attn.norm_added_k(text[1])
        joint = [torch.cat(pair, dim=1) for pair in zip(own, text, strict=True)]
        if condition is None or condition.gate is not None:
            out = self.attend(*joint)
            if condition is not None and condition.gate is not None:
                gate = condition.gate.tanh().to(out.dtype)[:, None]
                out = out + gate * self.attend(joint[0], condition.key, condition.value)
        else:
            both = [
                torch.cat(parts, dim=1)
                for parts in zip(own[1:], condition[:2], text[1:], strict=True)
            ]
            if self.latent_only:
                out = torch.cat(
                    [self.attend(own[0], *both), self.attend(text[0], *joint[1:])], dim=1
                )
            else:
                out = self.attend(joint[0], *both)

        out = out.flatten(2)
        # in one piece: a linear layer multiplies a slice image by image, with a copy of its weights
        latent, context = (part.contiguous() for part in (out[:, :tokens], out[:, tokens:]))
        if not attn.context_pre_only:
            context = attn.to_add_out(context)
        return attn.to_out[1](attn.to_out[0](latent)), context


class UnconditionedAttention(DispatchedAttention):
    """The second, image-only attention of SD3.5's dual blocks.

    It is told to expect the condition and leaves it alone.
    """

    def __call__(
        self,
        attn: "Attention",
        hidden_states: Tensor,
        encoder_hidden_states: None = None,
        attention_mask: Tensor | None = None,
        condition: BlockCondition | None = None,
    ) -> Tensor:
        out = self.attend(*self.project(attn, hidden_states)).flatten(2)
        return attn.to_out[1](attn.to_out[0](out))


class OwnCondition:
    """Hands a block its own part of the condition, before each call.

    The transformer gives all blocks the same `joint_attention_kwargs`. A block that knew its number
    would be another block for the compiler, so that nothing compiled for one could serve the next.

    Args:
        index: number of the block.
    """

    def __init__(self, index: int) -> None:
        self.index = index

    @_disable_dynamo
    def __call__(self, block: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict]:
        # a checkpointed block is called with positions: tokens, text, time, joint_attention_kwargs
        args, given = args[:3], kwargs.get("joint_attention_kwargs", *args[3:])
        if given and given.get("condition") is not None:
            given = {**given, "condition": given["condition"][self.index]}
        return args, {**kwargs, "joint_attention_kwargs": given}


def install(transformer: "SD3Transformer2DModel", latent_only: bool = False) -> None:
    """Put the processors into every block of `transformer`.

    The transformer's `joint_attention_kwargs` then take `condition`, a BlockCondition for every
    block. Without one it computes what it did before.
    """
    blocks: Any = transformer.transformer_blocks
    for index, block in enumerate(blocks):
        present = block.attn.processor
        if isinstance(present, ConditionedJointAttention):  # it keeps its attention backend
            present.latent_only = latent_only
            continue
        block.attn.set_processor(ConditionedJointAttention(latent_only))
        if block.attn2 is not None:
            block.attn2.set_processor(UnconditionedAttention())
        block.register_forward_pre_hook(OwnCondition(index), with_kwargs=True)


@torch.no_grad()
def hidden_states(
    transformer: "SD3Transformer2DModel",
    latent: Tensor,
    timestep: Tensor,
    embeds: Tensor,
    pooled: Tensor,
) -> list[Tensor]:
    """Returns the normalised latent tokens (B, N, D) that each block's joint attention receives for
    `latent` (B, C, H, W).

    These are the transformer's own steps, up to the last block's first normalisation: what follows
    it is not asked for.
    """
    x_BND = transformer.pos_embed(latent).contiguous()
    temb = transformer.time_text_embed(timestep, pooled)
    text = transformer.context_embedder(embeds)
    blocks: Any = transformer.transformer_blocks
    *before, last = blocks
    received = []
    for block in before:
        received.append(block.norm1(x_BND, emb=temb)[0])
        text, x_BND = block(hidden_states=x_BND, encoder_hidden_states=text, temb=temb)
    return [*received, last.norm1(x_BND, emb=temb)[0]]
