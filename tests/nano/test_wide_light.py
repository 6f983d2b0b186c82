"""experiments/nano/wide_cells.py, its batches, and the training of a SceneLight on them."""

import math
import sys
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.strategies import SingleDeviceStrategy
from PIL import Image

from lit_mimdit.data import photographs
from lit_mimdit.data.wide_cells import CellBatches, CellValidation, WideCells, store
from lit_mimdit.inference.corrector import Corrector, load_corrector
from lit_mimdit.inference.fidelity_file import read_light, save_fidelity, save_light
from lit_mimdit.models.fidelity import Fidelity
from lit_mimdit.models.scene_light import cells
from lit_mimdit.nano.wide_fidelity import WideFidelity
from lit_mimdit.nano.wide_light import WideLight, cell_error
from lit_mimdit.systems.optim import OptimizerConfig

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments" / "nano"))

import wide_cells


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    photos, made = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("cells")
    cat = photographs.load("chelsea")
    for split, image in (("train", cat[:200, :300]), ("val", cat[100:260, 100:300])):
        (photos / split).mkdir()
        Image.fromarray(image).save(photos / split / "a.png")
    sizes = ["--crop", "32", "64", "--count", "20", "5", "--val_count", "3"]
    wide_cells.main([str(photos), "-o", str(made), *sizes])
    return made


def test_files_hold_cells_of_degraded_and_clean_crops(folder):
    assert sorted(path.name for path in folder.iterdir()) == [
        "train-32.npz",
        "train-64.npz",
        "val-32.npz",
        "val-64.npz",
    ]
    with np.load(folder / "train-32.npz") as held:
        lq, gt = held["lq"].astype(float), held["gt"].astype(float)
    assert lq.shape == (20, 8, 4, 4) and gt.shape == (20, 6, 4, 4)
    apart = np.abs(lq[:, :6] - gt).max((1, 2, 3))
    assert (apart == 0).any() and (apart > 0.02).sum() > 4  # clean ones and damaged ones
    assert (lq[:, 6] <= lq[:, :3].min(1) + 0.01).all() and (
        lq[:, 7] >= lq[:, :3].max(1) - 0.01
    ).all()


def test_as_many_sides_as_numbers(folder, capsys):
    with pytest.raises(SystemExit):
        wide_cells.main([str(folder), "-o", str(folder), "--crop", "32", "--count", "1", "2"])
    assert "--crop has 1 sides and --count 2 numbers" in capsys.readouterr().err


def test_batches_are_a_function_of_their_place(folder):
    batches = CellBatches(sorted(folder.glob("train-*")), 8, 6, seed=3)
    first, again = batches[2], batches[2]
    assert torch.equal(first["lq"], again["lq"])
    sizes = {batches[i]["lq"].shape for i in range(6)}
    assert sizes <= {(128, 8, 4, 4), (32, 8, 8, 8)}
    batches.epoch = 1
    assert not torch.equal(first["lq"], batches[2]["lq"])
    with pytest.raises(IndexError):
        batches[6]


def test_turned_crops_keep_degraded_and_clean_together(tmp_path):
    lq = np.random.default_rng(0).random((3, 8, 4, 4))
    store(tmp_path / "train-32.npz", lq, lq[:, :6])
    batches = CellBatches([tmp_path / "train-32.npz"], 1, 40, seed=0)
    seen = set()
    for index in range(40):
        batch = batches[index]
        assert torch.equal(batch["lq"][:, :6], batch["gt"])
        seen |= {tuple(row.flatten().tolist()) for row in batch["gt"]}
    plain = {tuple(row.flatten().tolist()) for row in torch.from_numpy(lq[:, :6]).half().float()}
    assert len(seen) > 12 and plain & seen


def test_validation_has_every_crop_as_it_is_stored(folder):
    files = sorted(folder.glob("val-*"))
    items = [CellValidation(files)[i] for i in range(2)]
    with np.load(files[0]) as held:
        assert torch.equal(items[0]["lq"], torch.from_numpy(held["lq"]).float())
    assert items[1]["gt"].shape == (3, 6, 8, 8)


def test_missing_cells_and_settings_are_reported(tmp_path):
    with pytest.raises(ValueError, match=r"has no train-\*\.npz; experiments/nano/wide_cells"):
        WideCells(str(tmp_path)).setup("fit")
    with pytest.raises(ValueError, match=r"data\.batches 0: both must be positive"):
        WideCells(str(tmp_path), batches=0)
    for settings in ({"floor": 0}, {"doubt": -1}):
        with pytest.raises(ValueError, match="floor must be positive"):
            WideLight(OptimizerConfig(lr=1e-3), "x", **settings)


def test_cell_error_is_that_of_the_pixels():
    """As long as detail keeps its place, and gain and offset are those of the whole cell."""
    clean = 0.2 + 0.5 * torch.rand(2, 3, 16, 16)
    dark = 0.3 * clean
    gain, offset = torch.full((2, 3, 2, 2), 2.5), torch.full((2, 3, 2, 2), 0.05)
    expected = (2.5 * dark + 0.05 - clean).square().mean((1, 2, 3))
    found = cell_error(gain, offset, cells(dark), cells(clean))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_loss_by_hand():
    """On a network that does nothing yet: no correction is better, so doubt is right."""
    training = WideLight(OptimizerConfig(lr=1e-3), "x", width=8, blocks=1, floor=0.01, doubt=0.5)
    training.log = lambda *_, **__: None
    clean = torch.rand(4, 3, 16, 16)
    lq = torch.cat([0.3 * clean[:2], clean[2:]])
    batch = {"lq": cells(lq), "gt": cells(clean)[:, :6]}
    error = (lq - clean)[:2].double().square().mean((1, 2, 3))
    _, _, logit = training.network(batch["lq"])
    bce = -torch.log(1 - logit.double().sigmoid()).mean()
    expected = (error + 0.01).log().mean() + 0.5 * bce
    assert training.training_step(batch, 0).item() == pytest.approx(expected.item(), rel=1e-3)
    training.doubt = 0
    assert training.training_step({k: v[2:] for k, v in batch.items()}, 0) == 0  # nothing damaged


