"""Official checkpoints of DGUNet and DGUNet+."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lit_mimdit.systems.dgunet.network import STAGES, DGUNetNetwork
from lit_mimdit.systems.official import choose, load_strictly, shape_of, unwrap
from lit_mimdit.systems.recognition import demand, seems_to_be

# The official constructor's arguments; in_c, out_c and num_cab have no effect there.
PUBLISHED: dict[str, Any] = {
    "in_c": 3,
    "out_c": 3,
    "n_feat": 80,
    "scale_unetfeats": 48,
    "scale_orsnetfeats": 32,
    "num_cab": 8,
    "kernel_size": 3,
    "reduction": 4,
    "bias": False,
    "depth": STAGES - 2,
}
DEAD = ("basic.concat12.weight",)


def official_name(ours: str, plus: bool) -> str:
    """Returns the official name of a parameter or module of ours.

    plus: DGUNet+, whose stages are numbered; DGUNet's middle stages are one module.
    """
    head, _, rest = ours.partition(".")
    if head == "first":
        number, prefix = 0, ""
    elif head == "last":
        number, prefix = STAGES - 1, ""
    elif plus:
        index, _, rest = rest.partition(".")
        number, prefix = int(index) + 1, ""
    else:
        number = 1
        prefix = "basic."
        rest = rest.removeprefix("0.")
    stage = number + 1  # some official names count from 1
    for pattern, replacement in (
        (r"^step\.r$", f"r{number}"),
        (r"^step\.(phit?)\b", rf"\1_{number}"),
        (r"^shallow\.input\b", f"shallow_feat{stage}.0"),
        (r"^shallow\.body\b", f"shallow_feat{stage}.1.body"),
        (r"^shallow\.gate\b", f"shallow_feat{stage}.1.CA.conv_du"),
        (r"^shallow$", f"shallow_feat{stage}"),
        (r"^encoder\b", f"stage{stage}_encoder.body"),
        (r"^decoder\.(\d)\.skip\b", rf"stage{stage}_decoder.skip_conv.\1"),
        (r"^decoder\.(\d)\.block\b", rf"stage{stage}_decoder.body.\1.conv_block"),
        (r"^decoder\b", f"stage{stage}_decoder.body"),
        (r"^sam\b", f"sam{stage}{stage + 1}"),
        (r"^merge\b", f"merge{number}{stage}"),
        (r"^concat\b", f"concat{number}{stage}"),
    ):
        rest, count = re.subn(pattern, replacement, rest)
        if count:
            break
    return prefix + rest


def arguments(state: Mapping[str, Tensor], plus: bool, **overrides: Any) -> dict[str, Any]:
    """Returns the official constructor's arguments for these tensors.

    state: unwrapped official tensors of the variant `plus` says. overrides: arguments that shapes
    do not tell, which is DGUNet's `depth`.
    Raises ValueError if an override contradicts a shape.
    """
    system = "DGUNet+" if plus else "DGUNet"
    wide, _, kernel, _ = shape_of(state, "stage1_encoder.body.0.conv_1.weight", system)
    n_feat = shape_of(state, "shallow_feat1.0.weight", system)[0]
    narrow = shape_of(state, "shallow_feat1.1.CA.conv_du.0.weight", system)[0]
    reduction = overrides.get("reduction", PUBLISHED["reduction"])
    if n_feat // reduction != narrow:
        reduction = n_feat // narrow
    read = {
        "n_feat": n_feat,
        "scale_unetfeats": wide - n_feat,
        "kernel_size": kernel,
        "reduction": reduction,
        "bias": "shallow_feat1.0.bias" in state,
    }
    if not plus:
        read["scale_orsnetfeats"] = shape_of(state, "concat67.weight", system)[0] - n_feat
    sizes = choose(system, PUBLISHED, read, overrides)
    if sizes["kernel_size"] != 3 or sizes["bias"]:
        raise ValueError(
            f"{system}: kernel_size={sizes['kernel_size']} and bias={sizes['bias']} of this"
            " checkpoint are not supported; give a published network, which has 3 and False"
        )
    return sizes


def from_official(
    state_dict: Mapping[str, Any], plus: bool | None = None, **overrides: Any
) -> DGUNetNetwork:
    """Builds DGUNet or DGUNet+ from an official checkpoint.

    state_dict: the content of the file, {epoch, state_dict, optimizer}, or its state dict with or
        without the prefix `module.`.
    plus: the variant that is expected; None takes the file's.
    overrides: arguments of the official constructor. `depth` is the number of middle stages of
        DGUNet, 5 unless given, as its weights do not tell; DGUNet+ has 5 always.

    Raises ValueError if the file is another system's or the other variant's, or if names are
    missing or unexpected. Entries that are one parameter and differ raise it, too.
    """
    state = unwrap(state_dict)
    expected = "DGUNet" if plus is False else "DGUNet+"
    if plus is None and seems_to_be(state) != "DGUNet+":
        expected = "DGUNet"
    demand(state, expected)
    plus = expected == "DGUNet+"
    sizes = arguments(state, plus, **overrides)
    network = DGUNetNetwork(
        sizes["n_feat"],
        sizes["scale_unetfeats"],
        sizes["scale_orsnetfeats"],
        sizes["reduction"],
        STAGES - 2 if plus else sizes["depth"],
        plus,
    )
    _demand_ties(network, state, expected)
    load_strictly(
        network, state, expected, lambda name: official_name(name, plus), DEAD.__contains__
    )
    return network


def ties(network: DGUNetNetwork) -> list[list[str]]:
    """Returns groups of official names that are one parameter."""
    groups: dict[int, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(official_name(name, network.plus))
    return [names for names in groups.values() if len(names) > 1]


def _demand_ties(network: DGUNetNetwork, state: Mapping[str, Tensor], system: str) -> None:
    for names in ties(network):
        present = [name for name in names if name in state]
        for name in present[1:]:
            if not torch.equal(state[name], state[present[0]]):
                raise ValueError(
                    f"{system}: {name} differs from {present[0]}, although both are one parameter"
                    " of the official network; the file was altered or trained by other code, so"
                    " fetch the published one"
                )
