"""FoundIR's published files become files that restore, with and without specialists."""

import official_files
import pytest
import torch

from lit_mimdit.data.pairs import collate
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.models.residual_diffusion import ResidualDiffusion
from lit_mimdit.models.restormer_network import Restormer
from lit_mimdit.systems.foundir import FoundIR, sampler
from lit_mimdit.systems.foundir.system import WeatherSizes
from lit_mimdit.systems.foundir.wave_mamba import WaveMamba
from lit_mimdit.systems.import_weights import import_weights


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(1)
    return {
        "generalist": ResidualDiffusion(8, (1, 2), 1.4e-3, 4).eval(),
        "weather": Restormer(dim=8, num_blocks=(1,) * 4, num_refinement_blocks=1).eval(),
        "low light": WaveMamba(3, 8, (1, 1, 1), (1, 1, 1)).eval(),
    }


@pytest.fixture(scope="module")
def states(networks):
    return {
        "generalist": official_files.process_state(networks["generalist"]),
        "weather": {"params": official_files.weather_state(networks["weather"])},
        "low light": {"params": official_files.low_light_state(networks["low light"])},
    }


@pytest.fixture(scope="module")
def expected(networks):
    """A degraded image, and what each choice of specialist makes of it with the noise of seed 7."""
    torch.manual_seed(2)
    lq = torch.rand(1, 3, 9, 20)
    noise = torch.randn(lq.shape, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        general = networks["generalist"](lq, noise)
        handed_over = (general * 255).round() / 255
        return lq, {
            None: general,
            "weather": sampler.restore_weather(networks["weather"], handed_over),
            "low light": sampler.restore_low_light(networks["low light"], handed_over),
        }


@pytest.mark.parametrize(
    ("given", "override", "id", "specialist"),
    [
        (["generalist"], "{}", "1100", None),
        (["weather", "generalist"], "{}", None, "weather"),
        (["generalist", "low light"], "{}", None, "low light"),
        (["generalist", "low light"], '{"specialist": "none"}', None, None),
        (["generalist", "weather", "low light"], '{"specialist": "published"}', "800", "low light"),
        (["generalist", "weather", "low light"], '{"specialist": "published"}', "1_801", None),
    ],
)
def test_imported_files_restore(states, expected, tmp_path, given, override, id, specialist):
    files = []
    for name in given:
        files.append(tmp_path / f"{name}.pth")
        torch.save(states[name], files[-1])
    output = tmp_path / "foundir.safetensors"
    import_weights("foundir", files, output=output, override=override)
    lq, wanted = expected
    restorer = load_restorer(output, device="cpu")
    restored, _ = restorer(lq, torch.tensor([7]), ids=None if id is None else [id])
    torch.testing.assert_close(restored, wanted[specialist], rtol=0, atol=1e-5)
    others = [image for name, image in wanted.items() if name != specialist]
    assert all((image - restored).abs().max() > 1e-3 for image in others)


def test_the_published_choice_goes_by_the_images_number(states):
    system = FoundIR.from_official(*states.values(), specialist="published")
    names = {"a/0520": "weather", "b/1_801": None, "1500": "low light"}
    assert {name: system.specialist_of(name) for name in names} == names


@pytest.mark.parametrize(
    ("given", "overrides", "message"),
    [
        (["weather"], {}, "the generalist's file is missing"),
        (["generalist", "generalist"], {}, "two files hold the network generalist"),
        (["generalist", "weather", "low light"], {}, "both specialists are given, and one must"),
        (["generalist", "weather"], {"specialist": "published"}, "network for low light is not"),
        (["generalist"], {"specialist": "weather"}, "'weather', but the network for weather"),
    ],
)
def test_files_that_do_not_fit_together_are_refused(states, given, overrides, message):
    with pytest.raises(ValueError, match=message) as refusal:
        FoundIR.from_official(*(states[name] for name in given), **overrides)
    assert "\n" not in str(refusal.value)


def test_the_published_choice_needs_a_number(states):
    system = FoundIR.from_official(*states.values(), specialist="published")
    with pytest.raises(ValueError, match="'photo' has no number"):
        system.restorer()(torch.rand(1, 3, 8, 8), torch.tensor([1]), ids=["photo"])


def test_specialists_are_not_trained():
    sizes = WeatherSizes(dim=8, num_blocks=(1,) * 4, num_refinement_blocks=1)
    system = FoundIR(dim=8, dim_mults=(1, 2), specialist="weather", weather=sizes)
    about = {"id": "a", "seed": 1, "degradation": "10Rain", "dataset": ""}
    with pytest.raises(ValueError, match="how they are trained is not published"):
        system.losses(collate([{"lq": torch.rand(3, 8, 8), "gt": torch.rand(3, 8, 8)} | about]))
