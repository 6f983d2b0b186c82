"""DiT4SR: the LQ latent runs as a second stream of tokens through every block of a frozen SD3.5.

Source: Duan et al., arXiv 2503.23580. The blocks are diffusers'; attention processors and a wrapped
feed-forward add what is trained. Trained tensors carry their published names.

B = batch, C = latent channels, N = h * w tokens a stream, D = width, H = heads, T = text tokens.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from diffusers import SD3Transformer2DModel
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lit_mimdit.models.condition import Prompt
from lit_mimdit.models.decisions import Decisions
from lit_mimdit.models.injection import split_heads
from lit_mimdit.models.module_list import module_list
from lit_mimdit.models.network import ConditionedBackbone
from lit_mimdit.models.quantize import plain_state


@dataclass
class ControlConfig:
    """The parts that are added to the backbone.

    Args:
        key: key of the LQ stream. `r1` has one of its own, as in the paper and the revised code.
            `original` takes the latent's key, normalised twice. The first release has this defect,
            and its weights need it: dit4sr_q and dit4sr_f.
        conv_weight: factor of the convolution: 1 in the paper, 1.2 in all published code.
    """

    key: Literal["r1", "original"] = "r1"
    conv_weight: float = 1.2

    def __post_init__(self) -> None:
        if self.key not in ("r1", "original"):
            raise ValueError(
                f"key is {self.key!r}: weights dit4sr_r1 and new trainings take 'r1', weights "
                "dit4sr_q and dit4sr_f take 'original'"
            )


class LQCondition(NamedTuple):
    """All that is known of the LQ images in advance: their latents (B, C, H, W); no routers."""

    z_lq: Tensor
    routing: Decisions = ()

    def repeated(self, times: int) -> "LQCondition":
        """Returns it for `times` copies of the batch, one after the other."""
        return LQCondition(self.z_lq.repeat(times, 1, 1, 1))


class AttentionControl(nn.Module):
    """The trained linears of one attention: behind the LQ stream's frozen projections.

    Queries, keys and values are zero at the start. The output projection starts as a copy of the
    backbone's; in the official constructor that copy is taken before the weights are loaded.
    """

    def __init__(self, attn: Attention) -> None:
        super().__init__()
        width = cast(nn.Linear, attn.to_out[0]).in_features
        self.to_q_control = nn.Linear(width, width)
        self.to_k_control = nn.Linear(width, width)
        self.to_v_control = nn.Linear(width, width)
        self.to_out_control = nn.Linear(width, width)
        for layer in (self.to_q_control, self.to_k_control, self.to_v_control):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)
        if not attn.to_out[0].weight.is_meta:
            self.to_out_control.load_state_dict(plain_state(attn.to_out[0]))


def apply(layer: nn.Linear | nn.Conv2d, x: Tensor) -> Tensor:
    """Runs a trained layer in its own precision and returns the result in that of `x`."""
    return layer(x.to(layer.weight.dtype)).to(x.dtype)


# q_l = Q'(W_q l), k_l = K'(W_k l), v_l = V'(W_v l)
# [o_x ; o_l ; o_c] = softmax([q ; q_l ; q_c] [k ; k_l ; k_c]^T / sqrt(D/H)) [v ; v_l ; v_c]
# x' = W_o o_x,  l' = O'(o_l + l)                     (section 3.3, figure 3)
class TwoStreamAttention:
    """Attention of SD3 over [latent ; LQ ; text], or over both image streams without text.

    `hidden_states` hold the normalised latent and LQ tokens behind one another, (B, 2 N, D).
    """

    def __init__(self, control: AttentionControl, config: ControlConfig) -> None:
        self.control, self.config = control, config

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        control, count = self.control, hidden_states.shape[1] // 2
        lq = hidden_states[:, count:]
        query, key, value = (
            layer(hidden_states).split(count, dim=1) for layer in (attn.to_q, attn.to_k, attn.to_v)
        )
        q, k, v = (split_heads(attn, own[0]) for own in (query, key, value))
        q, k = attn.norm_q(q), attn.norm_k(k)
        q_lq = attn.norm_q(split_heads(attn, apply(control.to_q_control, query[1])))
        v_lq = split_heads(attn, apply(control.to_v_control, value[1]))
        if self.config.key == "r1":
            k_lq = attn.norm_k(split_heads(attn, apply(control.to_k_control, key[1])))
        else:
            k_lq = attn.norm_k(k)
        parts = [[q, q_lq], [k, k_lq], [v, v_lq]]
        if encoder_hidden_states is not None:
            layers = (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
            text = [split_heads(attn, layer(encoder_hidden_states)) for layer in layers]
            text[0], text[1] = attn.norm_added_q(text[0]), attn.norm_added_k(text[1])
            parts = [[*images, words] for images, words in zip(parts, text, strict=True)]
        query, key, value = (torch.cat(part, dim=1).transpose(1, 2) for part in parts)
        out = F.scaled_dot_product_attention(query, key, value)
        out = out.transpose(1, 2).flatten(2)

        latent = attn.to_out[1](attn.to_out[0](out[:, :count]))
        degraded = apply(control.to_out_control, out[:, count : 2 * count] + lq)
        images = torch.cat([latent, degraded], dim=1)
        if encoder_hidden_states is None:
            return images
        words = out[:, 2 * count :]
        return images, words if attn.context_pre_only else attn.to_add_out(words)


# u = gelu(W_1 x), w = gelu(W_1 l);  x' = W_2 (u + a dwconv3x3(w)),  l' = W_2 w
class TwoStreamFeedForward(nn.Module):
    """The MLP of a block on both streams; a depth-wise convolution carries the LQ stream over.

    `grid` (h, w) arranges the tokens for the convolution. While it is None, the MLP is the
    backbone's own.
    """

    def __init__(self, own: FeedForward, conv: nn.Conv2d, weight: float) -> None:
        super().__init__()
        self.net = own.net
        self.trained, self.weight = [conv], weight  # in a list: a part of the branch, not of this
        self.grid: tuple[int, int] | None = None

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.net[0](x)
        if self.grid is not None:
            latent, lq = hidden.chunk(2, dim=1)
            image = lq.transpose(1, 2).unflatten(2, self.grid)
            carried = apply(self.trained[0], image).flatten(2).transpose(1, 2)
            hidden = torch.cat([latent + self.weight * carried, lq], dim=1)
        for layer in self.net[1:]:
            hidden = layer(hidden)
        return hidden


class BlockControl(nn.Module):
    """The trained parts of one block of diffusers' transformer."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.attn = AttentionControl(block.attn)
        if block.attn2 is not None:
            self.attn2 = AttentionControl(block.attn2)
        width = block.ff.net[2].in_features
        conv = nn.Conv2d(width, width, 3, padding=1, groups=width)
        for parameter in conv.parameters():
            nn.init.zeros_(parameter)
        self.ff = nn.ModuleDict({"control_conv": conv})


