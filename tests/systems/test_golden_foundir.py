"""FoundIR equals the authors' code, reads their files, and keeps its numbers."""

import official_files
import own_numbers
import pytest
import shared_golden
import torch
from torch import nn

from lit_mimdit.models.residual_diffusion import ResidualDiffusion
from lit_mimdit.models.restormer_network import Restormer
from lit_mimdit.systems.foundir import network as foundir
from lit_mimdit.systems.foundir import sampler
from lit_mimdit.systems.foundir.official import from_official
from lit_mimdit.systems.foundir.selective_scan import selective_scan
from lit_mimdit.systems.foundir.wave_mamba import WaveMamba, nearest_channels
from lit_mimdit.systems.foundir.wavelet import analyse, synthesise

LOW = {"wf": 8, "n_l_blocks": (1, 2, 1), "n_h_blocks": (1, 1, 2)}


def test_every_number_of_the_authors_golden_file(capsys):
    shared_golden.demand_equal("FoundIR_small.safetensors", capsys)


def test_every_number_at_the_published_size(demand_equal_at_full_size):
    demand_equal_at_full_size("FoundIR_fullsize.safetensors")


def test_our_own_numbers_have_not_changed():
    own_numbers.demand_equal("foundir")


@pytest.mark.parametrize(
    ("name", "build", "state"),
    [
        ("generalist", foundir.generalist, None),
        ("weather", foundir.weather_specialist, official_files.weather_state),
        ("low light", foundir.low_light_specialist, official_files.low_light_state),
    ],
)
def test_the_published_sizes(name, build, state):
    with torch.device("meta"):
        network = build()
    assert sum(value.numel() for value in network.parameters()) == foundir.PARAMETERS[name]
    if state is not None:
        file = name.replace(" ", "")
        ours = official_files.shapes(state(network))
        published = official_files.published("FoundIR", file)
        prefix = "restoration_network."
        assert {key.removeprefix(prefix): shape for key, shape in ours.items()} == {
            key.removeprefix(prefix): shape for key, shape in published.items()
        }


def test_each_network_is_recognised_and_loaded():
    torch.manual_seed(1)
    x = torch.rand(1, 3, 16, 24)
    weather = Restormer(dim=8, num_blocks=(1, 1, 1, 1))
    again = from_official({"params": official_files.weather_state(weather)})
    assert isinstance(again, Restormer) and torch.equal(again(x), weather(x))
    low = WaveMamba(**LOW)
    again = from_official({"params": official_files.low_light_state(low)})
    assert isinstance(again, WaveMamba) and torch.equal(again(x), low(x))
    process = ResidualDiffusion(8, (1, 2), 1.4e-3, 4)
    ema = {f"ema_model.{k}": v for k, v in official_files.process_state(process).items()}
    again = from_official({"step": 1, "ema": ema})
    assert again.sampling_timesteps == 4
    assert torch.equal(again(x, x), process(x, x))


def low_state():
    return official_files.low_light_state(WaveMamba(**LOW))


