"""experiments/nano/wide_bank.py and lit_mimdit/data/wide_bank.py: crops that a branch restored."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lit_mimdit.data import photographs
from lit_mimdit.data.wide.mixture import KINDS
from lit_mimdit.data.wide_bank import BankBatches, BankValidation, WideBank, write_batch
from lit_mimdit.inference.corrector import load_corrector
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.nano.wide_fidelity import WideFidelity
from lit_mimdit.systems.optim import OptimizerConfig

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments" / "nano"))

import wide_bank

SETTINGS = ["--batches", "3", "--val_batches", "1", "--batch", "2", "--crop", "32"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    cat = photographs.load("chelsea")
    for split, image in (("train", cat[:200, :300]), ("val", cat[100:260, 100:300])):
        (folder / split).mkdir()
        Image.fromarray(image).save(folder / split / "a.png")
    return folder


@pytest.fixture(scope="module")
def bank(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bank")
    for part in ("1/2", "0/2"):
        wide_bank.main([str(photos), "-o", str(folder), *SETTINGS, "--part", part])
    return folder


def test_parts_make_the_whole(bank):
    files = sorted(str(path.relative_to(bank)) for path in bank.rglob("*.npy"))
    kinds = sorted(f"val/{kind}-0.npy" for kind in [*KINDS, "clean"])
    assert files == [f"train/{number:06d}.npy" for number in range(3)] + kinds
    made_by = json.loads((bank / "made_by.json").read_text())
    assert made_by["settings"] == {"batch": 2, "crop": 32, "dim": 0.1, "seed": 0}
    assert made_by["restoration"]["fidelity"] is None
    assert made_by["restoration"]["checkpoint"]["name"] == "branch.safetensors"


def test_a_crop_is_restored_as_restore_does_without_the_fidelity_network(bank):
    lq, gt, restored = torch.from_numpy(np.load(bank / "train/000001.npy"))
    assert not torch.equal(lq[0], lq[1])
    restorer = load_restorer(None, dtype="auto").corrected_by(None)
    found, _ = restorer(lq.float() / 255, torch.tensor([2, 3]))
    assert torch.equal(restored, (found * 255).round().byte())
    clean = torch.from_numpy(np.load(bank / "val/clean-0.npy"))
    assert torch.equal(clean[0], clean[1]) and not torch.equal(clean[1], clean[2])


def test_what_is_there_stays(bank, photos):
    path = bank / "train/000002.npy"
    before = path.read_bytes()
    path.write_bytes(b"kept")
    again = bank / "train/000000.npy"
    made = again.read_bytes()
    again.unlink()
    wide_bank.main([str(photos), "-o", str(bank), *SETTINGS])
    assert path.read_bytes() == b"kept" and again.read_bytes() == made
    path.write_bytes(before)


def test_another_bank_needs_another_folder(bank, photos):
    before = (bank / "made_by.json").read_bytes()
    with pytest.raises(ValueError, match=r"made with other settings.* give another folder"):
        wide_bank.main([str(photos), "-o", str(bank), *SETTINGS, "--seed", "1"])
    assert (bank / "made_by.json").read_bytes() == before


@pytest.mark.parametrize("text", ["2/2", "-1/2", "1"])
def test_a_part_is_one_of_them(text, photos, tmp_path, capsys):
    with pytest.raises(SystemExit):
        wide_bank.main([str(photos), "-o", str(tmp_path), "--part", text])
    assert "--part" in capsys.readouterr().err


def numbered(folder, side=12):
    """A bank whose pixels tell the place: red the row, green the column, blue the crop; 10 more in
    the clean crop, 20 in the restored one.
    """
    rows, columns = np.mgrid[:side, :side]
    for number in range(2):
        crops = [np.stack([rows, columns, rows * 0 + 4 * number + crop]) for crop in range(3)]
        lq = torch.from_numpy(np.stack(crops).astype(np.uint8))
        write_batch(folder / f"train/{number:06d}.npy", lq, lq + 10, (lq + 20).float() / 255)
    write_batch(folder / "val/low_light-0.npy", lq, lq, lq.float() / 255)
    return folder


def test_the_three_images_of_a_crop_are_cut_and_turned_alike(tmp_path):
    files = sorted(numbered(tmp_path).glob("train/*"))
    batches = BankBatches(files, 8, 16, 10, seed=3)
    seen = [batches[index] for index in range(10)]
    crops, turned = set(), set()
    for batch in seen:
        lq, gt, restored = ((255 * batch[name]).round().int() for name in ("lq", "gt", "restored"))
        assert torch.equal(gt, lq + 10) and torch.equal(restored, lq + 20)
        assert lq.shape == (16, 3, 8, 8)
        for rows, columns, which in lq:
            steps = [int(plane[0, 1] - plane[0, 0]) for plane in (rows, columns)]
            steps += [int(plane[1, 0] - plane[0, 0]) for plane in (rows, columns)]
            turned.add(tuple(steps))
            crops.add(int(which[0, 0]))
            assert rows.max() - rows.min() == columns.max() - columns.min() == 7
    assert crops == {0, 1, 2, 4, 5, 6} and len(turned) == 8


def test_a_batch_is_a_function_of_seed_epoch_and_index(tmp_path):
    files = sorted(numbered(tmp_path).glob("train/*"))
    batches, other = BankBatches(files, 8, 4, 3, 0), BankBatches(files, 8, 4, 3, 1)
    first = batches[1]["lq"]
    assert torch.equal(first, batches[1]["lq"])
    assert not torch.equal(first, batches[2]["lq"]) and not torch.equal(first, other[1]["lq"])
    batches.epoch = 1
    assert not torch.equal(first, batches[1]["lq"])
    with pytest.raises(IndexError):
        batches[3]


def test_validation_names_the_kind(tmp_path):
    (batch,) = BankValidation(sorted(numbered(tmp_path).glob("val/*")))
    assert batch["kind"] == "low_light" and batch["restored"].shape == (3, 3, 12, 12)


def test_settings_are_checked(tmp_path):
    for wrong, text in (
        ({"crop": 0}, r"data\.crop is 0"),
        ({"batches": 0}, r"data\.batches 0"),
        ({"workers": -1}, r"data\.workers is -1"),
    ):
        with pytest.raises(ValueError, match=text):
            WideBank(str(tmp_path), **wrong)
    with pytest.raises(ValueError, match=r"train has no crops; experiments/nano/wide_bank\.py"):
        WideBank(str(tmp_path)).setup("fit")
    numbered(tmp_path)
    with pytest.raises(ValueError, match=r"data\.crop is 16: .* have 12 px"):
        WideBank(str(tmp_path), crop=16).setup("fit")


def test_the_network_learns_behind_the_branch(bank, two_epochs, tmp_path):
    """It is told what the branch restored: a branch that is right is believed within few steps."""
    for path in sorted(bank.rglob("*.npy")):
        lq, gt, _ = torch.from_numpy(np.load(path))
        write_batch(tmp_path / path.relative_to(bank), lq, gt, gt.float() / 255)
    training = WideFidelity(
        optimizer=OptimizerConfig(lr=5e-3),
        output=str(tmp_path / "network.safetensors"),
        widths=(8, 8),
        blocks=1,
        kind="l1",
    )
    trainer = two_epochs(training, WideBank(str(tmp_path), crop=32, batch_size=4, batches=40))
    gains = {name: float(trainer.callback_metrics[f"val/{name}"]) for name in ("noise", "haze")}
    assert min(gains.values()) > 5
    corrector = load_corrector(str(tmp_path / "network.safetensors"))
    lq, gt, _ = torch.from_numpy(np.load(bank / "val/haze-0.npy")).float() / 255
    assert (corrector(gt, lq) - gt).abs().mean() < 0.5 * (corrector(lq, lq) - gt).abs().mean()


def test_emphasis_draws_damaged_crops_more_often(tmp_path):
    clean = torch.full((4, 3, 8, 8), 100, dtype=torch.uint8)
    damaged = clean.clone()
    damaged[1:] += torch.tensor([5, 25, 50]).byte()[:, None, None, None]
    write_batch(tmp_path / "train/000000.npy", damaged, clean, clean.float() / 255)
    files = [tmp_path / "train/000000.npy"]
    expected = {0: np.full(4, 0.25)}
    for emphasis in (0.5, 1.0):
        weights = (np.array([0, 5, 25, 50]) / 255 + 0.01) ** emphasis
        expected[emphasis] = weights / weights.sum()
    for emphasis, share in expected.items():
        batches = BankBatches(files, 8, 100, 10, seed=0, emphasis=emphasis)
        seen = torch.cat([batches[index]["lq"] for index in range(10)])[:, 0, 0, 0]
        counts = torch.bincount((255 * seen).round().long())[[100, 105, 125, 150]]
        assert counts.sum() == 1000
        assert np.abs(counts.numpy() / 1000 - share).max() < 0.05
    with pytest.raises(ValueError, match=r"data\.emphasis is -1: it must be 0 or more"):
        WideBank(str(tmp_path), emphasis=-1)


def test_dark_scenes_can_be_left_out(tmp_path):
    clean = torch.arange(4).mul(51).byte()[:, None, None, None].expand(4, 3, 8, 8).contiguous()
    write_batch(tmp_path / "train/000000.npy", clean, clean, clean.float() / 255)
    files = [tmp_path / "train/000000.npy"]
    batches = BankBatches(files, 8, 50, 2, seed=0, darkest=0.2)
    assert {round(value.item(), 1) for value in batches[0]["gt"].unique()} == {0.2, 0.4, 0.6}
    with pytest.raises(ValueError, match=r"data\.darkest is 0\.7: no crop .* at most 0\.60"):
        BankBatches(files, 8, 1, 1, seed=0, darkest=0.7)
    with pytest.raises(ValueError, match=r"data\.darkest is 1: it is a mean"):
        WideBank(str(tmp_path), darkest=1)
