"""The condition enters each joint attention of the backbone as keys and values, through diffusers'
attention processors.

The paper concatenates condition tokens c to the latent tokens x before a block's attention and
drops their outputs after it:

    split(attention([x ; c ; text]))

The outputs of c are thrown away and c is not modulated by the timestep, so its queries are never
needed, and its keys and values depend on the LQ image alone. `project_condition` computes them once
an image; all sampling steps reuse them, exactly. With `latent_only` the text tokens' queries do not
read c: less attention, and no longer the paper's.

B = batch, N = condition tokens, D = backbone width, H = backbone heads.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from diffusers import SD3Transformer2DModel
    from diffusers.models.attention_processor import Attention


class BlockCondition(NamedTuple):
    """What one block attends to.

    Key and value are (B, H, N, D/H); fusion zero_gated has the gate (H,) before its tanh.
    """

    key: Tensor
    value: Tensor
    gate: Tensor | None = None


def split_heads(attn: "Attention", x: Tensor) -> Tensor:
    """(B, N, D) -> (B, H, N, D/H)."""
    return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)


def project_condition(
    attn: "Attention", c_BND: Tensor, gate: Tensor | None = None
) -> BlockCondition:
    """Returns keys and values of condition tokens by the block's own frozen projections, (B, N, D)
    -> BlockCondition.
    """
    key, value = split_heads(attn, attn.to_k(c_BND)), split_heads(attn, attn.to_v(c_BND))
    return BlockCondition(attn.norm_k(key) if attn.norm_k is not None else key, value, gate)


class ConditionedJointAttention:
    """diffusers' joint attention of SD3 with additional keys and values.

    The transformer's `joint_attention_kwargs` carry `condition`, a BlockCondition for every block
    (or None), and `capture`, a list that receives this block's normalised latent tokens (B, N, D).

    Args:
        block: number of this block.
        latent_only: only the latent tokens' queries read the additional keys, not the text's.
    """

    def __init__(self, block: int, latent_only: bool = False) -> None:
        self.block, self.latent_only = block, latent_only

    def __call__(
        self,
        attn: "Attention",
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        condition: tuple[BlockCondition, ...] | None = None,
        capture: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        if capture is not None:
            capture.append(hidden_states)
        tokens = hidden_states.shape[1]
        query, key, value = (
            split_heads(attn, layer(hidden_states)) for layer in (attn.to_q, attn.to_k, attn.to_v)
        )
        text = [
            split_heads(attn, layer(encoder_hidden_states))
            for layer in (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
        ]
        if attn.norm_q is not None:
            query, key = attn.norm_q(query), attn.norm_k(key)
        if attn.norm_added_q is not None:
            text[0], text[1] = attn.norm_added_q(text[0]), attn.norm_added_k(text[1])

        extra = condition[self.block] if condition is not None else None
        joint = [
            torch.cat([own, other], dim=2)
            for own, other in zip((query, key, value), text, strict=True)
        ]
        if extra is None or extra.gate is not None:
            out = F.scaled_dot_product_attention(*joint)
            if extra is not None:
                gate = extra.gate.tanh().to(out.dtype)[:, None, None]
                out = out + gate * F.scaled_dot_product_attention(joint[0], extra.key, extra.value)
        else:
            both = [
                torch.cat([own, add, other], dim=2)
                for own, add, other in zip((key, value), extra[:2], text[1:], strict=True)
            ]
            if self.latent_only:
                parts = (
                    F.scaled_dot_product_attention(query, *both),
                    F.scaled_dot_product_attention(text[0], *joint[1:]),
                )
                out = torch.cat(parts, dim=2)
            else:
                out = F.scaled_dot_product_attention(joint[0], *both)

        out = out.transpose(1, 2).flatten(2)
        latent, context = out[:, :tokens], out[:, tokens:]
        if not attn.context_pre_only:
            context = attn.to_add_out(context)
        return attn.to_out[1](attn.to_out[0](latent)), context


class UnconditionedAttention:
    """The second, image-only attention of SD3.5's dual blocks.

    It is diffusers' own, told to expect the condition and leave it alone.
    """

    def __init__(self) -> None:
        from diffusers.models.attention_processor import JointAttnProcessor2_0

        self.own = JointAttnProcessor2_0()

    def __call__(
        self,
        attn,
        hidden_states,
        encoder_hidden_states=None,
        attention_mask=None,
        condition=None,
        capture=None,
    ):
        return self.own(attn, hidden_states, encoder_hidden_states, attention_mask)


def install(transformer: "SD3Transformer2DModel", latent_only: bool = False) -> None:
    """Put the processors into every block of `transformer`.

    Without a condition it computes what it did before.
    """
    for index, block in enumerate(transformer.transformer_blocks):
        block.attn.set_processor(ConditionedJointAttention(index, latent_only))
        if block.attn2 is not None:
            block.attn2.set_processor(UnconditionedAttention())


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
    captured: list[Tensor] = []
    x_BND = transformer.pos_embed(latent).contiguous()
    temb = transformer.time_text_embed(timestep, pooled)
    text = transformer.context_embedder(embeds)
    *before, last = transformer.transformer_blocks
    for block in before:
        text, x_BND = block(
            hidden_states=x_BND,
            encoder_hidden_states=text,
            temb=temb,
            joint_attention_kwargs={"capture": captured},
        )
    return [*captured, last.norm1(x_BND, emb=temb)[0]]
