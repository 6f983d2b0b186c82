"""Spots that the degraded image rules out, and everything that must stay as it is."""

import pytest
import torch

from lit_mimdit.inference import spots
from lit_mimdit.inference.folder_record import FolderRecord
from lit_mimdit.inference.restorer import Restorer
from lit_mimdit.inference.run_record import describe_run
from lit_mimdit.inference.spots import box, largest, without_spots


def scene(blob: float, in_both: bool):
    """A noisy sky and its restoration, with a checkered blob in the second or in both."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.linspace(0.4, 0.6, 96)[None, None, :, None].expand(1, 3, 96, 128).clone()
    lq = clean + 0.05 * torch.randn(clean.shape, generator=generator)
    restored = clean + 0.01 * torch.randn(clean.shape, generator=generator)
    checks = torch.ones(12, 12)
    checks[::2], checks[:, ::2] = -checks[::2], -checks[:, ::2]
    restored[..., 40:52, 60:72] += blob * checks
    if in_both:
        lq[..., 40:52, 60:72] += blob * checks
    return clean, restored.clamp(0, 1), lq.clamp(0, 1)


def test_a_spot_that_the_degraded_image_does_not_show_is_bounded():
    clean, restored, lq = scene(0.2, in_both=False)
    place = ..., slice(40, 52), slice(60, 72)
    result = without_spots(restored, lq)
    assert (result - clean)[place].std() < 0.3 * (restored - clean)[place].std()
    far = torch.ones(96, 128, dtype=torch.bool)
    far[20:72, 40:92] = False
    assert torch.equal(result[..., far], restored[..., far])
    assert result.min() >= 0 and result.max() <= 1


def test_an_object_of_both_images_and_a_brighter_scene_keep_their_bits():
    _, restored, lq = scene(0.2, in_both=True)
    assert without_spots(restored, lq) is restored
    generator = torch.Generator().manual_seed(1)
    lamp = torch.zeros(1, 3, 128, 128)
    lamp[..., :20, :20] = torch.rand(1, 3, 20, 20, generator=generator)
    assert without_spots(lamp, 0.12 * lamp) is lamp  # the only thing in a black night
    texture = torch.rand(1, 3, 64, 64, generator=generator)
    assert without_spots(texture, 0.1 * texture) is texture  # low light: ten times the contrast


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (8, 8), (40, 9)])
def test_any_size_and_a_black_image_pass(size):
    restored = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(2))
    assert without_spots(restored, restored) is restored
    assert without_spots(restored, torch.zeros_like(restored)).isfinite().all()


def test_means_at_the_border_are_of_the_pixels_there_are():
    plane = torch.arange(12.0).reshape(1, 1, 3, 4)
    assert box(plane, 3)[0, 0, 0, 0] == plane[0, 0, :2, :2].mean()
    assert box(plane, 3)[0, 0, 1, 1] == plane[0, 0, :3, :3].mean()


def test_a_restorer_takes_spots_away_behind_a_fidelity_network_only(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "lit_mimdit.inference.latent_restorer.without_spots", lambda x, lq: seen.append(1) or x
    )
    lq = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    for weight, count in ((None, 0), (0.0, 0), (1.0, 1)):
        restorer = restorer_of(weight)
        restorer(lq, torch.tensor([0]))
        assert len(seen) == count


def test_a_record_tells_the_bound_so_that_results_without_it_are_not_finished(tmp_path):
    """A folder restored before there was a bound, or under another one, is restored again."""
    source, target = tmp_path / "in.png", tmp_path / "out" / "in.png"
    target.parent.mkdir()
    source.write_bytes(b"degraded")
    now = describe_run(restorer_of(1.0), None, 0)
    assert now["fidelity"]["spots"]["loose"] == spots.LOOSE
    assert describe_run(restorer_of(0.0), None, 0)["fidelity"]["spots"] is None
    before = now | {"fidelity": {k: v for k, v in now["fidelity"].items() if k != "spots"}}
    for run, finished in ((before, False), (now, True)):
        record = FolderRecord(target.parent, run)
        record.write(source, target, b"restored", [])
        record.close()
        assert FolderRecord(target.parent, now).is_finished(source, target) == finished


def restorer_of(weight: float | None) -> Restorer:
    from lit_mimdit.inference.loading import load_restorer

    given = {} if weight is None else {"fidelity": "package", "fidelity_weight": weight}
    return load_restorer("package", device="cpu", steps=1, **given)


@pytest.mark.parametrize("side", [1, 3, 13, 25, 31])
def test_windows_are_those_of_every_pixel(side):
    planes, half = (
        torch.rand(2, 2, 17, 30, generator=torch.Generator().manual_seed(side)),
        side // 2,
    )
    means, maxima = box(planes, side), largest(planes, side)
    for top, left in ((0, 0), (0, 14), (8, 29), (16, 29), (8, 15)):
        around = planes[
            ..., max(0, top - half) : top + half + 1, max(0, left - half) : left + half + 1
        ]
        torch.testing.assert_close(means[..., top, left], around.mean((-2, -1)))
        assert torch.equal(maxima[..., top, left], around.amax((-2, -1)))
