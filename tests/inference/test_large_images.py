"""What a photograph of many megapixels takes beside itself is a few of its planes."""

import sys
from pathlib import Path

import pytest
import torch

from lit_mimdit.inference import corrector, overview, spots
from lit_mimdit.inference.corrector import Corrector
from lit_mimdit.models.fidelity import Fidelity

HEIGHT, WIDTH = 1024, 1280
PLANE = 4 * HEIGHT * WIDTH  # bytes


def kilobytes(name: str) -> int:
    """A line of this process's status."""
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[name].split()[0])


def planes(function, *args) -> tuple[float, torch.Tensor]:
    """How many planes a call needs at once beside its arguments, and what it returns."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before = kilobytes("VmRSS")
    result = function(*args)
    return 1024 * (kilobytes("VmHWM") - before) / PLANE, result


@pytest.fixture(scope="module")
def images() -> tuple[torch.Tensor, torch.Tensor]:
    """A restored and a degraded image, the first with one spot."""
    draw = torch.Generator().manual_seed(0)
    degraded = 0.5 + 0.02 * torch.randn(1, 3, HEIGHT, WIDTH, generator=draw)
    restored = 0.5 + 0.002 * torch.randn(1, 3, HEIGHT, WIDTH, generator=draw)
    restored[..., 600:612, 600:612] += 0.3 * torch.randn(12, 12, generator=draw)
    return restored.clamp(0, 1), degraded.clamp(0, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the peak")
def test_each_step_on_a_whole_image_needs_few_planes(images, monkeypatch):
    restored, degraded = images
    # as small beside this image as the real ones beside one of 48 megapixels
    monkeypatch.setattr(spots, "STRIP", 32)
    monkeypatch.setattr(corrector, "TILE", 128)
    monkeypatch.setattr(corrector, "OVERLAP", 16)
    network = Corrector(Fidelity((4, 4), 1))
    small = overview.shrink(restored, (64, 96))
    needed, bounded = planes(spots.without_spots, restored, degraded)
    assert not torch.equal(bounded, restored)  # the spot was found, and its copy counts
    assert needed < 9
    needed, _ = planes(overview.anchor, restored, small)
    assert needed < 7.5
    needed, _ = planes(network, restored, degraded)
    assert needed < 6


def test_strips_change_no_bit(images, monkeypatch):
    restored, degraded = (image[..., 500:750, 500:700] for image in images)
    found = []
    for rows in (10_000, 64, 7):
        monkeypatch.setattr(spots, "STRIP", rows)
        found.append(spots.without_spots(restored, degraded))
    assert not torch.equal(found[0], restored)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_a_batch_of_large_images_is_corrected_one_by_one(monkeypatch):
    network = Fidelity((4, 4), 1)
    draw = torch.Generator().manual_seed(0)
    torch.nn.init.normal_(network.correction.leave.weight, generator=draw)
    restored, degraded = torch.rand(2, 2, 3, 48, 64, generator=draw)
    monkeypatch.setattr(corrector, "TILE", 32)
    monkeypatch.setattr(corrector, "OVERLAP", 8)
    both = Corrector(network)(restored, degraded)
    each = [
        Corrector(network)(one[None], other[None])
        for one, other in zip(restored, degraded, strict=True)
    ]
    assert torch.equal(both, torch.cat(each)) and (both - restored).abs().max() > 0.01
