"""Official names and sizes of Restormer's network, plain and in DiffIR's form."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lit_mimdit.systems.official import count, shape_of

RENAMES = (  # ours, official
    (r"^patch_embed\.", "patch_embed.proj."),
    (r"^(down\d_\d|up\d_\d)\.0\.", r"\1.body.0."),
    (r"\.(norm[12])\.", r".\1.body."),
    (r"\.modulate1\.project\.", ".attn.kernel.0."),
    (r"\.modulate2\.project\.", ".ffn.kernel.0."),
)
LEVELS = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")


def official_name(name: str) -> str:
    """Returns the official name of an entry of our network's state dict."""
    for ours, official in RENAMES:
        name = re.sub(ours, official, name)
    return name


def sizes(state: Mapping[str, Tensor], prefix: str, system: str, factor: float) -> dict[str, Any]:
    """Returns the network's arguments, by official name, that an official state dict tells.

    Args:
        state: unwrapped tensors.
        prefix: what stands before the network's names.
        system: for messages.
        factor: the expected ffn_expansion_factor. It is returned where it gives the widths of the
            file; otherwise another number that does, for widths are cut to integers.

    Raises:
        ValueError: if a tensor is missing from which sizes are read.
    """

    def shape(name: str) -> tuple[int, ...]:
        return shape_of(state, prefix + name, system)

    dim, inp_channels = shape("patch_embed.proj.weight")[:2]
    hidden = [shape(f"{level}.0.ffn.project_in.weight")[0] // 2 for level in LEVELS]
    widths = [dim, 2 * dim, 4 * dim, 8 * dim]
    if [int(factor * width) for width in widths] != hidden:
        factor = (hidden[-1] + 0.5) / widths[-1]  # the middle of what the widest level allows
    return {
        "inp_channels": inp_channels,
        "out_channels": shape("output.weight")[0],
        "dim": dim,
        "num_blocks": tuple(count(state, f"{prefix}{level}.", ".") for level in LEVELS),
        "num_refinement_blocks": count(state, f"{prefix}refinement.", "."),
        "heads": tuple(shape(f"{level}.0.attn.temperature")[0] for level in LEVELS),
        "ffn_expansion_factor": factor,
        "bias": f"{prefix}latent.0.attn.qkv.bias" in state,
        "LayerNorm_type": (
            "WithBias" if f"{prefix}latent.0.norm1.body.bias" in state else "BiasFree"
        ),
    }