@pytest.mark.parametrize(
    ("state", "overrides", "message"),
    [
        ({"prompt1.prompt_param": 1, "encoder_level1.0.a": 1}, {}, "seems to be PromptIR"),
        ({"something": 1}, {}, "no known system has names such as something"),
        (lambda: dict(list(low_state().items())[:-2]), {}, "2 names are missing.*cut off"),
        (lambda: low_state() | {"restoration_network.x": torch.ones(1)}, {}, "unexpected: x"),
        (low_state, {"wf": 32}, "wf=32 contradicts the checkpoint, whose tensors say 8"),
        (low_state, {"ffn_scale": 4.0}, "ffn_scale=4.0 contradicts"),
        (lambda: official_files.weather_state(Restormer(dim=8, num_blocks=(1,) * 4)),
         {"num_blocks": (4, 6, 6, 8)}, "num_blocks=.*contradicts"),
        (lambda: official_files.process_state(ResidualDiffusion(8, (1, 1), 1.8e-3, 3)), {},
         "FoundIR: .*seems to be a network with .* delta_end 0.0018"),
        (lambda: official_files.process_state(ResidualDiffusion(32, (1,) * 4, 1.8e-3, 3)), {},
         "FoundIR: .*seems to be DiffUIR-T, so import it as that"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_in_one_line(state, overrides, message):
    state = state() if callable(state) else {k: torch.ones(v) for k, v in state.items()}
    with pytest.raises(ValueError, match=message) as refusal:
        from_official(state, **overrides)
    assert "\n" not in str(refusal.value)


def test_the_scan_equals_its_recurrence_for_any_chunk():
    torch.manual_seed(2)
    u, step = torch.randn(2, 2, 6, 11, dtype=torch.float64).unbind()
    decay = -torch.rand(6, 3, dtype=torch.float64)
    into, out = torch.randn(2, 2, 2, 3, 11, dtype=torch.float64).unbind()
    skip, bias = torch.randn(2, 6, dtype=torch.float64).unbind()
    s = torch.log1p(torch.exp(step + bias[:, None]))
    expected = torch.zeros_like(u)
    for image in range(2):
        for channel in range(6):
            h = torch.zeros(3, dtype=torch.float64)
            for place in range(11):
                now, group = s[image, channel, place], channel // 3
                h = h * torch.exp(now * decay[channel])
                h = h + now * u[image, channel, place] * into[image, group, :, place]
                expected[image, channel, place] = out[image, group, :, place] @ h
    expected += skip[:, None] * u
    for chunk in (1, 4, 11, 256):
        ours = selective_scan(u, step, decay, into, out, skip, bias, chunk)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


def test_the_wavelet_of_one_cell_and_its_inverse():
    cell = torch.tensor([[[[1.0, 3.0], [2.0, 8.0]]]])  # a = 1, b = 2, c = 3, d = 8
    assert [float(band) for band in analyse(cell)] == [7.0, 4.0, 3.0, 2.0]
    image = torch.rand(2, 3, 6, 8)
    torch.testing.assert_close(synthesise(*analyse(image)), image)


def test_each_channel_finds_its_nearest_in_the_guide():
    guide = torch.stack([torch.full((2, 2), value) for value in (0.0, 1.0, 5.0)])[None]
    query = torch.stack([torch.full((2, 2), value) for value in (4.0, 0.4, 0.6)])[None]
    assert nearest_channels(query, guide)[0, :, 0, 0].tolist() == [5.0, 0.0, 1.0]


class Shifted(nn.Module):
    """Stands for a network: adds 0.1 and remembers the sizes it was given."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, image, noise=None):
        self.sizes.append(tuple(image.shape[-2:]))
        return image + 0.1


def test_tiles_cover_an_image_with_one_short_side():
    # the published script leaves most rows black where one side is between tile / 2 and tile
    for size in ((12, 40), (40, 9), (17, 33)):
        network, image = Shifted(), torch.rand(1, 3, *size) / 2
        restored = sampler.restore(network, image, tile=16, overlap=8)
        torch.testing.assert_close(restored, image + 0.1)
        assert len(network.sizes) > 1 and max(map(max, network.sizes)) <= 16
    network = Shifted()
    sampler.restore(network, torch.rand(1, 3, 16, 16), tile=16, overlap=8)
    assert network.sizes == [(16, 16)]


def test_published_tiles():
    assert sampler.starts(1080, 1024, 512) == [0, 56]
    assert sampler.starts(1920, 1024, 512) == [0, 512, 896]
    with pytest.raises(ValueError, match="overlap is 512 and tile 512"):
        sampler.starts(1920, 512, 512)


def test_specialists_take_images_of_any_size():
    image = torch.rand(1, 3, 5, 70) / 2
    network = Shifted()
    torch.testing.assert_close(sampler.restore_weather(network, image, 32), image + 0.1)
    assert network.sizes == [(32, 32)] * 3
    network = Shifted()
    torch.testing.assert_close(sampler.restore_low_light(network, image), image + 0.1)
    assert network.sizes == [(128, 128)]
    assert sampler.restore_weather(network, image + 9, 32).max() == 1


def test_the_published_routing_goes_by_number():
    names = {500: None, 501: "weather", 701: "low light", 801: None, 1100: "weather"}
    names |= {1101: "low light", 1251: None, 1301: "low light", 1500: "low light"}
    assert {number: sampler.published_specialist(number) for number in names} == names
    with pytest.raises(ValueError, match="images 1 to 1500"):
        sampler.published_specialist(1501)


def test_a_file_between_two_networks_has_8_bits():
    image = torch.tensor([-1.0, 0.4 / 255, 0.6 / 255, 2.0])
    assert (sampler.in_8_bits(image) * 255).tolist() == [0, 0, 1, 255]


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="three levels|3 levels"):
        WaveMamba(n_l_blocks=(1, 2))
    for network in (WaveMamba(**LOW), Restormer(dim=8, num_blocks=(1,) * 4)):
        with pytest.raises(ValueError, match="12 x 16 pixels: .*multiples of 8"):
            network(torch.rand(1, 3, 12, 16))
    with pytest.raises(ValueError, match="heads is"):
        Restormer(dim=9, heads=(2, 2, 4, 8))
