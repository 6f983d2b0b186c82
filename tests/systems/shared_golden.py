"""Golden files of the authors' code.

They lie beside the repository in ../shared/systems, or in systems/ below $LIT_MIMDIT_SHARED.
"""

import json

import check_golden
import pytest
import torch


def demand_equal(name: str, capsys) -> None:
    """AssertionError unless every number of ../shared/systems/NAME is recomputed; else skips."""
    path = check_golden.SHARED / name
    if not path.is_file():
        pytest.skip(f"{path} is not here, so nothing is compared with the authors' code")
    good = check_golden.check(path, quiet=True)
    assert good, capsys.readouterr().out


def demand_official_names(name: str, ours: dict[str, torch.Size], dead: set[str]) -> None:
    """AssertionError unless our official names and the dead ones are those of the full network.

    ours: shapes by official name. name: of a file in ../shared/systems; skips without it.
    """
    path = check_golden.SHARED / name
    if not path.is_file():
        pytest.skip(f"{path} is not here, so no names are compared")
    keys = {entry["key"]: entry["shape"] for entry in json.loads(path.read_text())["keys"]}
    assert set(ours) | dead == set(keys)
    assert not set(ours) & dead
    assert {key: list(shape) for key, shape in ours.items()} == {key: keys[key] for key in ours}


def shapes(network, name_of) -> dict[str, torch.Size]:
    """The shape of every entry of a network, by its official name."""
    return {name_of(name): value.shape for name, value in network.state_dict().items()}


def parameters(network) -> int:
    """How many values the parameters have; a shared one counts once."""
    return sum(value.numel() for value in network.parameters())
