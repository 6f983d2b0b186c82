"""FFDNet's official checkpoints: one sequence of convolutions, each followed by a ReLU."""

from collections.abc import Mapping
from typing import Any

from lit_mimdit.systems.ffdnet.network import STEP, FFDNetNetwork
from lit_mimdit.systems.official import load_strictly, shape_of, unwrap
from lit_mimdit.systems.recognition import demand

SYSTEM = "FFDNet"


def official_name(ours: str) -> str:
    """Returns the official name of a tensor of ours: layers.3.weight is model.6.weight."""
    _, number, kind = ours.split(".")
    return f"model.{2 * int(number)}.{kind}"


def from_official(state_dict: Mapping[str, Any]) -> FFDNetNetwork:
    """Returns the network with the tensors of an author's file; sizes are read from the shapes.

    Raises ValueError if the file is another system's, incomplete, or for grey images.
    """
    state = unwrap(state_dict)
    demand(state, SYSTEM)
    width, packed = shape_of(state, "model.0.weight", SYSTEM)[:2]
    channels = (packed - 1) // STEP**2
    if channels != 3:
        raise ValueError(
            f"{SYSTEM}: the file is for images of {channels} channel; give the one for colour"
        )
    last = max(int(name.split(".")[1]) for name in state if name.startswith("model."))
    depth = last // 2 + 1
    network = FFDNetNetwork(width, depth, channels)
    load_strictly(network, state, SYSTEM, official_name)
    return network
