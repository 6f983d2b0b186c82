"""PromptIR's official checkpoints."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lit_mimdit.models.restormer import expansion_of
from lit_mimdit.systems.official import choose, count, load_strictly, shape_of, unwrap
from lit_mimdit.systems.promptir.network import PromptIRNetwork
from lit_mimdit.systems.recognition import demand

SYSTEM = "PromptIR"
# The official constructor's arguments, and below them sizes that it has hard-coded.
PUBLISHED: dict[str, Any] = {
    "inp_channels": 3,
    "out_channels": 3,
    "dim": 48,
    "num_blocks": (4, 6, 6, 8),
    "num_refinement_blocks": 4,
    "heads": (1, 2, 4, 8),
    "ffn_expansion_factor": 2.66,
    "bias": False,
    "LayerNorm_type": "WithBias",
    "decoder": True,
    "prompt_dims": (64, 128, 320),
    "prompt_len": 5,
    "prompt_sizes": (64, 32, 16),
}
_DEAD_LAYERS = ("chnl_reduce", "reduce_noise_channel_")
DEAD = tuple(f"{layer}{level}.weight" for layer in _DEAD_LAYERS for level in (1, 2, 3))
_RULES = (
    (r"^patch_embed\.", "patch_embed.proj."),
    (r"\.(norm[12])\.", r".\1.body."),
    (r"^(encoder|decoder)([123])\.", r"\1_level\2."),
    (r"^fusion([123])\.block\.", r"noise_level\1."),
    (r"^fusion([123])\.reduce\.", r"reduce_noise_level\1."),
    (r"^skip([23])\.", r"reduce_chan_level\1."),
    (r"^prompt([123])\.linear\.", r"prompt\1.linear_layer."),
    (r"^prompt([123])\.conv\.", r"prompt\1.conv3x3."),
    (r"^prompt([123])\.maps$", r"prompt\1.prompt_param"),
    (r"^down1\.", "down1_2.body."),
    (r"^down2\.", "down2_3.body."),
    (r"^down3\.", "down3_4.body."),
    (r"^up3\.", "up4_3.body."),
    (r"^up2\.", "up3_2.body."),
    (r"^up1\.", "up2_1.body."),
)


def official_name(ours: str) -> str:
    """Returns the official name of a parameter or module of ours."""
    for pattern, replacement in _RULES:
        ours = re.sub(pattern, replacement, ours)
    return ours


def arguments(state: Mapping[str, Tensor], **overrides: Any) -> dict[str, Any]:
    """Returns the official constructor's arguments for these tensors.

    state: unwrapped official tensors. overrides: arguments that shapes do not tell.
    Raises ValueError if the file is another system's, or an override contradicts a shape.
    """
    demand(state, SYSTEM)
    dim, channels = shape_of(state, "patch_embed.proj.weight", SYSTEM)[:2]
    levels = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
    prompts = [shape_of(state, f"prompt{level}.prompt_param", SYSTEM) for level in (1, 2, 3)]
    first = [f"{level}.0" for level in levels]
    hidden = {
        dim * 2**index: shape_of(state, f"{block}.ffn.project_out.weight", SYSTEM)[1]
        for index, block in enumerate(first)
    }
    with_bias = "encoder_level1.0.norm1.body.bias" in state
    given = overrides.get("ffn_expansion_factor", PUBLISHED["ffn_expansion_factor"])
    read = {
        "inp_channels": channels,
        "out_channels": shape_of(state, "output.weight", SYSTEM)[0],
        "dim": dim,
        "num_blocks": tuple(count(state, f"{level}.", ".") for level in levels),
        "num_refinement_blocks": count(state, "refinement.", "."),
        "heads": tuple(shape_of(state, f"{block}.attn.temperature", SYSTEM)[0] for block in first),
        "ffn_expansion_factor": expansion_of(hidden, given),
        "bias": "encoder_level1.0.attn.qkv.bias" in state,
        "LayerNorm_type": "WithBias" if with_bias else "BiasFree",
        "decoder": True,
        "prompt_dims": tuple(shape[2] for shape in prompts),
        "prompt_len": prompts[0][1],
        "prompt_sizes": tuple(shape[3] for shape in prompts),
    }
    return choose(SYSTEM, PUBLISHED, read, overrides)


def from_official(state_dict: Mapping[str, Any], **overrides: Any) -> PromptIRNetwork:
    """Builds PromptIR from an official checkpoint.

    state_dict: the content of the file: a Lightning checkpoint, or its state dict with or without
        the prefix `net.`.
    overrides: arguments of the official constructor.

    Raises ValueError if the file is another system's or incomplete; missing and unexpected names
    are listed.
    """
    state = unwrap(state_dict)
    sizes = arguments(state, **overrides)
    if (sizes.pop("inp_channels"), sizes.pop("out_channels")) != (3, 3):
        raise ValueError(
            "PromptIR: this checkpoint is not for images of three colours; give a published file"
        )
    if sizes.pop("bias"):
        raise ValueError(
            "PromptIR: the convolutions of this checkpoint have biases, and only the published"
            " form without them is supported; give a published file"
        )
    sizes.pop("decoder")
    network = PromptIRNetwork(norm_bias=sizes.pop("LayerNorm_type") == "WithBias", **sizes)
    # The official prompts carry a leading axis of length 1.
    state = {
        name: value[0] if name.endswith(".prompt_param") and value.ndim == 5 else value
        for name, value in state.items()
    }
    load_strictly(network, state, SYSTEM, official_name, DEAD.__contains__)
    return network


def prompts_untrained(network: PromptIRNetwork) -> bool:
    """Says whether the prompts still look like their start, uniform in [0, 1).

    The released `model.ckpt` comes from code that gave the prompts no gradient. Their values are
    then within [0, 1), with mean 0.5 and standard deviation 0.289, each within 5 standard errors.
    """
    for prompt in (network.prompt1, network.prompt2, network.prompt3):
        values = prompt.maps.detach().flatten().double()
        error = values.numel() ** -0.5
        if values.min() < 0 or values.max() >= 1:
            return False
        # the standard error of the deviation of uniform numbers is 0.129 / sqrt(n)
        if abs(values.mean() - 0.5) > 5 * 0.2887 * error:
            return False
        if abs(values.std() - 12**-0.5) > 5 * 0.13 * error:
            return False
    return True
