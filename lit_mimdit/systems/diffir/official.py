"""DiffIR's published checkpoints of both stages, and what their schedules must hold.

A file is BasicSR's: `params` and `params_ema` around the tensors, names perhaps behind `module.`.
The second stage's file holds encoder and denoiser twice, and 12 tables of the schedule.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lit_mimdit.systems import restormer_official
from lit_mimdit.systems.diffir.network import FirstStage, SecondStage
from lit_mimdit.systems.diffir.sampler import Schedule, schedule_of
from lit_mimdit.systems.official import choose, count, load_strictly, shape_of, unwrap
from lit_mimdit.systems.recognition import demand, seems_to_be

FIRST, SECOND = "DiffIR, stage 1", "DiffIR, stage 2"
PUBLISHED = {
    "n_encoder_res": 5,
    "inp_channels": 3,
    "out_channels": 3,
    "dim": 48,
    "num_blocks": (3, 5, 6, 6),
    "num_refinement_blocks": 4,
    "heads": (1, 2, 4, 8),
    "ffn_expansion_factor": 2,
    "bias": False,
    "LayerNorm_type": "WithBias",
}
PUBLISHED_SECOND = {
    **PUBLISHED,
    "n_denoise_res": 1,
    "linear_start": 0.1,
    "linear_end": 0.99,
    "timesteps": 4,
}
PARAMETERS = {FIRST: 26_742_206, SECOND: 26_911_934}
COPIES = {"diffusion.condition.": "condition.", "diffusion.model.": "denoise."}
BUFFERS = "diffusion."


def from_official(state_dict: Mapping[str, Any], **overrides: Any) -> FirstStage | SecondStage:
    """Builds the stage that a published checkpoint holds, with its weights.

    Args:
        state_dict: the file's content, wrapped or not.
        overrides: arguments of the official constructor that shapes do not tell.

    Raises:
        ValueError: if the file is of another system or form of DiffIR, or is cut off. Also if it
            holds a copy that differs from its original, or another schedule than the arguments say.
    """
    state = unwrap(state_dict)
    system = seems_to_be(state)
    if system not in (FIRST, SECOND):
        demand(state, SECOND)
    _refuse_other_forms(state)
    return _first(state, overrides) if system == FIRST else _second(state, overrides)


def official_name(name: str) -> str:
    """Returns the official name of an entry of either stage's state dict."""
    part, rest = name.split(".", 1)
    if part == "restorer":
        return f"G.{restormer_official.official_name(rest)}"
    if part == "denoiser":
        index, leaf = rest.removeprefix("dense.").split(".")
        layer = "0" if index == "0" else f"{int(index) + 1}.resmlp.0"
        return f"denoise.resmlp.{layer}.{leaf}"
    rest = rest.replace("convolutions.", "E.", 1).replace("dense.", "mlp.", 1)
    return f"{'E' if part == 'encoder' else 'condition'}.{rest}"


def buffers(table: Schedule) -> dict[str, Tensor]:
    """Returns the 12 tables of an official file, each (T,), by their official names.

    The posterior's variance is beta_i (1 - abar_i-1) / (1 - abar_i). It is stored and not used.
    Float64 inside; the log of the variance is cut at 1e-20.
    """
    beta, kept, before = (row.double() for row in (table.beta, table.kept, table.kept_before))
    variance = beta * (1 - before) / (1 - kept)
    rows = {
        "betas": beta,
        "alphas_cumprod": kept,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": kept.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - kept).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - kept).log(),
        "sqrt_recip_alphas_cumprod": (1 / kept).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / kept - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": table.from_prediction,
        "posterior_mean_coef2": table.from_state,
    }
    return {name: row.float() for name, row in rows.items()}


