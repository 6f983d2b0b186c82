"""A teacher's results are what it restores from the stored noise, and training takes no others."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lit_mimdit.data.datamodule import FoundIRDataModule
from lit_mimdit.data.shards.manifest import MANIFEST
from lit_mimdit.data.shards.source import ShardSource
from lit_mimdit.data.shards.write import shard
from lit_mimdit.data.shards.writer import done_file
from lit_mimdit.inference.guidance import conditioned
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.sampler import sample
from lit_mimdit.inference.system_file import load_system
from lit_mimdit.latent_shards import latents
from lit_mimdit.models.flow import sample_noise
from lit_mimdit.teacher_shards import identity_of, require_same_teacher, teacher


@pytest.fixture(scope="module")
def stored(data_root, backbone_folder, branch_file, tmp_path_factory) -> dict[str, Path]:
    """Tiles of 16 px, their latents in 2 orientations, and the results of a teacher of 3 steps."""
    folder = tmp_path_factory.mktemp("taught")
    places = {name: folder / name for name in ("tiles", "latents", "taught")}
    sizes = {"tile": 16, "overlap": 0, "shard_pairs": 5, "workers": 1}
    shard(data_root, places["tiles"], meta=Path("train.txt"), **sizes)
    options = {"augment": "flip", "dtype": "float32", "device": "cpu"}
    latents(places["tiles"], places["latents"], backbone=str(backbone_folder), **options)
    sampling = {"steps": 3, "seed": 7, "device": "cpu"}
    teacher(places["latents"], places["taught"], checkpoint=str(branch_file), **sampling)
    return places


def test_each_result_is_what_the_teacher_restores_from_the_stored_noise(stored, branch_file):
    restorer = load_restorer(branch_file, device="cpu")
    config = replace(restorer.config, steps=3)
    source, before = ShardSource(str(stored["taught"])), ShardSource(str(stored["latents"]))
    seeds = set()
    for index in (0, 7):
        for (_, kept), (_, old) in zip(
            source.stored_latents(index)[2], before.stored_latents(index)[2], strict=True
        ):
            assert len(kept) == 2, "an orientation each"
            seeds |= {int(one["noise_seed"]) for one in kept}
            assert torch.equal(kept[1]["lq"], old[1]["lq"])
            z_lq = kept[1]["lq"][None]
            noise = sample_noise(kept[1]["noise_seed"][None], tuple(z_lq.shape[1:]))[0]
            with torch.no_grad():
                look = conditioned(restorer.network, z_lq, restorer.network.prompt, 1.0)
                expected = sample(look.velocity, z_lq, noise, restorer.scheduler, config)
            torch.testing.assert_close(kept[1]["teacher"][None], expected, rtol=0, atol=1e-4)
    assert len(seeds) == 2 * 9 * 2, "every result has noise of its own"


def test_the_same_command_goes_on_to_the_bit(stored, branch_file, tmp_path):
    out, sampling = tmp_path / "taught", {"steps": 3, "seed": 7, "device": "cpu"}
    teacher(stored["latents"], out, checkpoint=str(branch_file), **sampling)
    first, second = (out / f"shard-00000{number}.tar" for number in (0, 1))
    whole, untouched = second.read_bytes(), first.stat().st_mtime_ns
    for gone in (second, done_file(out, second.stem), out / MANIFEST):
        gone.unlink()
    teacher(stored["latents"], out, checkpoint=str(branch_file), **sampling)
    assert second.read_bytes() == whole == (stored["taught"] / second.name).read_bytes()
    assert first.stat().st_mtime_ns == untouched
    with pytest.raises(ValueError, match=r"other settings \(noise_seed differ"):
        teacher(stored["latents"], out, checkpoint=str(branch_file), **sampling | {"seed": 8})


def test_a_batch_has_the_results_and_the_seeds_of_their_noise(stored, data_root):
    options = {"batch_size": 4, "crop": 16, "augment": "flip", "train": str(stored["taught"])}
    batch = next(iter(FoundIRDataModule(str(data_root), **options).train_dataloader()))
    assert batch["z_teacher"].shape == batch["z_lq"].shape == batch["z_gt"].shape
    assert batch["noise_seed"].dtype == torch.int64 and len(batch["noise_seed"].unique()) == 4
    assert not torch.equal(batch["noise_seed"], batch["seed"])


def test_what_cannot_be_taught_is_refused(stored, branch_file, tmp_path):
    with pytest.raises(ValueError, match="holds images: give shards of latents"):
        teacher(stored["tiles"], tmp_path / "z", checkpoint=str(branch_file))
    with pytest.raises(ValueError, match="holds a teacher's results already"):
        teacher(stored["taught"], tmp_path / "z", checkpoint=str(branch_file))
    with pytest.raises(ValueError, match="holds latents of the VAE of .*backbone has another"):
        teacher(stored["latents"], tmp_path / "z", checkpoint="package", device="cpu")


def test_another_teacher_is_refused_and_the_difference_is_named(stored, data_root, branch_file):
    data = FoundIRDataModule(
        str(data_root), batch_size=4, crop=16, augment="flip", train=str(stored["taught"])
    )
    data.source("train")
    file = load_system(branch_file)
    require_same_teacher(identity_of(file, 3, "euler"), data)
    for steps, solver, said in ((4, "euler", "steps 3, not 4"), (3, "unipc", "solver 'euler'")):
        with pytest.raises(ValueError, match=f"results of another teacher .*{said}") as caught:
            require_same_teacher(identity_of(file, steps, solver), data)
        assert "\n" not in str(caught.value)
    other = {name: 2 * tensor for name, tensor in file.tensors.items()}
    with pytest.raises(ValueError, match="results of another teacher .*branch"):
        require_same_teacher(identity_of(replace(file, tensors=other), 3, "euler"), data)
    manifest = json.loads((stored["taught"] / MANIFEST).read_text())
    assert manifest["settings"]["teacher"] == identity_of(file, 3, "euler")
