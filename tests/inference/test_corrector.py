"""The fidelity network at work.

Its file, images of any size, its place behind the restorer and in the records.
"""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lit_mimdit import cli
from lit_mimdit.inference import corrector
from lit_mimdit.inference.corrector import Corrector, load_corrector
from lit_mimdit.inference.fidelity_file import save_fidelity
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.models import fidelity
from lit_mimdit.models.fidelity import Fidelity


def trained(seed: int = 0, widths=(4, 4)) -> Fidelity:
    network, generator = Fidelity(widths, 1), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network


@pytest.fixture
def file(tmp_path):
    save_fidelity(tmp_path / "f.safetensors", trained())
    return tmp_path / "f.safetensors"


def test_a_file_comes_back_in_float16_precision(file):
    restored, lq = torch.rand(2, 2, 3, 16, 16)
    found = load_corrector(str(file), 0.5)
    torch.testing.assert_close(
        found(restored, lq), trained()(restored, lq, 0.5).clamp(0, 1), rtol=0, atol=2e-3
    )
    assert load_corrector(None) is None and torch.equal(
        load_corrector(str(file), 0.0)(restored, lq), restored
    )


def test_large_images_go_through_in_tiles_without_seams(monkeypatch):
    restored, lq = torch.rand(2, 1, 3, 96, 120)
    network = Corrector(trained())
    whole = network(restored, lq)
    monkeypatch.setattr(corrector, "TILE", 64)
    monkeypatch.setattr(corrector, "OVERLAP", 48)
    tiled = network(restored, lq)
    assert not torch.equal(tiled, whole)
    # a tile's border sees zeros for its neighbour's pixels; its weight there is smallest, so that
    # little is left of it
    apart = (tiled - whole).abs()
    monkeypatch.setattr(corrector, "OVERLAP", 0)
    hard = (network(restored, lq) - whole).abs()
    assert apart.mean() < 5e-3 and apart.max() < 0.4 * hard.max()


def test_all_tiles_share_the_statistics_of_the_scene(monkeypatch):
    monkeypatch.setattr(corrector, "TILE", 32)
    monkeypatch.setattr(corrector, "OVERLAP", 0)
    network = trained()
    network.correction.scene[-1].weight.data *= 10
    restored, lq = torch.rand(2, 1, 3, 32, 64)
    lq[..., 32:] *= 0.1  # half of the scene is dark
    halves = [(restored[..., part], lq[..., part]) for part in (slice(0, 32), slice(32, 64))]
    shared = (network.statistics(*halves[0]) + network.statistics(*halves[1])) / 2
    expected = torch.cat([network.correct(*half, statistics=shared) for half in halves], dim=-1)
    torch.testing.assert_close(Corrector(network)(restored, lq), expected.clamp(0, 1))
    own = torch.cat([network(*half) for half in halves], dim=-1)
    assert not torch.allclose(own, expected, atol=1e-3)


def test_it_works_behind_the_restorer(branch_file, file):
    plain = load_restorer(branch_file, None, torch.device("cpu"))
    behind = load_restorer(branch_file, None, torch.device("cpu"), fidelity=str(file))
    lq, seeds = torch.rand(1, 3, 19, 22), torch.tensor([3])
    padded = torch.nn.functional.pad(lq, (0, 2, 0, 5), mode="reflect")
    assert behind(lq, seeds)[0].shape == lq.shape
    expected = load_corrector(str(file))(plain(padded, seeds)[0], padded)[..., :19, :22]
    torch.testing.assert_close(behind(lq, seeds)[0], expected)


def test_restore_takes_and_records_it(branch_file, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)).save("a.png")

    def run(out, *args):
        assert (
            cli.main(["restore", "a.png", "--checkpoint", str(branch_file), "-o", out, *args]) == 0
        )
        return np.asarray(Image.open(f"{out}/a.png")), json.loads(
            (tmp_path / out / "restoration.json").read_text()
        )

    plain, record = run("plain")
    assert record["fidelity"] is None
    with_it, other = run("with", "--fidelity", str(file), "--fidelity_weight", "0.5")
    assert not np.array_equal(plain, with_it) and other["config_hash"] != record["config_hash"]
    assert (
        other["fidelity"]["name"] == "f.safetensors"
        and other["fidelity"]["weight"] == 0.5
        and len(other["fidelity"]["sha256"]) == 64
    )
    assert np.array_equal(run("none", "--fidelity", "none")[0], plain)


def test_it_is_the_default_behind_the_branch_of_the_package_alone(
    branch_file, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)).save("a.png")

    def used(out, *args):
        assert cli.main(["restore", "a.png", "-o", out, *args]) == 0
        return json.loads((tmp_path / out / "restoration.json").read_text())["fidelity"]

    assert used("shipped")["name"] == "fidelity.safetensors" and used("shipped")["weight"] == 1.0
    assert (
        used("without", "--fidelity", "none") is None
        and used("own", "--checkpoint", str(branch_file)) is None
    )


def test_test_takes_it_too(tiny, file, tmp_path):
    def psnr(*args):
        assert (
            cli.main(["test", "-c", tiny(), *args, "--trainer.default_root_dir", str(tmp_path)])
            == 0
        )

    psnr("--model.init_args.fidelity", str(file))


