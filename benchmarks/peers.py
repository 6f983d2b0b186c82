"""Ways to condition one frozen SD3 transformer on an LQ latent, for the benchmarks: what each does
once an image and at every step.

Only the cost of the last two is meant: their weights are random and nothing was trained with them.
The LQ stream is DiT4SR as published, of lit_mimdit/systems/dit4sr.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import SD3Transformer2DModel
from diffusers.models.attention_processor import JointAttnProcessor2_0
from diffusers.models.embeddings import PatchEmbed
from torch import Tensor, nn

from lit_mimdit.models.branch_config import BranchConfig
from lit_mimdit.models.condition import Prompt
from lit_mimdit.models.injection import ConditionedJointAttention, split_heads
from lit_mimdit.models.network import MiMDiTNetwork
from lit_mimdit.systems.controlnet import ControlNetConfig, ControlNetDiT
from lit_mimdit.systems.dit4sr.network import DiT4SRNetwork

TEXT_TOKENS = 333  # 77 of CLIP and 256 of T5
# random numbers that fill all weights over and over; a prime, so that no two rows are alike
BLOCK = 1048573


@dataclass(frozen=True)
class Size:
    """A backbone and the branch for it.

    transformer: arguments of the model. tiles, side: what 512 x 512 pixels are to it.
    """

    transformer: dict[str, Any]
    branch: BranchConfig
    dtype: torch.dtype
    text: int
    tiles: int
    side: int


def _sizes(blocks: int, heads: int, head: int, dual: int, **changes: Any) -> dict[str, Any]:
    sizes = {
        "sample_size": 128,
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 16,
        "num_layers": blocks,
        "attention_head_dim": head,
        "num_attention_heads": heads,
        "joint_attention_dim": 4096,
        "caption_projection_dim": heads * head,
        "pooled_projection_dim": 2048,
        "pos_embed_max_size": 384,
        "dual_attention_layers": tuple(range(dual)),
        "qk_norm": "rms_norm",
    }
    return sizes | changes


NANO = _sizes(
    6,
    6,
    32,
    3,
    joint_attention_dim=64,
    pooled_projection_dim=64,
    pos_embed_max_size=32,
    sample_size=64,
)
SIZES = {
    # nano as it is shipped; its positions reach 256 pixels, so 512 x 512 are four tiles
    "nano": Size(
        NANO,
        BranchConfig(width=80, heads=4, window=4, chained=True, base="reference"),
        torch.float32,
        4,
        4,
        64,
    ),
    "mid": Size(
        _sizes(12, 12, 64, 6), BranchConfig(width=192, heads=3), torch.bfloat16, TEXT_TOKENS, 1, 64
    ),
    # SD3.5-medium's transformer/config.json and the branch of experiments/foundir_sd35_medium.yaml
    "medium": Size(
        _sizes(24, 24, 64, 13), BranchConfig(width=384, heads=6), torch.bfloat16, TEXT_TOKENS, 1, 64
    ),
}


def cut(size: Size, blocks: int | None) -> Size:
    """`size` with fewer blocks, as many of them with dual attention in proportion."""
    if blocks is None:
        return size
    sizes = size.transformer
    dual = round(len(sizes["dual_attention_layers"]) * blocks / sizes["num_layers"])
    return replace(
        size,
        transformer=sizes | {"num_layers": blocks, "dual_attention_layers": tuple(range(dual))},
    )


@torch.no_grad()
def fill(model: nn.Module, device: torch.device) -> nn.Module:
    """Random values of variance 1 / fan-in in place of the meta device's nothing; norms 1, biases
    0; the positions' own table.
    """
    model.to_empty(device=device)
    block = torch.randn(BLOCK, generator=torch.Generator().manual_seed(0)).to(device)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
            continue
        values = (block * parameter[0].numel() ** -0.5).to(parameter.dtype)
        for part in parameter.view(-1).split(BLOCK):
            part.copy_(values[: len(part)])
    sizes = model.config
    side, limit = sizes.sample_size, sizes.pos_embed_max_size
    table = PatchEmbed(
        side,
        side,
        sizes.patch_size,
        in_channels=1,
        embed_dim=model.inner_dim,
        pos_embed_max_size=limit,
    )
    model.pos_embed.pos_embed.copy_(table.pos_embed)
    return model


def random_transformer(size: Size, device: torch.device) -> SD3Transformer2DModel:
    """Built without values and filled, so that it is in memory once."""
    with torch.device("meta"):
        model = SD3Transformer2DModel(**size.transformer).to(size.dtype)
    return fill(model, device).requires_grad_(False).eval()


def random_prompt(size: Size) -> Prompt:
    generator = torch.Generator().manual_seed(1)
    embeds = torch.randn(1, size.text, size.transformer["joint_attention_dim"], generator=generator)
    return Prompt(
        embeds.to(size.dtype),
        torch.randn(1, size.transformer["pooled_projection_dim"], generator=generator).to(
            size.dtype
        ),
    )


@dataclass
class System:
    """One way. prepare: LQ latent -> what is kept of it over the steps. step: (x_t, t, kept) ->
    velocity. trained: its parameters.

    setup: what must be done to the shared backbone before it prepares (False) and steps (True), and
        is no part of its cost.
    """

    prepare: Callable[[Tensor], Any]
    step: Callable[[Tensor, Tensor, Any], Tensor]
    trained: nn.Module | None = None
    setup: Callable[[bool], None] = lambda steps: None


class LiteralConcat:
    """Attention of [latent ; condition ; text] as the paper writes it.

    Condition tokens are queries too; their outputs are dropped.
    """

    def __init__(self, block: int) -> None:
        self.block = block

    def __call__(
        self, attn, hidden_states, encoder_hidden_states, attention_mask=None, tokens=None
    ):
        latent = hidden_states.shape[1]
        x = torch.cat([hidden_states, tokens[self.block]], dim=1)
        query, key, value = (
            split_heads(attn, layer(x)) for layer in (attn.to_q, attn.to_k, attn.to_v)
        )
        text = [
            split_heads(attn, layer(encoder_hidden_states))
            for layer in (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
        ]
        query, key = attn.norm_q(query), attn.norm_k(key)
        text[0], text[1] = attn.norm_added_q(text[0]), attn.norm_added_k(text[1])
        query, key, value = (
            torch.cat([own, other], dim=1).transpose(1, 2)
            for own, other in zip((query, key, value), text, strict=True)
        )
        out = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        context = out[:, x.shape[1] :]
        return attn.to_out[1](attn.to_out[0](out[:, :latent])), (
            context if attn.context_pre_only else attn.to_add_out(context)
        )


class Alone(JointAttnProcessor2_0):
    """The second attention of dual blocks, told to expect the tokens and leave them alone."""

    def __call__(
        self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, tokens=None
    ):
        return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask)


def no_preparation(z_lq: Tensor) -> Tensor:
    return z_lq


def shared_controlnet(
    transformer: SD3Transformer2DModel, layers: int, prompt: Prompt
) -> ControlNetDiT:
    """A ControlNet whose blocks are the backbone's own tensors, as at its start.

    It has the cost of one without its memory.
    """
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # values that are copied to the meta device get lost, which is meant here
        network = ControlNetDiT(transformer, ControlNetConfig(layers), prompt)
    net = network.branch.net.to(transformer.dtype)
    own = net.state_dict()
    net.load_state_dict(
        {k: v for k, v in transformer.state_dict().items() if k in own}, strict=False, assign=True
    )
    net.pos_embed.pos_embed = transformer.pos_embed.pos_embed
    for layer in (*net.controlnet_blocks, net.pos_embed_input):
        layer.to_empty(device=transformer.device).to(transformer.dtype)
        for parameter in layer.parameters():
            nn.init.normal_(parameter, std=0.01)
    return network


def systems(size: Size, device: torch.device) -> dict[str, System]:
    """All ways on one backbone, the bare backbone first."""
    transformer, prompt = random_transformer(size, device), random_prompt(size).to(device)
    torch.manual_seed(0)
    mim = MiMDiTNetwork(transformer, size.branch, prompt).to(device).eval()
    for block in mim.branch.mims:
        nn.init.normal_(block.zero_linear.weight, std=0.02)
    processors = dict(transformer.attn_processors)
    latent_only = {
        k: ConditionedJointAttention(latent_only=True) if ".attn." in k else processor
        for k, processor in processors.items()
    }
    literal = {
        k: LiteralConcat(int(k.split(".")[1])) if ".attn." in k else Alone() for k in processors
    }

    def tokens(z_lq: Tensor) -> list[Tensor]:
        x = mim._embed(z_lq.to(size.dtype))
        bases, made = mim._base(z_lq.to(size.dtype), x, prompt), mim._ask(x, mim.grid(z_lq))[0]
        return [
            (c if base is None else base + c).to(size.dtype)
            for base, c in zip(bases, made, strict=True)
        ]

    def attend(other: dict[str, Any]) -> Callable[[bool], None]:
        """Other attention processors for the steps, in place of the last system's."""
        return lambda steps: transformer.set_attn_processor(dict(other if steps else processors))

    def concat(x: Tensor, t: Tensor, kept: list[Tensor]) -> Tensor:
        return mim._velocity(x, t, prompt, joint_attention_kwargs={"tokens": kept})

    usual = attend(processors)
    found = {
        "bare backbone": System(no_preparation, lambda x, t, kept: mim(x, t, None), None, usual),
        "MiM-DiT": System(mim.condition, mim, mim.branch, usual),
        "MiM-DiT, concat_latent": System(mim.condition, mim, mim.branch, attend(latent_only)),
        "MiM-DiT, no cache": System(
            no_preparation, lambda x, t, kept: mim(x, t, mim.condition(kept)), mim.branch, usual
        ),
        "literal concat": System(tokens, concat, mim.branch, attend(literal)),
    }
    blocks = len(transformer.transformer_blocks)
    for layers in (blocks // 2, blocks - 1):
        network = shared_controlnet(transformer, layers, prompt)
        found[f"ControlNet, {layers} layers"] = System(
            network.condition, network, network.branch, usual
        )
    # It wraps the shared backbone's MLPs, which without an LQ stream compute what they did before.
    stream = DiT4SRNetwork(transformer, prompt=prompt)
    stream.branch.to(device, size.dtype)
    streams = dict(transformer.attn_processors)
    transformer.set_attn_processor(dict(processors))
    found["LQ stream"] = System(no_preparation, stream, stream.branch, attend(streams))
    return found
