"""Small checkpoints in the official form, made from networks of ours."""

import json

import check_golden
import pytest

from lit_mimdit.models.residual_diffusion import ResidualDiffusion
from lit_mimdit.systems import residual_official, restormer_official
from lit_mimdit.systems.diffir import official as diffir
from lit_mimdit.systems.diffir.network import SecondStage
from lit_mimdit.systems.diffir.sampler import schedule_of
from lit_mimdit.systems.foundir.official import low_light_name


def diffir_state(network):
    """The official state dict of a stage of DiffIR, with the copies and tables of the second."""
    state = {diffir.official_name(name): value for name, value in network.state_dict().items()}
    if isinstance(network, SecondStage):
        for copy, original in diffir.COPIES.items():
            state |= {
                copy + name.removeprefix(original): value.clone()
                for name, value in state.items()
                if name.startswith(original)
            }
        tables = diffir.buffers(schedule_of(network))
        state |= {diffir.BUFFERS + name: row for name, row in tables.items()}
    return state


def process_state(network: ResidualDiffusion):
    """The official state dict of residual diffusion, with its tables."""
    rename = residual_official.official_name(len(network.unet.dim_mults))
    weights = {rename(name): value for name, value in network.unet.state_dict().items()}
    return {**weights, **residual_official.buffers(network.table)}


def weather_state(network):
    """The official state dict of FoundIR's specialist for weather."""
    return {
        f"restoration_network.{restormer_official.official_name(name)}": value
        for name, value in network.state_dict().items()
    }


def low_light_state(network):
    """The official state dict of FoundIR's specialist for low light."""
    return {
        f"restoration_network.{low_light_name(name)}": value
        for name, value in network.state_dict().items()
    }


def published(file, network):
    """Names and shapes of a network in ../shared/systems/NAME_keys.json; skips without it."""
    path = check_golden.SHARED / f"{file}_keys.json"
    if not path.is_file():
        pytest.skip(f"{path} is not here, so no names are compared")
    keys = json.loads(path.read_text())["keys"][network]
    return {name: tuple(shape) for name, shape, _ in keys}


def shapes(state):
    """The shape of every tensor by name."""
    return {name: tuple(value.shape) for name, value in state.items()}
