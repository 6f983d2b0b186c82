"""experiments/nano/wide_scores.py: networks behind a branch, on pairs that it restores once."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lit_mimdit.data import photographs
from lit_mimdit.evaluation.pixel import psnr
from lit_mimdit.inference.corrector import load_corrector
from lit_mimdit.inference.fidelity_file import save_fidelity
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.spots import without_spots
from lit_mimdit.models.fidelity import Fidelity

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments" / "nano"))

import wide_scores


@pytest.fixture
def folder(tmp_path):
    cat = photographs.load("chelsea")[:96, :96]
    noise = np.random.default_rng(0).normal(0, 25, (40, 40, 3))
    for kind in ("noise", "clean"):
        for number in range(2):
            gt = cat[number * 8 :, number * 8 :][:40, :40]
            lq = (gt + noise).clip(0, 255).astype(np.uint8) if kind == "noise" else gt
            for side, image in (("lq", lq), ("gt", gt)):
                path = tmp_path / "pairs" / kind / side / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path)
    return tmp_path


def scores(folder, *networks, options=()):
    more = [*options, *(["--networks", *networks] if networks else [])]
    wide_scores.main([str(folder / "pairs"), "-o", str(folder / "out"), *more])
    with open(folder / "out/scores.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def tensor(folder, name):
    pixels = np.array(Image.open(folder / "pairs" / name))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def test_scores_are_those_of_restore(folder, capsys):
    rows = scores(folder, "package")
    assert len(rows) == 2 * 4
    said = capsys.readouterr().out
    assert "| set | degraded | branch | package |" in said and "| clean | 60.00 | " in said
    lq, gt = (tensor(folder, f"noise/{side}/1.png") for side in ("lq", "gt"))
    for network, fidelity in (("branch", None), ("package", "package")):
        restorer = load_restorer(None, dtype="auto", fidelity=fidelity)
        if fidelity is None:
            restorer = restorer.corrected_by(None)
        whole, _ = restorer(lq, torch.tensor([0]))
        (row,) = (
            row
            for row in rows
            if (row["variant"], row["set"], row["image"]) == (network, "noise", "1")
        )
        # `restore --dtype auto` may compute the network behind in bfloat16
        assert float(row["restored"]) == pytest.approx(psnr(whole, gt).item(), abs=0.05)
        assert float(row["degraded"]) == pytest.approx(psnr(lq, gt).item(), abs=1e-4)


def test_a_second_network_does_not_ask_the_branch_again(folder, monkeypatch):
    scores(folder)
    (kept,) = (folder / "out").glob("branch-*/noise/0.pt")
    torch.save(tensor(folder, "noise/gt/0.png"), kept)  # a branch that is right
    network = Fidelity((8, 8), 1)
    with torch.no_grad():
        network.correction.leave.bias.view(5, 4)[:2] = -20.0  # a = b = 0: the branch is believed
    save_fidelity(folder / "trusting.safetensors", network)
    rows = scores(folder, str(folder / "trusting.safetensors"))
    found = {(row["variant"], row["set"], row["image"]): float(row["restored"]) for row in rows}
    assert found["branch", "noise", "0"] == found["trusting", "noise", "0"] == 60
    assert found["branch", "noise", "1"] < 40


def test_the_share_of_each_part(folder):
    rows = scores(folder, "package", options=["--share"])
    found = {(row["variant"], row["set"], row["image"]): float(row["restored"]) for row in rows}
    assert len(found) == 5 * 4
    lq, gt = (tensor(folder, f"noise/{side}/0.png") for side in ("lq", "gt"))
    network = load_corrector("package")
    twice, _ = load_restorer(None, dtype="auto", steps=2).corrected_by(None)(lq, torch.tensor([0]))
    for column, expected in (
        ("two steps", twice),
        ("package, two steps", without_spots(network(twice, lq), lq)),
        ("package, alone", without_spots(network(lq, lq), lq)),
    ):
        score = psnr(expected, gt).item()
        assert found[column, "noise", "0"] == pytest.approx(score, abs=0.05)


def test_missing_weights_are_said(folder, monkeypatch, tmp_path):
    monkeypatch.setattr("lit_mimdit.evaluation.weights.places", lambda *_: [])
    with pytest.raises(ValueError, match="lpips: .*weights"):
        wide_scores.main([str(folder / "pairs"), "-o", str(folder / "out"), "--lpips"])
