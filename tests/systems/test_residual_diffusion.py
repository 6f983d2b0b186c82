"""The process that DiffUIR and FoundIR share, against values from its papers' tables."""

import numpy as np
import pytest
import torch

from lit_mimdit.models import residual_diffusion as process
from lit_mimdit.models.padding import pad_to_multiple
from lit_mimdit.models.residual_unet import ResidualUNet


def test_the_ends_of_the_schedule():
    table = process.schedule(1.8e-3)
    assert float(table.residual[-1]) == pytest.approx(0.993647, abs=1e-6)
    assert float(table.noise[-1]) == pytest.approx(0.99998, abs=1e-6)
    assert float(table.delta[-1]) == pytest.approx(0.9005, abs=1e-6)
    assert float(process.schedule(1.4e-3).delta[-1]) == pytest.approx(0.7005, abs=1e-6)
    assert float(table.time(torch.tensor([999]))) == pytest.approx(993.647, abs=1e-3)
    with pytest.raises(ValueError, match="delta_end is -1"):
        process.schedule(-1)


@pytest.mark.parametrize(
    ("steps", "times"),
    [(1, [999, -1]), (3, [999, 665, 332, -1]), (4, [999, 749, 499, 249, -1])],
)
def test_the_steps_that_are_visited(steps, times):
    assert process.times(steps) == times
    assert process.times(1000) == list(range(999, -2, -1))
    with pytest.raises(ValueError, match="steps is 1001"):
        process.times(1001)


def test_diffusion_and_its_noise():
    table = process.schedule(1.8e-3)
    clean, degraded, noise = torch.rand(3, 2, 3, 4, 4, dtype=torch.float64) * 2 - 1
    t = torch.tensor([10, 999])
    x_t = process.diffuse(clean, degraded, noise, t, table)
    a, b, dl = (float(row[999]) for row in (table.residual, table.noise, table.delta))
    expected = (1 - a) * clean[1] + (a - dl) * degraded[1] + b * noise[1]
    torch.testing.assert_close(x_t[1], expected)
    found = process.noise_of(x_t, degraded, degraded - clean, t, table)
    torch.testing.assert_close(found, noise)


def test_a_right_residual_leads_to_the_clean_image():
    table = process.schedule(1.4e-3)
    clean, degraded = torch.rand(2, 1, 3, 4, 4, dtype=torch.float64)
    residual = process.to_process(degraded) - process.to_process(clean)
    restored = process.restore(
        lambda both, tau: residual, degraded, torch.randn_like(degraded), table, 4
    )
    torch.testing.assert_close(restored, (degraded - residual.clamp(-1, 1) / 2).clamp(0, 1))


def test_noise_on_the_way_has_the_stated_deviation():
    table = process.schedule(1.8e-3)
    degraded = torch.zeros(1, 3, 2, 2, dtype=torch.float64)
    drawn = []

    def draw(like):
        drawn.append(like)
        return torch.ones_like(like)

    def path(eta):
        network = lambda both, tau: torch.zeros_like(degraded)  # noqa: E731
        return list(process.trajectory(network, degraded, degraded, table, 3, eta, draw))

    quiet, noisy = path(0.0), path(0.5)
    assert len(drawn) == 2 and [step.t for step in noisy] == [999, 665, 332]
    t, s = (float(table.variance[index]) for index in (999, 665))
    sigma = (0.5 * (t - s) * s / t) ** 0.5
    torch.testing.assert_close(noisy[1].state, quiet[1].state + sigma)


@pytest.mark.parametrize("size", [(5, 7), (1, 9), (16, 3), (2, 2)])
def test_padding_goes_on_by_reflection(size):
    image = np.random.default_rng(3).random((2, *size))
    pads = [(0, 0), (0, -size[0] % 16), (0, -size[1] % 16)]
    expected = np.pad(image, pads, mode="reflect")
    assert np.array_equal(pad_to_multiple(torch.from_numpy(image), 16).numpy(), expected)


def test_the_network_keeps_the_size_and_refuses_impossible_widths():
    network = ResidualUNet(8, (1, 1, 1))
    assert network(torch.rand(2, 6, 3, 17), torch.tensor([1.0, 900.0])).shape == (2, 3, 3, 17)
    assert network.multiple == 8
    for dim, mults in ((12, (1,)), (8, ()), (8, (0,))):
        with pytest.raises(ValueError, match=f"dim is {dim}"):
            ResidualUNet(dim, mults)


def test_a_batch_equals_its_images():
    torch.manual_seed(4)
    network = process.ResidualDiffusion(8, (1, 2), 1.8e-3, 2)
    x, noise = torch.rand(2, 2, 3, 8, 8)
    both = network(x, noise)
    torch.testing.assert_close(both[1:], network(x[1:], noise[1:]))