def test_what_is_no_fidelity_network_is_refused(tmp_path, branch_file, file):
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("no")
    for name, message in [
        ("none.safetensors", "no such file"),
        ("other.safetensors", "format is None"),
        ("text.safetensors", "not a fidelity"),
    ]:
        with pytest.raises(ValueError, match=message):
            load_corrector(str(tmp_path / name))
    with pytest.raises(ValueError, match="fidelity_weight is 1.5"):
        load_corrector(str(file), 1.5)
    save_fidelity(tmp_path / "deep.safetensors", trained(widths=(4, 4, 4, 4)))
    with pytest.raises(ValueError, match="multiples of 16 px, this backbone of 8 px"):
        load_restorer(
            branch_file, None, torch.device("cpu"), fidelity=str(tmp_path / "deep.safetensors")
        )


def test_a_file_with_a_cleaner_and_a_deblurrer(tmp_path):
    network, generator = (
        Fidelity((4, 4), 1, cleaner=((6, 4), 1, True), deblurrer=((4, 6), 2, False)),
        torch.Generator().manual_seed(3),
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    save_fidelity(tmp_path / "f.safetensors", network)
    found = load_corrector(str(tmp_path / "f.safetensors"))
    assert found.network.sizes == network.sizes
    assert found.network.cleaner.sizes == ((6, 4), 1, True)
    assert found.network.deblurrer.sizes == ((4, 6), 2, False)
    restored, lq = torch.rand(2, 1, 3, 16, 16)
    expected = Corrector(network)(restored, lq)
    torch.testing.assert_close(found(restored, lq), expected, rtol=0, atol=2e-2)


def cleaning() -> Fidelity:
    network, generator = Fidelity((4, 4), 1, cleaner=((4, 4), 1, False)), torch.Generator()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator.manual_seed(0)))
    return network


def test_the_cleaner_of_a_large_image_sees_the_whole_scene(monkeypatch):
    monkeypatch.setattr(corrector, "TILE", 32)
    monkeypatch.setattr(corrector, "OVERLAP", 0)
    network = cleaning()
    restored, lq = torch.rand(2, 1, 3, 32, 64)
    lq[..., 32:] *= 0.1
    parts = [slice(0, 32), slice(32, 64)]

    def tiled(one: Fidelity, first, second):
        halves = [(first[..., part], second[..., part]) for part in parts]
        shared = (one.statistics(*halves[0]) + one.statistics(*halves[1])) / 2
        return torch.cat([one.correct(*half, statistics=shared) for half in halves], -1).clamp(0, 1)

    cleaned = tiled(network.cleaner, lq, lq)
    expected = corrector.trusted(tiled(network, restored, cleaned), cleaned)
    torch.testing.assert_close(Corrector(network)(restored, lq), expected)
    half = Corrector(network, 0.5)(restored, lq)
    torch.testing.assert_close(half, (restored + expected) / 2)


def test_a_deblurrer_sees_what_the_cleaner_leaves(monkeypatch):
    monkeypatch.setattr(fidelity, "BLURRED", (0.0, 1e-9))
    monkeypatch.setattr(fidelity, "SHARPER", (0.0, 1e-9))
    network, draw = Fidelity((4,), 1, cleaner=((4,), 1, False), deblurrer=((4,), 1, False)), 0
    for unet in (network.cleaner.correction, network.deblurrer.correction, network.correction):
        torch.manual_seed(draw := draw + 1)
        torch.nn.init.normal_(unet.leave.weight, std=0.3)
    restored, lq = torch.rand(2, 1, 3, 16, 16)
    clean = network.cleaner.correct(lq, lq).clamp(0, 1)
    sharp = network.deblurrer.correct(clean, clean).clamp(0, 1)
    expected = corrector.trusted(network.correct(restored, sharp).clamp(0, 1), sharp)
    assert (sharp - clean).abs().max() > 0.05
    torch.testing.assert_close(Corrector(network)(restored, lq), expected.detach())


def test_small_changes_of_light_are_not_trusted():
    cleaned = torch.rand(4, 3, 16, 24, generator=torch.Generator().manual_seed(0)) / 2
    detail = 0.2 * (torch.arange(24) % 2 - 0.5)  # the mean of a cell keeps none of it
    low, high = corrector.QUIET, corrector.LOUD
    light = torch.tensor([0, low, (low + high) / 2, 2 * high])[:, None, None, None]
    corrected = cleaned + detail + light
    share = torch.tensor([0, 0, 0.5, 1])[:, None, None, None]
    expected = cleaned + share * (detail + light)
    torch.testing.assert_close(corrector.trusted(corrected, cleaned), expected)


def test_where_the_light_is_probably_right_nothing_is_corrected(monkeypatch):
    """Between the bounds half of the correction counts, and the lit image is the other half."""
    torch.manual_seed(0)
    network = Fidelity((4, 4), 1, light=(4, 1))
    network.correction.leave.bias.data.view(5, 4)[2:] = 0.3  # brighter by far
    restored, lq = torch.rand(2, 3, 3, 16, 16) / 3
    low, high = corrector.DAMAGE
    better = torch.tensor([low, (low + high) / 2, high])
    monkeypatch.setattr(network, "lit", lambda cleaned: (cleaned, better))
    corrected = network.correct(restored, lq).clamp(0, 1).detach()
    share = torch.tensor([0, 0.5, 1])[:, None, None, None]
    torch.testing.assert_close(Corrector(network)(restored, lq), lq + share * (corrected - lq))