def _refuse_other_forms(state: Mapping[str, Tensor]) -> None:
    """Raises ValueError for the forms of DiffIR that change the resolution or fill holes."""
    width, channels = shape_of(state, "G.patch_embed.proj.weight", "DiffIR")[:2]
    first = count(state, "G.encoder_level1.", ".")
    if channels == 4:
        raise ValueError(
            "not a checkpoint of DiffIR for deblurring: its input has 4 channels, so it seems to be"
            " DiffIR for inpainting; give the deblurring file"
        )
    if (width, first) == (64, 13):
        raise ValueError(
            "not a checkpoint of DiffIR for deblurring: it has 64 channels and 13 blocks on the"
            " first level, so it seems to be DiffIR for super-resolution; give the deblurring file"
        )


def _sizes(
    state: Mapping[str, Tensor], system: str, encoder: str, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the arguments that both stages share, as far as shapes tell them."""
    factor = overrides.get("ffn_expansion_factor", PUBLISHED["ffn_expansion_factor"])
    return {
        **restormer_official.sizes(state, "G.", system, factor),
        "n_encoder_res": _number(state, f"{encoder}.E.", ".body.0.weight"),
    }


def _number(state: Mapping[str, Tensor], before: str, after: str) -> int:
    """Returns how many names begin and end like this."""
    return sum(name.startswith(before) and name.endswith(after) for name in state)


def _first(state: Mapping[str, Tensor], overrides: Mapping[str, Any]) -> FirstStage:
    arguments = choose(FIRST, PUBLISHED, _sizes(state, FIRST, "E", overrides), overrides)
    features = shape_of(state, "E.E.0.weight", FIRST)[0]
    network = FirstStage(n_feats=features, **arguments)
    load_strictly(network, state, FIRST, official_name)
    return network


def _second(state: Mapping[str, Tensor], overrides: Mapping[str, Any]) -> SecondStage:
    read = {
        **_sizes(state, SECOND, "condition", overrides),
        "n_denoise_res": _number(state, "denoise.", "resmlp.0.weight") - 1,
        "timesteps": shape_of(state, "diffusion.betas", SECOND)[0],
    }
    arguments = choose(SECOND, PUBLISHED_SECOND, read, overrides)
    features = shape_of(state, "condition.E.0.weight", SECOND)[0]
    network = SecondStage(n_feats=features, **arguments)
    _check_copies(state)
    _check_schedule(state, network)
    stored_only = {BUFFERS + name for name in buffers(schedule_of(network))}
    names = [official_name(name) for name in network.state_dict()]
    for copy, original in COPIES.items():
        own = [name for name in names if name.startswith(original)]
        stored_only |= {copy + name.removeprefix(original) for name in own}
    load_strictly(network, state, SECOND, official_name, dead=stored_only.__contains__)
    return network


def _check_copies(state: Mapping[str, Tensor]) -> None:
    """Raises ValueError if one of the tensors that the file holds twice differs from its copy."""
    for copy, original in COPIES.items():
        for name in state:
            twin = original + name.removeprefix(copy)
            copied = name.startswith(copy) and twin in state
            if copied and not torch.equal(state[name], state[twin]):
                raise ValueError(
                    f"{SECOND}: {name} differs from {twin}, its copy in the same file, so one of"
                    " them is damaged; fetch the file again"
                )


def _check_schedule(state: Mapping[str, Tensor], network: SecondStage) -> None:
    """Raises ValueError if the tables in the file are not those of the arguments."""
    table = schedule_of(network)
    for name, row in buffers(table).items():
        held = state.get(BUFFERS + name)
        if held is None:
            raise ValueError(
                f"{SECOND}: 1 name is missing: {BUFFERS}{name}; the file seems cut off, so fetch it"
                " again"
            )
        if held.shape != row.shape or not torch.allclose(held.float(), row, rtol=1e-4, atol=1e-5):
            beta = state[f"{BUFFERS}betas"]
            raise ValueError(
                f"{SECOND}: {BUFFERS}{name} is not the schedule from {network.linear_start} to"
                f" {network.linear_end}; the file's betas go from {float(beta[0]):.6g} to"
                f" {float(beta[-1]):.6g}, so give these as linear_start and linear_end"
            )
