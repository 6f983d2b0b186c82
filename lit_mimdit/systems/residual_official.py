"""Published checkpoints of residual diffusion, which DiffUIR and FoundIR's generalist share.

A file `model-<k>.pt` holds `step`, `model`, `opt0`, `ema` and `scaler`. The tests of both systems
use the weights averaged over training, `ema_model.model.unet0.*` inside `ema`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lit_mimdit.models.residual_diffusion import (
    SUM_SCALE,
    ResidualDiffusion,
    Schedule,
)
from lit_mimdit.systems.official import choose, count, listed, load_strictly, shape_of, unwrap
from lit_mimdit.systems.recognition import demand

SIGNATURE = "DiffUIR or FoundIR's generalist"
UNET = "model.unet0."
RENAMES = (  # ours, official
    (r"^time\.first\.", "time_mlp.1."),
    (r"^time\.second\.", "time_mlp.3."),
    (r"^final_block\.", "final_res_block."),
    (r"^mid_attention\.out\.", "mid_attn.fn.fn.to_out."),
    (r"^mid_attention\.", "mid_attn.attention."),
    (r"\.attention\.out\.", ".attention.fn.to_out.0."),
    (r"\.attention\.out_norm\.gain", ".attention.fn.to_out.1.g"),
    (r"\.attention\.qkv\.", ".attention.fn.to_qkv."),
    (r"\.attention\.norm\.gain", ".attention.norm.g"),
    (r"^mid_attn\.attention\.", "mid_attn.fn."),
    (r"^(downs|ups)\.(\d+)\.attention\.", r"\1.\2.2.fn."),
    (r"^(downs|ups)\.(\d+)\.first\.", r"\1.\2.0."),
    (r"^(downs|ups)\.(\d+)\.second\.", r"\1.\2.1."),
    (r"^(downs|ups)\.(\d+)\.resample\.", r"\1.\2.3."),
    (r"\.modulation\.", ".mlp.1."),
    (r"\.shortcut\.", ".res_conv."),
)
FIXED = {  # what the published networks were built with; nothing else is implemented
    "condition": True,
    "objective": "pred_res",
    "test_res_or_noise": "res",
    "num_unet": 1,
}
IDLE = ("image_size", "loss_type")  # arguments of the official constructors without effect
SIZES = {  # of the published networks, by name: dim, dim_mults, delta_end
    "DiffUIR-T": (32, (1, 1, 1, 1), 1.8e-3),
    "DiffUIR-S": (32, (1, 2, 2, 4), 1.8e-3),
    "DiffUIR-B": (64, (1, 2, 2, 4), 1.8e-3),
    "DiffUIR-L": (64, (1, 2, 4, 8), 1.8e-3),
    "FoundIR's generalist": (64, (1, 2, 4, 8), 1.4e-3),
}


def official_name(levels: int) -> Callable[[str], str]:
    """Returns the function from a name in our U-Net's state dict to the official one.

    levels: of the U-Net; the last one of the way up has no upsampling, which changes its name.
    """
    upsampled = [f"ups.{level}.3." for level in range(levels - 1)]

    def rename(name: str) -> str:
        for ours, official in RENAMES:
            name = re.sub(ours, official, name)
        for before in upsampled:
            name = name.replace(before, f"{before}1.")
        return UNET + name

    return rename


def buffers(table: Schedule) -> dict[str, Tensor]:
    """Returns the 14 tables (T,) of an official file, by their official names.

    Differences alpha_t = a_t - a_t-1 and beta2_t = b_t^2 - b_t-1^2 are 0 at t = 0. The posterior's
    tables are stored and never used:

        variance = beta2_t b_t-1^2 / b_t^2
        c1 = b_t-1^2 / b_t^2,  c2 = (beta2_t a_t-1 - b_t-1^2 alpha_t) / b_t^2,  c3 = beta2_t / b_t^2

    with c1 = c2 = 0 and c3 = 1 at t = 0.
    """
    a, b2 = table.residual, table.variance
    alpha, beta2 = _differences(a), _differences(b2)
    a_before, b2_before = torch.roll(a, 1), torch.roll(b2, 1)
    variance = beta2 * b2_before / b2
    c1, c2 = b2_before / b2, (beta2 * a_before - b2_before * alpha) / b2
    c3 = beta2 / b2
    c1[0] = 0
    c2[0] = 0
    c3[0] = 1
    share = 1 - a
    share[-1] = 1e-6
    return {
        "alphas": alpha,
        "alphas_cumsum": a,
        "delta": table.increments,
        "delta_cumsum": table.delta,
        "one_minus_alphas_cumsum": share,
        "betas2": beta2,
        "betas": beta2.sqrt(),
        "betas2_cumsum": b2,
        "betas_cumsum": table.noise,
        "posterior_mean_coef1": c1,
        "posterior_mean_coef2": c2,
        "posterior_mean_coef3": c3,
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
    }


def _differences(row: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(row[:1]), row[1:] - row[:-1]])


def seems_to_be(dim: int, dim_mults: tuple[int, ...], delta_end: float) -> str:
    """Returns the published network of these sizes, or a description."""
    for name, (width, mults, end) in SIZES.items():
        if (dim, dim_mults) == (width, mults) and abs(delta_end - end) < 1e-6:
            return name
    return f"a network with dim {dim}, dim_mults {list(dim_mults)} and delta_end {delta_end:.6g}"


def build(
    system: str,
    file: Mapping[str, Any],
    published: Mapping[str, Any],
    overrides: Mapping[str, Any],
) -> ResidualDiffusion:
    """Builds the process of a published checkpoint, with its averaged weights.

    Args:
        system: for messages.
        file: the checkpoint, wrapped or not.
        published: `delta_end` and `sampling_timesteps` of the system.
        overrides: arguments of the official constructors. `image_size` and `loss_type` have no
            effect there, so they are dropped: any size is restored, and the loss is always L1.

    Raises:
        ValueError: if the file is of another system or size, is cut off, or its tables are those of
            another process.
    """
    state = unwrap(file)
    demand(state, SIGNATURE)
    for name, value in FIXED.items():
        if overrides.get(name, value) != value:
            raise ValueError(
                f"{system}: {name}={overrides[name]!r} is not published with weights; only"
                f" {value!r} is implemented, so leave the override out"
            )
    levels = count(state, f"{UNET}downs.", ".")
    dim = shape_of(state, f"{UNET}init_conv.weight", system)[0]
    mults = tuple(
        shape_of(state, f"{UNET}downs.{level}.3.weight", system)[0] // dim
        for level in range(levels)
    )
    increments = state.get("delta")
    if increments is None:
        raise ValueError(
            f"{system}: 1 name is missing: delta; the file seems cut off, so fetch it again"
        )
    seeming = seems_to_be(dim, mults, float(increments[-1]))
    defaults = {"sum_scale": SUM_SCALE, "ddim_sampling_eta": 0.0, **published}
    read = {"dim": dim, "dim_mults": mults, "timesteps": len(increments)}
    given = {
        name: value for name, value in overrides.items() if name not in FIXED and name not in IDLE
    }
    try:
        arguments = choose(system, defaults, read, given)
    except ValueError as error:
        raise ValueError(f"{error}; the file seems to be {seeming}") from error
    network = ResidualDiffusion(**arguments)
    _check_tables(system, state, network.table, seeming)
    load_strictly(
        network.unet,
        state,
        system,
        official_name(levels),
        dead=lambda name: name in buffers(network.table),
    )
    return network


def _check_tables(system: str, state: Mapping[str, Tensor], table: Schedule, seeming: str) -> None:
    """Raises ValueError if the tables in the file are not those of the process."""
    rows = buffers(table)
    missing = [name for name in rows if name not in state]
    if missing:
        raise ValueError(
            f"{system}: {len(missing)} names are missing: {listed(missing)}; the file seems cut"
            " off, so fetch it again"
        )
    for name, row in rows.items():
        held = state[name].float()
        # the official code overwrites entry 0 of three tables before it tests
        if held.shape != row.shape or not torch.allclose(held[1:], row[1:], rtol=1e-3, atol=1e-6):
            raise ValueError(
                f"{system}: the table {name} in the file is another process's; the file seems to be"
                f" {seeming}, so import it as that, or give its delta_end as an override"
            )
