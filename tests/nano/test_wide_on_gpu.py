"""experiments/nano/wide_pack.py and wide_on_gpu.py: a pack, a small run on a CPU, and what goes
on."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lit_mimdit.data import photographs
from lit_mimdit.data.image_io import read_rgb
from lit_mimdit.inference.corrector import load_corrector
from lit_mimdit.nano.wide_fidelity import WideFidelity
from lit_mimdit.systems.optim import OptimizerConfig

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments" / "nano"))

import wide_on_gpu
import wide_pack
import wide_variants


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wide")
    cat = photographs.load("chelsea")
    generator = np.random.default_rng(0)
    for name, image in (("train/a", cat[:200, :300]), ("val/b", cat[100:260, 100:300])):
        (folder / name).parent.mkdir()
        Image.fromarray(image).save(folder / f"{name}.png")
    for kind in ("noise", "clean"):
        for number in range(3):
            gt = cat[number * 20 : number * 20 + 100, :90]
            noise = generator.normal(0, 20 if kind == "noise" else 0, gt.shape)
            lq = (gt + noise).clip(0, 255).astype(np.uint8)
            for side, image in (("lq", lq), ("gt", gt)):
                path = folder / kind / side / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path)
    pairs = [f"{kind}={folder / kind}" for kind in ("noise", "clean")]
    options = ["--count", "2", "--side", "32", "--limit", "0.2"]
    wide_pack.main([str(folder), "-o", str(folder / "pack"), *options, "--pairs", *pairs])
    return folder


def test_a_pack_is_small_and_its_pairs_are_not_changed(pack):
    files = sorted(path.relative_to(pack / "pack") for path in (pack / "pack").rglob("*.webp"))
    assert len(files) == 2 + 2 * 2 * 2 and wide_pack.size(pack / "pack") < 0.2 * 2**20
    lq = read_rgb(pack / "pack/pairs/noise/lq/2.webp")
    assert lq.shape == (64, 64, 3)  # a small set has twice the side
    assert np.array_equal(lq, read_rgb(pack / "noise/lq/2.png")[18:82, 13:77])
    assert read_rgb(pack / "pack/train/000_a.webp").shape == (200, 300, 3)


def test_what_does_not_fit_is_said(pack, tmp_path):
    with pytest.raises(SystemExit, match=r"leave no room within 0\.001 MiB"):
        wide_pack.main([str(pack), "-o", str(tmp_path / "pack"), "--limit", "0.001"])
    for side, name in (("lq", "a"), ("gt", "b")):
        (tmp_path / side).mkdir()
        Image.new("RGB", (32, 32)).save(tmp_path / side / f"{name}.png")
    with pytest.raises(ValueError, match="no pairs"):
        wide_pack.pack_pairs(tmp_path, tmp_path / "none", 2, 32)


def run(pack, tmp_path, *more):
    arguments = [str(pack / "pack"), "-o", str(tmp_path / "out"), "--tiny", "--device", "cpu"]
    arguments += ["--state", str(tmp_path / "state.pt"), "--crop", "32", "--batch", "2"]
    wide_on_gpu.main([*arguments, "--workers", "0", "--reserve", "60", *more])


def test_a_small_run_leaves_networks_scores_and_a_state_to_go_on_from(pack, tmp_path, capsys):
    run(pack, tmp_path, "--steps", "3", "--seconds", "300")
    said = capsys.readouterr().out
    assert "trained on 6 crops" in said and "| noise | " in said and "| val_haze | " in said
    names = [variant.name for variant in wide_variants.TINY]
    assert f"| set | degraded | {' | '.join(names)} |" in said
    network = load_corrector(str(tmp_path / "out" / f"{names[0]}.safetensors")).network
    assert network.gain and network.widths == (8, 8)
    with open(tmp_path / "out" / "scores.csv", encoding="utf-8") as file:
        scores = list(csv.DictReader(file))
    assert len(scores) == 2 * (2 + 2 + 7 * 16)
    # after three steps of a warm-up hardly anything has changed
    clean = [row for row in scores if row["set"] == "clean"]
    assert all(float(row["degraded"]) == 60 and float(row["restored"]) > 35 for row in clean)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["batches"] == 3 and state["variants"][names[1]]["updates"] == 3

    run(pack, tmp_path, "--steps", "2", "--seconds", "300")
    assert "goes on after 3 batches" in capsys.readouterr().out
    after = torch.load(tmp_path / "state.pt", weights_only=True)
    assert after["batches"] == 5 and after["variants"][names[1]]["updates"] == 5


def test_time_ends_every_phase(pack, tmp_path, capsys):
    run(pack, tmp_path, "--seconds", "5", "--only", "relative")
    said = capsys.readouterr().out
    assert "trained on 0 crops" in said and "no time was left for clean" in said
    assert (tmp_path / "out" / "relative.safetensors").is_file()


def test_variants_see_one_stream_which_goes_on_where_it_ended(pack):
    options = {"pack": pack / "pack", "crop": 32, "batch": 2, "seed": 0, "dim": 0.2, "workers": 0}
    whole, later = (
        wide_on_gpu.stream(wide_on_gpu.argparse.Namespace(**options), first, False)
        for first in (0, 1)
    )
    lq, _ = next(whole)
    second, again = next(whole), next(later)
    assert lq.dtype == torch.uint8 and not torch.equal(lq, second[0])
    assert all(map(torch.equal, second, again))


@pytest.mark.parametrize("smooth", [0.0, 0.02])
def test_the_error_is_that_of_wide_fidelity(tmp_path, smooth):
    training = WideFidelity(OptimizerConfig(lr=1.0), str(tmp_path / "x"), smooth=smooth)
    images = torch.rand(2, 3, 3, 16, 16)
    variant = wide_variants.Variant("x", (8, 8), relative=False, smooth=smooth)
    own = wide_variants.loss_of(variant, images[0], images[0], images[1])
    torch.testing.assert_close(own, training.error(*images).mean())


def test_harm_costs_more_than_help_brings():
    gt = torch.zeros(2, 3, 8, 8)
    lq, output = gt + 0.2, torch.stack([gt[0] + 0.1, gt[1] + 0.3])
    variant = wide_variants.Variant("x", (8, 8), relative=False, smooth=0.0, harm=4.0)
    # 0.1, and 0.3 + 4 (0.3 - 0.2)
    assert wide_variants.loss_of(variant, output, lq, gt).item() == pytest.approx(0.4)
    weighed = wide_variants.Variant("x", (8, 8), smooth=0.0, harm=4.0)
    assert wide_variants.loss_of(weighed, output, lq, gt).item() == pytest.approx(0.4 / 0.3)


def test_networks_of_an_earlier_run_are_a_start(tmp_path):
    variant, cpu = wide_variants.TINY[0], torch.device("cpu")
    first = wide_variants.Training(variant, cpu, None)
    batch = torch.rand(2, 2, 3, 32, 32)
    for _ in range(2):
        first.step(*batch, 1e-2)
    wide_on_gpu.save_fidelity(tmp_path / f"{variant.name}.safetensors", first.average)
    again = wide_variants.Training(variant, cpu, tmp_path)
    for one, other in zip(first.average.parameters(), again.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)
    assert any(
        (p != q).any()
        for p, q in zip(
            first.network.parameters(),
            wide_variants.Training(variant, cpu, None).network.parameters(),
            strict=True,
        )
    )
