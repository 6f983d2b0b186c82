"""DiffUIR equals the authors' code, reads their files, and keeps its numbers."""

import numpy as np
import official_files
import own_numbers
import pytest
import shared_golden
import torch

from lit_mimdit.models.residual_diffusion import ResidualDiffusion
from lit_mimdit.systems.diffuir.network import VARIANTS
from lit_mimdit.systems.diffuir.official import from_official
from lit_mimdit.systems.diffuir.sampler import equalize


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(1)
    return ResidualDiffusion(8, (1, 2, 1), 1.8e-3, 3)


@pytest.fixture
def state(network):
    return official_files.process_state(network)


def test_every_number_of_the_authors_golden_file(capsys):
    shared_golden.demand_equal("DiffUIR_small.safetensors", capsys)


def test_every_number_at_the_published_size(demand_equal_at_full_size):
    demand_equal_at_full_size("DiffUIR_fullsize.safetensors")


def test_our_own_numbers_have_not_changed():
    own_numbers.demand_equal("diffuir")


@pytest.mark.parametrize("name", VARIANTS)
def test_the_published_sizes(name):
    with torch.device("meta"):
        network = VARIANTS[name].build()
    count = sum(value.numel() for value in network.parameters())
    assert count == VARIANTS[name].parameters
    assert count == {"T": 886_435, "S": 3_268_643, "B": 12_406_851, "L": 36_261_187}[name]


def test_the_largest_network_has_the_published_names():
    network = ResidualDiffusion(8, (1, 1, 1, 1), 1.8e-3, 3)
    with torch.device("meta"):
        network.unet = VARIANTS["L"].build()
    ours = official_files.shapes(official_files.process_state(network))
    assert ours == official_files.published("DiffUIR", "ResidualDiffusion")


def test_averaged_weights_are_preferred(network, state):
    online = {name: value + 1 for name, value in state.items()}
    ema = {f"ema_model.{name}": value for name, value in state.items()}
    ema |= {f"online_model.{name}": value for name, value in online.items()}
    ema |= {"initted": torch.tensor(True), "step": torch.tensor(3)}
    file = {"step": 300_000, "model": online, "opt0": {"state": {}}, "ema": ema, "scaler": None}
    x, noise = torch.rand(1, 3, 9, 12), torch.randn(1, 3, 9, 12)
    expected = network(x, noise)
    assert torch.equal(from_official(file)(x, noise), expected)
    assert torch.equal(from_official({"model": state})(x, noise), expected)
    assert from_official(state, sampling_timesteps=4).sampling_timesteps == 4
    # the official constructor takes these two and does nothing with them
    idle = from_official(state, image_size=256, loss_type="l2")
    assert torch.equal(idle(x, noise), expected)


@pytest.mark.parametrize(
    ("change", "overrides", "message"),
    [
        (lambda s: {"denoise.a": torch.ones(1), "G.patch_embed.a": torch.ones(1)}, {},
         "seems to be DiffIR, stage 2"),
        (lambda s: {k: v for k, v in s.items() if k != "model.unet0.final_conv.bias"}, {},
         "1 names are missing: model.unet0.final_conv.bias; the file seems cut off"),
        (lambda s: {k: v for k, v in s.items() if k != "posterior_variance"}, {},
         "1 names are missing: posterior_variance; the file seems cut off"),
        (lambda s: s | {"model.unet1.x": torch.ones(1)}, {}, "unexpected: model.unet1.x"),
        (lambda s: s, {"dim": 64}, "dim=64 contradicts .* say 8; .* seems to be a network with"),
        (lambda s: s, {"delta_end": 1.4e-3}, "table delta.* another process's"),
        (lambda s: s, {"objective": "pred_res_noise"}, "only 'pred_res' is implemented"),
        (lambda s: s, {"depth": 1}, "no argument depth"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_in_one_line(state, change, overrides, message):
    with pytest.raises(ValueError, match=message) as refusal:
        from_official(change(state), **overrides)
    assert "\n" not in str(refusal.value)


def test_another_variant_or_foundir_is_named():
    tiny = ResidualDiffusion(32, (1, 1, 1, 1), 1.8e-3, 3)
    with pytest.raises(ValueError, match="contradicts .*; the file seems to be DiffUIR-T"):
        from_official(official_files.process_state(tiny), dim=64, dim_mults=(1, 2, 4, 8))
    other = ResidualDiffusion(8, (1, 1), 1.4e-3, 4)
    with pytest.raises(ValueError, match="another process's.* delta_end 0.0014"):
        from_official(official_files.process_state(other))


def test_histograms_are_equalised_by_channel():
    plane = np.array([[10, 10, 20], [30, 30, 40]], np.uint8)  # 6 pixels, 2 of them darkest
    image = np.stack([plane, np.full_like(plane, 7)], axis=-1)
    expected = np.array([[0, 0, 64], [191, 191, 255]], np.uint8)  # 255 / 4 a pixel: 63.75, 191.25
    assert (equalize(image)[..., 0] == expected).all() and (equalize(image)[..., 1] == 7).all()
    with pytest.raises(ValueError, match="type float64 and 3 axes"):
        equalize(image / 255)
