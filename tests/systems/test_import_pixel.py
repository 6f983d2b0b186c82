"""Official files of AirNet, DGUNet, DGUNet+ and TransWeather become files that restore."""

import re

import pytest
import torch
from filling import fill_network
from safetensors.torch import save_file

from lit_mimdit.evaluation.league import label_of
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.run_record import describe_run
from lit_mimdit.inference.system_file import load_system
from lit_mimdit.systems.airnet import inference as airnet
from lit_mimdit.systems.airnet.network import AirNetNetwork
from lit_mimdit.systems.airnet.official import names_of
from lit_mimdit.systems.dgunet import inference as dgunet
from lit_mimdit.systems.dgunet import official as dgunet_official
from lit_mimdit.systems.dgunet.network import DGUNetNetwork
from lit_mimdit.systems.import_weights import import_weights
from lit_mimdit.systems.transweather import inference as transweather
from lit_mimdit.systems.transweather import official as transweather_official
from lit_mimdit.systems.transweather.network import TransWeatherNetwork


def published_network(name: str):
    """A small network, the official name of its entries, how it restores, and overrides."""
    if name == "airnet":
        network = AirNetNetwork(1, 1, 4, (4, 6, 8), 8, 16)
        return network, names_of(network), airnet.restore, "{}"
    if name == "transweather":
        network = TransWeatherNetwork((4, 4, 8, 8), (4, 4), (1, 2, 2, 2), 2, 6)
        heads = '{"enc_heads": [1, 2, 2, 2], "dec_heads": 2}'
        return network, transweather_official.official_name, transweather.restore, heads
    network = DGUNetNetwork(4, 2, 2, 2, plus=name == "dgunet+")
    name_of = dgunet_official.official_name
    return network, lambda entry: name_of(entry, network.plus), dgunet.restore, "{}"


@pytest.mark.parametrize("name", ["airnet", "dgunet", "dgunet+", "transweather"])
def test_an_official_file_restores_as_its_network_does(name, tmp_path):
    network, name_of, restore, override = published_network(name)
    fill_network(network, 3, gain=0.8).eval()
    state = {f"module.{name_of(entry)}": value for entry, value in network.state_dict().items()}
    torch.save(state, tmp_path / "released.pth")
    output = tmp_path / "imported.safetensors"
    system = name.removesuffix("+")
    import_weights(system, [tmp_path / "released.pth"], output=output, override=override)
    assert load_system(output).class_path.startswith(f"lit_mimdit.systems.{system}.")
    image = torch.rand(1, 3, 50, 61, generator=torch.Generator().manual_seed(0))
    restorer = load_restorer(output, device="cpu")
    found, _ = restorer(image, torch.zeros(1, dtype=torch.int64))
    assert torch.equal(found, restore(network, image))
    made = {"name": "restored", "restoration": describe_run(restorer, output, 0)}
    rows = {"airnet": "AirNet*", "dgunet": "DGUNet*", "transweather": "TransWeather*"}
    assert label_of(made) == rows[system]


@pytest.mark.parametrize("name", ["released.pth", "released.ckpt", "released.safetensors"])
def test_restoring_with_an_authors_file_names_the_command_that_imports_it(name, tmp_path):
    """Each ending is read in another way."""
    network, name_of, *_ = published_network("airnet")
    state = {name_of(entry): value.contiguous() for entry, value in network.state_dict().items()}
    if name.endswith(".safetensors"):
        save_file(state, tmp_path / name)
    else:
        torch.save({"state_dict": state}, tmp_path / name)
    with pytest.raises(ValueError, match=f"{name}: .*seems to be AirNet .* import-weights airnet"):
        load_restorer(tmp_path / name, device="cpu")


def test_a_strange_checkpoint_is_not_called_an_authors(tmp_path):
    torch.save({"state_dict": {"conv.weight": torch.zeros(1)}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="other.ckpt: not a checkpoint of a restoration system; g"):
        load_restorer(tmp_path / "other.ckpt", device="cpu")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ('{"reduction": 0}', """override is '{"reduction": 0}': dgunet cannot be built"""),
        ('{"depth": "x"}', "DGUNet: depth='x' is no value such as 5; give one"),
    ],
)
def test_an_override_of_a_wrong_kind_is_named(override, message, tmp_path):
    network, name_of, *_ = published_network("dgunet")
    torch.save({name_of(k): value for k, value in network.state_dict().items()}, tmp_path / "a.pth")
    output = tmp_path / "imported.safetensors"
    with pytest.raises(ValueError, match=re.escape(message)):
        import_weights("dgunet", [tmp_path / "a.pth"], output=output, override=override)
    assert not output.exists()


def test_arguments_of_dgunet_without_effect_are_ignored(tmp_path):
    network, name_of, *_ = published_network("dgunet")
    torch.save({name_of(k): value for k, value in network.state_dict().items()}, tmp_path / "a.pth")
    output = tmp_path / "imported.safetensors"
    override = '{"in_c": 1, "out_c": 1, "num_cab": 2}'
    import_weights("dgunet", [tmp_path / "a.pth"], output=output, override=override)
    assert output.exists()