def test_goes_on_from_a_file(tmp_path):
    before = WideLight(OptimizerConfig(lr=1e-3), "x", width=8, blocks=1)
    file = tmp_path / "light.safetensors"
    save_light(file, before.network.half().float())
    after = WideLight(OptimizerConfig(lr=1e-3), "x", width=8, blocks=1, init=str(file))
    for name, tensor in before.network.state_dict().items():
        assert torch.equal(after.network.state_dict()[name], tensor)
    with pytest.raises(ValueError, match=r"width 8 and 1 blocks, model\.width is 8 and .* 2"):
        WideLight(OptimizerConfig(lr=1e-3), "x", width=8, blocks=2, init=str(file))


@pytest.fixture(scope="module")
def light(folder, two_epochs, tmp_path_factory):
    L.seed_everything(0)
    file = tmp_path_factory.mktemp("light") / "light.safetensors"
    training = WideLight(OptimizerConfig(lr=3e-3, warmup_steps=0), str(file), width=8, blocks=1)
    trainer = two_epochs(training, WideCells(str(folder), 4, 20))
    assert {"val/gain", "val/right"} <= trainer.callback_metrics.keys()
    assert math.isfinite(trainer.callback_metrics["val/gain"])
    return file, training.network


def test_what_was_learnt_is_blended_with_the_start(light, folder, two_epochs, tmp_path):
    file, _ = light
    ends = {}
    for blend in (1.0, 0.25):
        L.seed_everything(0)
        path = tmp_path / f"{blend}.safetensors"
        own = {"width": 8, "blocks": 1, "init": str(file), "blend": blend}
        training = WideLight(OptimizerConfig(lr=3e-3, warmup_steps=0), str(path), **own)
        two_epochs(training, WideCells(str(folder), 4, 20))
        ends[blend] = read_light(path).state_dict()
    start = read_light(file).state_dict()
    assert (ends[1.0]["leave.weight"] - start["leave.weight"]).abs().max() > 0.01
    for name, value in start.items():
        expected = 0.75 * value + 0.25 * ends[1.0][name]
        torch.testing.assert_close(ends[0.25][name], expected, atol=2e-3, rtol=0)
    with pytest.raises(ValueError, match=r"model\.blend is 0\.5 and model\.init None"):
        WideLight(OptimizerConfig(lr=3e-3), "x", blend=0.5)


def test_rates_fall_over_max_time(tmp_path):
    """Also where the epochs are endless; both trainings of the wide networks."""
    timer = Timer(duration={"seconds": 10})
    timer.load_state_dict({"time_elapsed": {"train": 5.0}})
    trainer = SimpleNamespace(
        callbacks=[timer], estimated_stepping_batches=10**8, strategy=SingleDeviceStrategy()
    )
    optimizer = OptimizerConfig(lr=0.2, schedule="cosine")
    for training in (
        WideLight(optimizer, str(tmp_path / "x"), width=8, blocks=1),
        WideFidelity(optimizer, str(tmp_path / "x"), widths=(4,), blocks=1),
    ):
        training._trainer = trainer
        made = training.configure_optimizers()
        assert made["optimizer"].param_groups[0]["lr"] == pytest.approx(0.1, rel=0.01)


def test_training_writes_the_light(light):
    file, network = light
    images = torch.rand(1, 3, 16, 16)
    found = read_light(file)
    assert found.sizes == (8, 1)
    torch.testing.assert_close(found.lit(images)[0], network.lit(images)[0], rtol=0, atol=1e-2)
    assert not torch.allclose(found.lit(images)[0], images, atol=1e-3)


def test_a_light_in_a_network_behind_the_branch(light, tmp_path):
    file, network = light
    training = WideFidelity(
        OptimizerConfig(lr=1e-3),
        str(tmp_path / "f.safetensors"),
        widths=(4, 4),
        blocks=1,
        light=str(file),
    )
    assert not any(p.requires_grad for p in training.network.scene_light.parameters())
    save_fidelity(tmp_path / "f.safetensors", training.network)
    read = load_corrector(str(tmp_path / "f.safetensors"))
    assert read.network.scene_light.sizes == (8, 1) and read.network.cleaner is None
    restored, lq = torch.rand(2, 1, 3, 16, 16)
    torch.testing.assert_close(
        read(restored, lq), Corrector(training.network)(restored, lq), rtol=0, atol=1e-2
    )


def test_other_files_are_no_light(light, tmp_path):
    with pytest.raises(ValueError, match="not the light of a scene"):
        read_light(tmp_path / "none.safetensors")
    save_fidelity(tmp_path / "f.safetensors", Fidelity((4,), 1))
    with pytest.raises(ValueError, match=r"fidelity\.3' and not 'lit_mimdit\.scene_light"):
        read_light(tmp_path / "f.safetensors")
    with pytest.raises(ValueError, match=r"scene_light\.1' and none of"):
        load_corrector(str(light[0]))
