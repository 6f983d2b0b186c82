"""FoundIR's published checkpoints: the generalist and its two specialists.

`model-2000.pt` is the generalist's. `weather.pth` and `lowlight.pth` hold `params`, with names
behind `restoration_network.`.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lit_mimdit.models.residual_diffusion import ResidualDiffusion
from lit_mimdit.models.restormer_network import Restormer
from lit_mimdit.systems import residual_official, restormer_official
from lit_mimdit.systems.foundir.wave_mamba import LEVELS, WaveMamba
from lit_mimdit.systems.official import choose, count, load_strictly, shape_of, unwrap
from lit_mimdit.systems.recognition import demand, seems_to_be

PUBLISHED: dict[str, Any] = {"delta_end": 1.4e-3, "sampling_timesteps": 4}
PUBLISHED_WEATHER = {
    "inp_channels": 3,
    "out_channels": 3,
    "dim": 48,
    "num_blocks": (4, 6, 6, 8),
    "num_refinement_blocks": 4,
    "heads": (1, 2, 4, 8),
    "ffn_expansion_factor": 2.66,
    "bias": False,
    "LayerNorm_type": "WithBias",
}
PUBLISHED_LOW_LIGHT = {
    "in_chn": 3,
    "wf": 32,
    "n_l_blocks": (1, 2, 4),
    "n_h_blocks": (1, 1, 2),
    "ffn_scale": 2.0,
}
WEATHER = "Restormer or FoundIR's weather specialist"
LOW_LIGHT = "FoundIR's specialist for low light"
MATCHING = "matching_transformation.paconv."
RENAMES = (  # ours, official
    (r"^enter\.", "conv_01."),
    (r"^leave\.", "last."),
    (r"\.merge\.", ".l_conv."),
    (r"\.fusion\.squeeze\.", ".h_fusion.conv_du."),
    (r"\.fusion\.expand\.", ".h_fusion.fcs."),
    (r"\.high_out\.", ".h_out_conv."),
    (r"\.(low|high)\.(\d+)\.", lambda match: f".{match[1][0]}_blk.{match[2]}."),
    (r"(\.l_blk\.\d+)\.norm", r"\1.ln_"),
    (r"\.gain1$", ".skip_scale"),
    (r"\.gain2$", ".skip_scale2"),
    (r"(\.l_blk\.\d+)\.ffn\.project_in\.", r"\1.conv_blk.conv1."),
    (r"(\.l_blk\.\d+)\.ffn\.dwconv\.", r"\1.conv_blk.conv2."),
    (r"(\.l_blk\.\d+)\.ffn\.project_out\.", r"\1.conv_blk.conv3."),
    (r"\.scan\.enter\.", ".self_attention.in_proj."),
    (r"\.scan\.leave\.", ".self_attention.out_proj."),
    (r"\.scan\.norm\.", ".self_attention.out_norm."),
    (r"\.scan\.conv\.", ".self_attention.conv2d."),
    (r"\.scan\.project$", ".self_attention.x_proj_weight"),
    (r"\.scan\.step_weight$", ".self_attention.dt_projs_weight"),
    (r"\.scan\.step_bias$", ".self_attention.dt_projs_bias"),
    (r"\.scan\.log_decay$", ".self_attention.A_logs"),
    (r"\.scan\.skip$", ".self_attention.Ds"),
    (r"\.guide_norm\.", ".LayerNorm."),
    (r"\.match\.gate\.", f".{MATCHING}k2."),
    (r"\.match\.value\.", f".{MATCHING}k3."),
    (r"\.match\.out\.", f".{MATCHING}k4."),
    (r"\.ffn\.before\.", ".ffn.project_in."),
    (r"\.ffn\.after\.", ".ffn.project_out."),
    (r"^down\.(\d)\.", lambda match: f"down_group{int(match[1]) + 1}."),
    (r"^up\.(\d)\.", lambda match: f"up_group{int(match[1]) + 1}."),
    (r"^embed\.(\d)\.", lambda match: f"ps_down{int(match[1]) + 1}.1."),
)


def from_official(
    state_dict: Mapping[str, Any], **overrides: Any
) -> ResidualDiffusion | Restormer | WaveMamba:
    """Builds the generalist or the specialist that a published checkpoint holds, with its weights.

    Args:
        state_dict: the file's content, wrapped or not.
        overrides: arguments of the official constructors, such as `sampling_timesteps=3`.

    Raises:
        ValueError: if the file is of another system or size, or is cut off.
    """
    state = unwrap(state_dict)
    if seems_to_be(state) == residual_official.SIGNATURE:
        return residual_official.build("FoundIR", state, PUBLISHED, overrides)
    if seems_to_be(state) == LOW_LIGHT:
        return _low_light(state, overrides)
    if seems_to_be(state) == WEATHER:
        return _weather(state, overrides)
    demand(state, residual_official.SIGNATURE)
    raise AssertionError("demand lets only the generalist pass")


def holds_specialist(file: Mapping[str, Any]) -> bool:
    """Says whether a published file's content, wrapped or not, is one of the two specialists'."""
    return seems_to_be(unwrap(file)) in (LOW_LIGHT, WEATHER)


def low_light_name(name: str) -> str:
    """Returns the official name of an entry of WaveMamba's state dict, without its prefix."""
    for ours, official in RENAMES:
        name = re.sub(ours, official, name)
    return name


def _weather(state: Mapping[str, Tensor], overrides: Mapping[str, Any]) -> Restormer:
    factor = overrides.get("ffn_expansion_factor", PUBLISHED_WEATHER["ffn_expansion_factor"])
    read = restormer_official.sizes(state, "", WEATHER, factor)
    arguments = choose(WEATHER, PUBLISHED_WEATHER, read, overrides)
    norm_bias = arguments.pop("LayerNorm_type") == "WithBias"
    network = Restormer(norm_bias=norm_bias, **arguments)
    load_strictly(network, state, WEATHER, restormer_official.official_name)
    return network


def _low_light(state: Mapping[str, Tensor], overrides: Mapping[str, Any]) -> WaveMamba:
    width, channels = shape_of(state, "conv_01.weight", LOW_LIGHT)[:2]
    inner = shape_of(state, "down_group1.l_blk.0.self_attention.in_proj.weight", LOW_LIGHT)[0] // 2
    groups = range(1, LEVELS + 1)
    read = {
        "in_chn": channels,
        "wf": width,
        "n_l_blocks": tuple(count(state, f"down_group{group}.l_blk.", ".") for group in groups),
        "n_h_blocks": tuple(count(state, f"down_group{group}.h_blk.", ".") for group in groups),
        "ffn_scale": _scale(inner, width, overrides.get("ffn_scale", 2.0)),
    }
    network = WaveMamba(**choose(LOW_LIGHT, PUBLISHED_LOW_LIGHT, read, overrides))
    load_strictly(network, state, LOW_LIGHT, low_light_name)
    return network


def _scale(inner: int, width: int, expected: float) -> float:
    """Returns `expected` where it gives the inner width, otherwise a scale that does."""
    return expected if int(expected * width) == inner else (inner + 0.5) / width
