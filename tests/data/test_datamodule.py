"""The data module: what its settings change, and what it says when data is not there."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lit_mimdit.data.datamodule import FoundIRDataModule
from lit_mimdit.data.image_io import ImageError


def module(
    root: Path, world: int = 1, rank: int = 0, accumulate: int = 1, **changes
) -> FoundIRDataModule:
    data = FoundIRDataModule(**({"root": str(root), "batch_size": 4, "crop": 16} | changes))
    if world * accumulate > 1:
        data.trainer = SimpleNamespace(
            world_size=world, global_rank=rank, accumulate_grad_batches=accumulate
        )
    return data


SPLITS = [(1, 1, None, 8), (2, 1, None, 4), (2, 2, None, 2), (1, 4, 2, 2), (2, 1, 4, 4)]


@pytest.mark.parametrize("world, accumulate, micro, expected", SPLITS)
def test_the_batch_is_split_over_processes_and_accumulation(
    data_root, world, accumulate, micro, expected
):
    assert (
        module(data_root, world, 0, accumulate, batch_size=8, micro_batch=micro).per_step()
        == expected
    )


@pytest.mark.parametrize(
    "world, accumulate, micro, made",
    [(3, 1, None, 6), (1, 1, 3, 3), (2, 2, 4, 16), (16, 1, None, 0)],
)
def test_a_split_that_does_not_come_out_is_an_error_with_its_sum(
    data_root, world, accumulate, micro, made
):
    with pytest.raises(
        ValueError,
        match=(
            rf"data.batch_size is 8, but {world} processes x {accumulate} accumulated .* make"
            rf" {made}: change"
        ),
    ):
        module(data_root, world, 0, accumulate, batch_size=8, micro_batch=micro).per_step()


def test_two_ranks_see_the_batches_of_one_process(data_root):
    alone = next(iter(module(data_root).train_dataloader()))
    ranks = [next(iter(module(data_root, 2, rank).train_dataloader())) for rank in range(2)]
    assert sorted(alone["id"]) == sorted(ranks[0]["id"] + ranks[1]["id"])
    for batch in ranks:
        for row, name in enumerate(batch["id"]):
            assert torch.equal(batch["lq"][row], alone["lq"][alone["id"].index(name)])


def first(root: Path, **changes) -> dict:
    return next(iter(module(root, **changes).train_dataloader()))


def test_every_training_setting_changes_the_batches(data_root):
    plain = first(data_root)
    assert plain["lq"].shape == (4, 3, 16, 16)
    assert first(data_root, batch_size=2)["lq"].shape == (2, 3, 16, 16)
    assert first(data_root, crop=24)["lq"].shape == (4, 3, 24, 24)
    assert first(data_root, seed=1)["id"] != plain["id"]
    assert first(data_root, train="val.txt", batch_size=2)["id"] != plain["id"][:2]
    for augment in ("none", "flip"):
        other = first(data_root, augment=augment)
        assert other["id"] == plain["id"] and not torch.equal(other["lq"], plain["lq"])
    for same in ({"cache": True}, {"workers": 1}):
        assert torch.equal(first(data_root, **same)["lq"], plain["lq"])
    assert module(data_root, workers=1).train_dataloader().num_workers == 1
    assert module(data_root, cache=True).train_dataloader().dataset.source.decoded == {}


def test_what_the_model_sees_are_floats_of_the_bytes_that_the_loader_gives(data_root):
    for split, changes in (("train", {}), ("val", {}), ("test", {"eval_crop": 24})):
        data = module(data_root, **changes)
        batch = next(iter(getattr(data, f"{split}_dataloader")()))
        seen = data.on_after_batch_transfer(batch, 0)
        for side in ("lq", "gt"):
            assert batch[side].dtype == torch.uint8 and seen[side].dtype == torch.float32
            assert torch.equal(seen[side], batch[side].float() / 255) and seen[side].max() > 0.1
        assert {key: seen[key] for key in ("id", "seed")} == {
            key: batch[key] for key in ("id", "seed")
        }
    photo = next(
        iter(
            module(
                data_root, predict=str(data_root / "test" / "01Blur" / "GT")
            ).predict_dataloader()
        )
    )
    assert module(data_root).on_after_batch_transfer(photo, 0) is photo


def test_evaluation_takes_each_pair_once_in_order_whole_or_cut(data_root):
    data = module(data_root)
    whole = list(data.val_dataloader())
    assert [batch["id"] for batch in whole] == [
        ["val/01Blur/0001"],
        ["val/05Noise/0005"],
    ] and whole[0]["lq"].shape == (1, 3, 48, 48)
    many = [batch["id"][0] for batch in module(data_root, val="train.txt").val_dataloader()]
    assert many == [
        f"train/{kind}/{i + 1:04d}"
        for first, kind in ((0, "01Blur"), (20, "05Noise"))
        for i in range(first, first + 5)
    ]
    both = list(module(data_root, eval_batch_size=2, eval_crop=24).test_dataloader())
    assert (
        len(both) == 1
        and both[0]["lq"].shape == (2, 3, 24, 24)
        and both[0]["id"][0].startswith("test/")
    )
    parts = [list(module(data_root, 2, rank).val_dataloader()) for rank in range(2)]
    assert [[name for batch in part for name in batch["id"]] for part in parts] == [
        ["val/01Blur/0001"],
        ["val/05Noise/0005"],
    ]


def test_without_a_meta_file_the_test_folders_are_read(data_root):
    ids = [batch["id"][0] for batch in module(data_root / "test", test=None).test_dataloader()]
    assert ids == ["01Blur/0001", "05Noise/0005"]


def test_a_missing_root_names_the_command_that_makes_one(tmp_path):
    with pytest.raises(
        ValueError,
        match=(
            r"data.root: there is no folder '.*gone'; `python -m lit_mimdit sample-data .*gone`"
            r" writes"
        ),
    ):
        module(tmp_path / "gone").train_dataloader()


def test_sample_data_is_written_if_nothing_is_there_and_never_over_something(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(
        "lit_mimdit.data.datamodule.write_sample_data",
        lambda root, **options: written.append((root, options)),
    )
    module(tmp_path / "new", sample_data=True, seed=3).prepare_data()
    module(tmp_path / "other", sample_data=False).prepare_data()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    module(tmp_path / "full", sample_data=True).prepare_data()
    assert written == [(tmp_path / "new", {"seed": 3})]


def test_missing_and_unequal_files_are_named(data_root, tmp_path):
    root = shutil.copytree(data_root, tmp_path / "copy")
    lq = sorted((root / "train" / "05Noise" / "LQ").iterdir())
    Image.fromarray(np.zeros((48, 47, 3), np.uint8)).save(lq[0])
    faults = [
        fault
        for batch in module(root, batch_size=1).train_dataloader()
        for fault in batch.get("faults", [])
    ]
    assert [(fault.id, fault.lost) for fault in faults] == [(f"train/05Noise/{lq[0].stem}", True)]
    assert "have different sizes, 47 x 48 and 48 x 48" in faults[0].reason
    with pytest.raises(
        ImageError,
        match=f"pair train/05Noise/{lq[0].stem}: .* have different sizes, 47 x 48 and 48 x 48",
    ):
        list(module(root, val="train.txt").val_dataloader())
    lq[1].unlink()
    with pytest.raises(ValueError, match=lq[1].name):
        module(root).train_dataloader()
    (root / "val.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"data.val: .*val.txt names no pairs"):
        module(root).val_dataloader()


def test_predict_takes_a_file_or_a_folder_and_deals_it_out(data_root, tmp_path):
    source = data_root / "test" / "01Blur"
    names = [
        (str(name), seed)
        for name, photo, seed in module(data_root, predict=str(source), seed=4).predict_dataloader()
    ]
    assert names == [("GT/0001.png", 4), ("LQ/0001.png", 4)]
    shares = [
        [
            str(item[0])
            for item in module(data_root, 2, rank, predict=str(source)).predict_dataloader()
        ]
        for rank in range(2)
    ]
    assert shares == [["GT/0001.png"], ["LQ/0001.png"]]
    (one,) = module(data_root, predict=str(source / "GT" / "0001.png")).predict_dataloader()
    assert str(one[0]) == "0001.png" and one[1].rgb.shape == (3, 48, 48)
    (tmp_path / "bad.png").write_bytes(b"no")
    ((_, photo, _),) = module(data_root, predict=str(tmp_path)).predict_dataloader()
    assert isinstance(photo, ImageError) and "bad.png" in str(photo)


def test_predict_says_what_is_missing_and_takes_what_is_double(data_root, tmp_path):
    with pytest.raises(ValueError, match="data.predict names nothing to restore"):
        module(data_root).predict_dataloader()
    with pytest.raises(ValueError, match="no such folder"):
        module(data_root, predict=str(tmp_path / "gone")).predict_dataloader()
    with pytest.raises(ValueError, match="data.predict: no images in"):
        module(data_root, predict=str(tmp_path)).predict_dataloader()
    for name in ("a.png", "a.jpg"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / name)
    names = [name for name, _, _ in module(data_root, predict=str(tmp_path)).predict_dataloader()]
    assert names == [Path("a.jpg.png"), Path("a.png.png")]


@pytest.mark.parametrize(
    "wrong",
    [{"batch_size": 0}, {"crop": 0}, {"eval_batch_size": 0}, {"micro_batch": 0}, {"workers": -1}],
)
def test_impossible_settings(data_root, wrong):
    with pytest.raises(ValueError, match=f"data.{next(iter(wrong))} is"):
        module(data_root, **wrong)
    with pytest.raises(ValueError, match="data.eval_batch_size is 2: .* set data.eval_crop"):
        module(data_root, eval_batch_size=2)
