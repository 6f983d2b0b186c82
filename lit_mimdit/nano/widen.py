"""Widens a fidelity network without changing what it computes (Net2Net, arXiv 1511.05641).

What a small network has learnt is kept, and a larger one goes on from it. Net2Net copies channels.
Here the new channels begin at random, and nothing old hears of them: their outgoing weights are 0.
"""

import torch
from torch import Tensor

from lit_mimdit.models.fidelity import Fidelity

PAIRED_INPUTS = "scene.0.weight"  # takes means and deviations, one behind the other
PAIRED_OUTPUTS = ("scene.2.weight", "scene.2.bias")  # give scales and shifts


def holds(small: Fidelity, large: Fidelity) -> bool:
    """Returns whether `large` has the levels of `small`, and at least its channels and blocks."""
    widths = len(small.widths) == len(large.widths) and all(
        few <= many for few, many in zip(small.widths, large.widths, strict=True)
    )
    return widths and small.blocks <= large.blocks and small.gain <= large.gain


@torch.no_grad()
def widen(small: Fidelity, large: Fidelity) -> None:
    """Has the new network `large` compute what `small` computes.

    Both have the same number of levels. `large` has at least the channels and blocks of `small`,
    and gains if that has them: see `holds`. New blocks and gains compute nothing at first. Cleaners
    are left as they are.
    """
    assert holds(small, large)
    unet = large.correction
    for level in (*unet.before, *unet.after):
        for block in level[small.blocks :]:
            block.second.bias.zero_()  # its weight is 0 already
    own = unet.state_dict()  # shares its memory with the parameters
    for name, value in small.correction.state_dict().items():
        _copy(value, own[name], name)


def _copy(value: Tensor, into: Tensor, name: str) -> None:
    """Copies a parameter into the leading part of a larger one; new inputs get weight 0 there."""
    if name == PAIRED_INPUTS:
        value, into = (tensor.unflatten(1, (2, -1)).transpose(1, 2) for tensor in (value, into))
    elif name in PAIRED_OUTPUTS:
        for old, new in zip(value.chunk(2), into.chunk(2), strict=True):
            _leading(old, new, outputs=0)
        return
    _leading(value, into, outputs=1 if name.startswith("up.") and value.ndim == 4 else 0)


def _leading(value: Tensor, into: Tensor, outputs: int) -> None:
    """`outputs` is the axis of the output channels; that of transposed convolutions is 1."""
    old_outputs = into.narrow(outputs, 0, value.shape[outputs])
    if value.ndim == 1:
        old_outputs.copy_(value)
        return
    old_outputs.zero_()
    old_outputs.narrow(1 - outputs, 0, value.shape[1 - outputs]).copy_(value)
