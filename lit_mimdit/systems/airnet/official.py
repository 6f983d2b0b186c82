"""AirNet's official checkpoints."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from lit_mimdit.systems.airnet.network import AirNetNetwork
from lit_mimdit.systems.official import choose, count, load_strictly, shape_of, unwrap
from lit_mimdit.systems.recognition import demand

SYSTEM = "AirNet"
# `batch_size` is what the official class reads; below it are sizes that it has hard-coded.
PUBLISHED: dict[str, Any] = {
    "batch_size": 5,
    "n_groups": 5,
    "n_blocks": 5,
    "n_feats": 64,
    "enc": (64, 128, 256),
    "dim": 256,
}


def official_name(ours: str, groups: int, blocks: int) -> str:
    """Returns the official name of a parameter or module of ours.

    groups, blocks: of the restorer; the official convolutions after them carry their number.
    """
    for pattern, replacement in (
        (r"^restorer\.(head|tail)\.", r"R.\1.0."),
        (r"^restorer\.conv\b", f"R.body.{groups}"),
        (r"^restorer\.groups\.(\d+)\.conv\b", rf"R.body.\1.body.{blocks}"),
        (r"^restorer\.groups\.(\d+)\.blocks\b", r"R.body.\1.body"),
        (r"^restorer\.groups\b", "R.body"),
        (r"^restorer\b", "R"),
        (r"\.sft\.(gamma|beta)\b", r".sft.conv_\1"),
        (r"^contrast\.encoder_([qk])\.pre\b", r"E.E.encoder_\1.E_pre"),
        (r"^contrast\.encoder_([qk])\.stages\b", r"E.E.encoder_\1.E"),
        (r"^contrast\b", "E.E"),
    ):
        ours = re.sub(pattern, replacement, ours)
    return ours


def arguments(state: Mapping[str, Tensor], **overrides: Any) -> dict[str, Any]:
    """Returns the sizes of these tensors, under the names of PUBLISHED.

    state: unwrapped official tensors; the queue may be of any batch size. overrides: are compared
    with what shapes say.
    Raises ValueError if the file is another system's, or an override contradicts a shape.
    """
    demand(state, SYSTEM)
    dim, length = shape_of(state, "E.E.queue", SYSTEM)
    encoder = "E.E.encoder_q"
    stages = count(state, f"{encoder}.E.", ".backbone.0.")
    blocks = ["E_pre", *(f"E.{index}" for index in range(stages))]
    # The official queue has 256 columns for each image of a batch, as many as the embedding.
    batches = [length // columns for columns in (dim, 256) if length % columns == 0]
    if not batches:
        raise ValueError(
            f"{SYSTEM}: the queue has {length} columns, which is no multiple of {dim}, as every"
            " batch size gives; the file was altered, so fetch it again"
        )
    given = overrides.get("batch_size")
    read = {
        "batch_size": given if given in batches else batches[0],
        "n_groups": count(state, "R.body.", ".body.0."),
        "n_blocks": count(state, "R.body.0.body.", ".dgm1."),
        "n_feats": shape_of(state, "R.head.0.weight", SYSTEM)[0],
        "enc": tuple(
            shape_of(state, f"{encoder}.{block}.backbone.0.weight", SYSTEM)[0] for block in blocks
        ),
        "dim": dim,
    }
    return choose(SYSTEM, PUBLISHED, read, overrides)


def from_official(state_dict: Mapping[str, Any], **overrides: Any) -> AirNetNetwork:
    """Builds AirNet from an official checkpoint.

    state_dict: the content of the file, a plain state dict.
    overrides: sizes under the names of PUBLISHED. A `batch_size` other than that of the file's
        queue is refused.

    Raises ValueError if the file is another system's or incomplete; missing and unexpected names
    are listed.
    """
    state = unwrap(state_dict)
    sizes = arguments(state, **overrides)
    sizes.pop("batch_size")
    network = AirNetNetwork(queue=state["E.E.queue"].shape[1], **sizes)
    load_strictly(network, state, SYSTEM, names_of(network))
    return network


def names_of(network: AirNetNetwork) -> Callable[[str], str]:
    """Returns the function that gives the official names of a network's entries."""
    groups = network.restorer.groups
    return lambda name: official_name(name, len(groups), len(groups[0].blocks))
