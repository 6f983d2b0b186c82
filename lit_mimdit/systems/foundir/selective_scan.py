"""The selective scan of state-space models (Mamba, arXiv 2312.00752), without a kernel of its own.

Legend: B images, K directions, D channels, N states of a channel, L positions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 256  # positions at once; memory grows with it


def selective_scan(
    u_BCL: Tensor,
    step_BCL: Tensor,
    decay_CN: Tensor,
    into_BKNL: Tensor,
    out_BKNL: Tensor,
    skip_C: Tensor,
    step_bias_C: Tensor,
    chunk: int = CHUNK,
) -> Tensor:
    """Returns y (B, C, L), with C = K D channels, each with N states of its own.

        s_l = softplus(step_l + bias)
        h_l = exp(s_l A) h_l-1 + s_l u_l B_l,   h_-1 = 0
        y_l = C_l . h_l + skip u_l

    Args:
        u_BCL: the sequences.
        step_BCL: step sizes before the softplus.
        decay_CN: A, negative.
        into_BKNL, out_BKNL: B and C of each direction; channel c belongs to direction c // D.
        skip_C: weight of the input in the output.
        step_bias_C: added to the step sizes.
        chunk: positions that are scanned in parallel. It changes memory and time only.
    """
    batch, channels, length = u_BCL.shape
    directions, states = into_BKNL.shape[1:3]
    split = (directions, channels // directions)
    s = F.softplus(step_BCL + step_bias_C[:, None]).unflatten(1, split).unsqueeze(3)  # B K D 1 L
    u = u_BCL.unflatten(1, split).unsqueeze(3)
    decay = decay_CN.unflatten(0, split).unsqueeze(-1)  # K D N 1
    state = u_BCL.new_zeros(batch, *split, states)
    outputs = []
    for start in range(0, length, chunk):
        part = slice(start, start + chunk)
        kept = torch.exp(s[..., part] * decay)
        added = s[..., part] * u[..., part] * into_BKNL[:, :, None, :, part]
        h = recurrence(kept, added, state)
        outputs.append((h * out_BKNL[:, :, None, :, part]).sum(3))
        state = h[..., -1]
    return torch.cat(outputs, dim=-1).flatten(1, 2) + skip_C[:, None] * u_BCL


def recurrence(kept: Tensor, added: Tensor, start: Tensor) -> Tensor:
    """Returns h_l = kept_l h_l-1 + added_l for all l at once, with h_-1 = start.

    Two neighbours make one step: kept' = kept_l kept_l-1, added' = kept_l added_l-1 + added_l.
    Doubling the distance reaches all L positions in log2 L rounds.

    Args:
        kept, added: (..., L).
        start: (...).
    """
    length = kept.shape[-1]
    distance = 1
    while distance < length:
        moved = kept[..., distance:] * added[..., :-distance] + added[..., distance:]
        added = torch.cat([added[..., :distance], moved], dim=-1)
        joined = kept[..., distance:] * kept[..., :-distance]
        kept = torch.cat([kept[..., :distance], joined], dim=-1)
        distance *= 2
    return kept * start[..., None] + added
