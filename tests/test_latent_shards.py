"""Training from stored latents is training from the images they were made of."""

from pathlib import Path

import pytest
import torch

from lit_mimdit import cli
from lit_mimdit.data.check import check
from lit_mimdit.data.datamodule import FoundIRDataModule
from lit_mimdit.data.shards.write import shard
from lit_mimdit.latent_shards import latents

LAST = Path("runs/quickstart/checkpoints/last.ckpt")


@pytest.fixture
def tiles(data_root, tmp_path) -> Path:
    """Tiles of the training crop."""
    shard(data_root, tmp_path / "tiles", meta=Path("train.txt"), tile=32, shard_pairs=5, workers=1)
    return tmp_path / "tiles"


def batches(place: Path, data_root: Path, **changes) -> list[dict]:
    data = FoundIRDataModule(
        str(data_root),
        **({"batch_size": 4, "crop": 32, "augment": "dihedral", "train": str(place)} | changes),
    )
    return list(data.train_dataloader())


def test_the_same_training_without_the_vae(tiny, tiles, backbone_folder, tmp_path):
    results = []
    latents(
        tiles,
        tmp_path / "z",
        backbone=str(backbone_folder),
        augment="dihedral",
        dtype="float32",
        device="cpu",
    )
    for place in (tiles, tmp_path / "z"):
        config = tiny(
            **{
                "data.init_args.train": str(place),
                "data.init_args.augment": "dihedral",
                "trainer.limit_val_batches": 0,
            }
        )
        assert cli.main(["fit", "-c", config]) == 0
        results.append(torch.load(LAST, map_location="cpu", weights_only=True)["state_dict"])
        LAST.unlink()
    for name, tensor in results[0].items():
        torch.testing.assert_close(results[1][name], tensor, rtol=1e-3, atol=1e-4)


def test_what_does_not_fit_is_refused_and_a_sample_differs_from_the_mode(
    tiles, data_root, backbone_folder, tmp_path
):
    latents(tiles, tmp_path / "z", backbone=str(backbone_folder), device="cpu")
    with pytest.raises(ValueError, match="set data.augment to none, or write them with"):
        batches(tmp_path / "z", data_root)
    with pytest.raises(ValueError, match="set data.crop to it"):
        batches(tmp_path / "z", data_root, augment="none", crop=16)
    mode, images = (
        batches(tmp_path / "z", data_root, augment="none")[0],
        batches(tiles, data_root, augment="none")[0],
    )
    sample = batches(tmp_path / "z", data_root, augment="none", latents="sample")[0]
    assert mode["id"] == images["id"] and mode["seed"].tolist() == images["seed"].tolist()
    assert torch.equal(sample["z_lq"], mode["z_lq"]) and not torch.equal(
        sample["z_gt"], mode["z_gt"]
    )
    assert check(tmp_path / "z", contact_sheet=None) == 0
    tar = tmp_path / "z" / "shard-000001.tar"
    tar.write_bytes(tar.read_bytes()[:-20000])
    assert check(tmp_path / "z", contact_sheet=None) >= 2, "the shard, and a pair in it"
    with pytest.raises(ValueError, match="holds latents already"):
        latents(tmp_path / "z", tmp_path / "zz", backbone=str(backbone_folder))


def test_another_vae_is_refused(tiny, tiles, tmp_path, capsys):
    latents(tiles, tmp_path / "z", backbone="nano", device="cpu")
    config = tiny(**{"data.init_args.train": str(tmp_path / "z"), "data.init_args.augment": "none"})
    assert cli.main(["fit", "-c", config]) == 2
    assert (
        "holds latents of the VAE of 'nano', and model.backbone has another"
        in capsys.readouterr().err
    )