class ControlBranch(nn.Module):
    """All that is trained: 350.9 M parameters on SD3.5-medium."""

    def __init__(self, config: ControlConfig, transformer: SD3Transformer2DModel) -> None:
        super().__init__()
        self.config = config
        self.transformer_blocks = module_list(
            BlockControl(block) for block in transformer.transformer_blocks
        )

    def install(self, transformer: SD3Transformer2DModel) -> None:
        """Puts the branch into the attentions and MLPs of `transformer`."""
        blocks: Any = transformer.transformer_blocks  # their parts are of other types afterwards
        for own, block in zip(self.transformer_blocks, blocks, strict=True):
            block.attn.set_processor(TwoStreamAttention(own.attn, self.config))
            if block.attn2 is not None:
                block.attn2.set_processor(TwoStreamAttention(own.attn2, self.config))
            conv = cast(nn.Conv2d, own.ff["control_conv"])
            block.ff = TwoStreamFeedForward(block.ff, conv, self.config.conv_weight)


class DiT4SRNetwork(ConditionedBackbone):
    """The frozen transformer with an LQ stream through every block.

    Args:
        transformer: an SD3.5 transformer of diffusers with normalised queries and keys; it is
            frozen, and its attention processors and MLPs are replaced.
        config: the branch.
        prompt: text conditioning used when none is given; without it, each call needs one.
    """

    branch: ControlBranch

    def __init__(
        self,
        transformer: SD3Transformer2DModel,
        config: ControlConfig | None = None,
        prompt: Prompt | None = None,
    ) -> None:
        super().__init__(transformer, prompt or Prompt(torch.empty(0, 0, 0), torch.empty(0, 0)))
        if transformer.config.qk_norm != "rms_norm":
            raise ValueError(
                f"the backbone has qk_norm {transformer.config.qk_norm}: DiT4SR normalises queries "
                "and keys of each head; use Stable Diffusion 3.5"
            )
        self.branch = ControlBranch(config or ControlConfig(), transformer)
        self.branch.install(transformer)

    def decide(self, z_lq: Tensor) -> Decisions:
        """Returns no decisions, as there are no routers."""
        return ()

    def condition(self, z_lq: Tensor, prompt: Prompt | None = None) -> LQCondition:
        """Keeps LQ latents (B, C, H, W); the stream depends on the time, so nothing is computed.

        Raises ValueError if they do not fit the backbone.
        """
        self.grid(z_lq)
        return LQCondition(z_lq)

    def _block(
        self, block: Any, images: Tensor, text: Tensor, temb: Tensor, grid: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        block.ff.grid = grid
        try:
            return block(hidden_states=images, encoder_hidden_states=text, temb=temb)
        finally:
            block.ff.grid = None

    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        condition: LQCondition | Tensor,
        prompt: Prompt | None = None,
    ) -> Tensor:
        """Returns the velocity (B, C, H, W), float32.

        Args:
            x_t: noisy latents (B, C, H, W), of any shape the backbone's positions cover.
            t: times (B,) from 0 to 1 (noise).
            condition: of `condition`, or the LQ latents themselves.
            prompt: text conditioning; the one given at construction if None.

        Raises:
            ValueError: no prompt at all, or latents that do not fit.
        """
        net, grid = self.backbone, self.grid(x_t)
        self._wake()
        z_lq = condition.z_lq if isinstance(condition, LQCondition) else condition
        if z_lq.shape != x_t.shape:
            raise ValueError(
                f"LQ latents are {tuple(z_lq.shape)}, noisy ones {tuple(x_t.shape)}: DiT4SR needs "
                "both of one shape"
            )
        prompt = prompt or self.prompt
        if not len(prompt.embeds):
            raise ValueError(
                "DiT4SR was built without a prompt and got none: give the embeddings of a caption"
            )
        embeds, pooled = prompt.expand(len(x_t))
        dtype = net.dtype
        images = torch.cat([net.pos_embed(x_t.to(dtype)), net.pos_embed(z_lq.to(dtype))], dim=1)
        temb = net.time_text_embed(1000.0 * t, pooled.to(dtype))
        text = net.context_embedder(embeds.to(dtype))
        for block in net.transformer_blocks:
            arguments = block, images, text, temb, grid
            if torch.is_grad_enabled() and net.gradient_checkpointing:
                text, images = checkpoint(self._block, *arguments, use_reentrant=False)
            else:
                text, images = self._block(*arguments)
        latent = net.proj_out(net.norm_out(images[:, : images.shape[1] // 2], temb))
        patch = net.config.patch_size
        planes = latent.unflatten(1, grid).unflatten(-1, (patch, patch, -1))
        return torch.einsum("bhwpqc->bchpwq", planes).flatten(4).flatten(2, 3).float()
