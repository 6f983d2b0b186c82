"""DiT4SR from the transformer file that its authors publish."""

import math
from collections.abc import Mapping
from typing import Any

from diffusers import SD3Transformer2DModel
from torch import Tensor

from lit_mimdit.models.condition import Prompt
from lit_mimdit.systems.dit4sr.network import ControlConfig, DiT4SRNetwork
from lit_mimdit.systems.official import choose, count, load_strictly, shape_of, unwrap
from lit_mimdit.systems.recognition import demand

SYSTEM = "DiT4SR"
CONTROL = ("key", "conv_weight")
# The second attention has no text; these tensors are in the file and act on nothing.
DEAD = (
    *(f".attn2.{name}." for name in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")),
    ".attn2.norm_added_q.",
    ".attn2.norm_added_k.",
)


def dead(name: str) -> bool:
    """Returns whether an official tensor acts on nothing and stays unloaded."""
    return any(part in name for part in DEAD)


def official_name(name: str) -> str:
    """Returns the official name of a tensor of `DiT4SRNetwork`."""
    return name.removeprefix("backbone.").removeprefix("branch.")


def variant(state: Mapping[str, Tensor]) -> str:
    """Returns which key of the LQ stream these weights were trained with.

    The first release never uses its key projections, so training leaves them at zero; the revised
    code trains them.
    """
    keys = [v for k, v in state.items() if k.endswith("to_k_control.weight")]
    return "r1" if any(bool(value.any()) for value in keys) else "original"


def from_official(
    file: Mapping[str, Any], prompt: Prompt | None = None, **overrides: Any
) -> DiT4SRNetwork:
    """Builds DiT4SR from the tensors of an official `transformer` folder.

    Args:
        file: names and tensors, without a prefix or under `transformer.`.
        prompt: text conditioning used when a call gives none.
        overrides: entries of the official config.json, `key` ("r1" or "original") and
            `conv_weight` (1.2). Without `key` the weights decide: see `variant`.

    Raises:
        ValueError: another system's file, a file that is cut off, or a contradicting override; in
            one line.
    """
    state = unwrap(file)
    if all(name.startswith("transformer.") for name in state):
        state = {name.removeprefix("transformer."): value for name, value in state.items()}
    demand(state, SYSTEM)
    width, channels, patch, _ = shape_of(state, "pos_embed.proj.weight", SYSTEM)
    (head,) = shape_of(state, "transformer_blocks.0.attn.norm_q.weight", SYSTEM)
    projected, joint = shape_of(state, "context_embedder.weight", SYSTEM)
    blocks = count(state, "transformer_blocks.", ".")
    read = {
        "patch_size": patch,
        "in_channels": channels,
        "num_layers": blocks,
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": joint,
        "caption_projection_dim": projected,
        "pooled_projection_dim": shape_of(
            state, "time_text_embed.text_embedder.linear_1.weight", SYSTEM
        )[1],
        "out_channels": shape_of(state, "proj_out.weight", SYSTEM)[0] // patch**2,
        "pos_embed_max_size": math.isqrt(shape_of(state, "pos_embed.pos_embed", SYSTEM)[1]),
        "dual_attention_layers": tuple(
            block
            for block in range(blocks)
            if f"transformer_blocks.{block}.attn2.to_q.weight" in state
        ),
        "qk_norm": "rms_norm",
    }
    control = {name: overrides[name] for name in CONTROL if name in overrides}
    if "key" not in control:
        control["key"] = variant(state)
    sizes = choose(
        SYSTEM,
        {"sample_size": 128},
        read,
        {name: value for name, value in overrides.items() if name not in CONTROL},
    )
    network = DiT4SRNetwork(SD3Transformer2DModel(**sizes), ControlConfig(**control), prompt)
    load_strictly(network, state, SYSTEM, official_name, dead)
    return network.eval()
