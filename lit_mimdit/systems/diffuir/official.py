"""DiffUIR's published checkpoints, T, S, B and L."""

from collections.abc import Mapping
from typing import Any

from lit_mimdit.models.residual_diffusion import ResidualDiffusion
from lit_mimdit.systems import residual_official

PUBLISHED = {"delta_end": 1.8e-3, "sampling_timesteps": 3}


def from_official(state_dict: Mapping[str, Any], **overrides: Any) -> ResidualDiffusion:
    """Builds DiffUIR from a published checkpoint, with its averaged weights.

    Args:
        state_dict: the file's content, wrapped or not.
        overrides: arguments of the official constructors, such as `sampling_timesteps=4`. Sizes
            that are given must be the file's: `dim=64, dim_mults=(1, 2, 4, 8)` demands L.

    Raises:
        ValueError: if the file is of another system or size, or is cut off.
    """
    return residual_official.build("DiffUIR", state_dict, PUBLISHED, overrides)
