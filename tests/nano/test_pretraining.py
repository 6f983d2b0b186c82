"""How nano is made: crops, colour hints, both trainings end to end at tiny size."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lit_mimdit.cli import main
from lit_mimdit.data import degraded
from lit_mimdit.data.degraded import DegradedCrops, DegradedPhotos, dimmed
from lit_mimdit.data.pairs import collate
from lit_mimdit.data.photographs import load
from lit_mimdit.data.photos import CropBatches, PhotoCrops, level_weights, pyramid
from lit_mimdit.models.backbone import load_backbone
from lit_mimdit.models.latents import encode
from lit_mimdit.nano.hints import COLOURS, hints, positions
from lit_mimdit.nano.vae import latent_statistics

EXPERIMENTS = Path(__file__).parents[2] / "experiments" / "nano"
MMDIT = str(EXPERIMENTS / "mmdit.yaml")
BRANCH = str(EXPERIMENTS / "branch.yaml")


def test_pyramid_halves_down_to_the_crop():
    levels = pyramid(np.zeros((300, 400, 3), np.uint8), longest=200, shortest=64)
    assert [level.shape for level in levels] == [(150, 200, 3), (75, 100, 3)]


def test_level_weights_follow_the_square_root_of_the_area():
    weights = level_weights([np.zeros((10, 10, 3)), np.zeros((30, 30, 3))])
    np.testing.assert_allclose(weights, [0.25, 0.75])


def test_crop_batches_are_functions_of_seed_epoch_and_index():
    levels = [load("coffee")]
    first, again = (
        CropBatches(levels, [(32, 4), (64, 2)], [0.5, 0.5], 8, seed=3) for _ in range(2)
    )
    assert all(torch.equal(first[i], again[i]) for i in range(8))
    assert {tuple(first[i].shape) for i in range(8)} == {(4, 3, 32, 32), (2, 3, 64, 64)}
    before = first[0]
    first.epoch = 1
    assert before.shape != first[0].shape or not torch.equal(before, first[0])
    assert before.min() >= -1 and before.max() <= 1
    with pytest.raises(IndexError):
        first[8]


def test_crops_are_pixels_of_the_photograph():
    image = load("coffee")
    crop = (
        ((CropBatches([image], [(16, 1)], [1.0], 1, seed=0)[0][0] + 1) * 127.5)
        .round()
        .byte()
        .permute(1, 2, 0)
        .numpy()
    )
    windows = np.lib.stride_tricks.sliding_window_view(image, (16, 16), axis=(0, 1)).transpose(
        0, 1, 3, 4, 2
    )
    corner = windows[:, :, 0, 0]
    found = [np.argwhere((corner == c[0, 0]).all(-1)) for c in (crop, crop[:, ::-1])]
    assert any(
        (windows[y, x] == c).all()
        for c, places in zip((crop, crop[:, ::-1]), found, strict=True)
        for y, x in places
    )


def test_positions_are_sines_of_the_distance_from_the_middle():
    place = positions((2, 3))
    assert place.shape == (6, 32)
    row, col = -0.5, 1.0  # token 2: first row, last column
    waves = [2 * math.pi / (4 * 2**k) for k in range(8)]
    expected = [[f(x * w) for w in waves] for x in (row, col) for f in (math.sin, math.cos)]
    torch.testing.assert_close(place[2], torch.tensor(expected).flatten())


def test_hints_tell_the_colours_of_distinct_tokens():
    images = torch.rand(2, 3, 16, 24) * 2 - 1
    embeds = hints(images, token=8, share=0.5, generator=torch.Generator().manual_seed(0))
    assert embeds.shape == (2, 3, 64)
    place = positions((2, 3))
    for row, image in zip(embeds, images, strict=True):
        index = [
            int((place - hint[COLOURS + 1 : COLOURS + 33]).abs().sum(-1).argmin()) for hint in row
        ]
        assert len(set(index)) == 3
        for hint, token in zip(row, index, strict=True):
            y, x = 8 * (token // 3), 8 * (token % 3)
            corners = [(c, y + i, x + j) for c in range(3) for i in (0, 4) for j in (0, 4)]
            quarters = [image[c, top : top + 4, left : left + 4].mean() for c, top, left in corners]
            torch.testing.assert_close(hint[:COLOURS], torch.stack(quarters))
            assert hint[COLOURS] == 1


def test_latent_statistics_whiten():
    latents = 3.0 * torch.randn(4, 16, 8, 8) + 0.7
    scaling, shift = latent_statistics(latents)
    white = (latents - shift) * scaling
    assert abs(white.mean()) < 1e-5 and abs(white.std() - 1) < 1e-5


@pytest.fixture
def photo_folders(tmp_path):
    for split, name in (("train", "coffee"), ("val", "chelsea")):
        (tmp_path / split).mkdir()
        Image.fromarray(load(name)).resize((160, 128)).save(tmp_path / split / f"{name}.png")
    return tmp_path


def test_both_trainings_write_a_backbone_that_loads(photo_folders, monkeypatch):
    """The two commands of experiments/nano/README.md, at tiny size."""
    folder = photo_folders
    data = [
        "--data.init_args.photos",
        f"{folder}/train",
        "--data.init_args.val_photos",
        f"{folder}/val",
        "--data.init_args.batches",
        "2",
    ]
    data += [
        "--data.init_args.val_batches",
        "1",
        "--trainer.max_steps",
        "2",
        "--trainer.logger",
        "false",
        "--trainer.precision",
        "32-true",
    ]
    data += ["--trainer.callbacks", "null"]
    vae = [
        "--model.init_args.channels",
        "[8,8,8]",
        "--data.init_args.sizes",
        "[[32,2]]",
        "--model.init_args.output",
        f"{folder}/vae",
    ]
    monkeypatch.chdir(folder)
    assert main(["fit", "-c", f"{EXPERIMENTS}/vae.yaml", *vae, *data]) == 0
    mmdit = [
        "--model.init_args.vae",
        f"{folder}/vae",
        "--model.init_args.output",
        f"{folder}/backbone",
        "--model.init_args.layers",
        "2",
    ]
    mmdit += [
        "--model.init_args.dual_layers",
        "1",
        "--model.init_args.heads",
        "2",
        "--model.init_args.head_dim",
        "8",
    ]
    mmdit += ["--data.init_args.sizes", "[[32,2],[64,1]]", "--data.init_args.shares", "[0.5,0.5]"]
    assert main(["fit", "-c", MMDIT, *mmdit, *data]) == 0
    backbone = load_backbone(f"{folder}/backbone")
    assert list(backbone.transformer.config.dual_attention_layers) == [0]
    assert backbone.prompt.embeds.shape == (1, 4, 64)
    seen = PhotoCrops(f"{folder}/train", f"{folder}/val", [[32, 2]], [1.0], val_batches=1)
    seen.setup("validate")
    (crops,) = seen.val_dataloader()
    latents = encode(backbone.vae, crops * 0.5 + 0.5)
    assert latents.shape == (2, 16, 8, 8)
    # scaling and shift are those of the validation's latents; weights are rounded to float16
    assert abs(latents.mean()) < 0.01 and abs(latents.std() - 1) < 0.01
    assert abs(latents.mean()) < 0.001  # it is 0.007 without the shift


def test_a_missing_vae_names_the_command_that_makes_it(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        main(
            [
                "fit",
                "-c",
                MMDIT,
                "--model.init_args.vae",
                str(tmp_path / "none"),
            ]
        )
        == 2
    )
    assert "experiments/nano/vae.yaml" in capsys.readouterr().err


def test_degraded_crops_keep_the_contract_and_their_seed():
    first, again = (
        DegradedCrops([load("coffee")], 32, ["05Noise", "14Lowlight"], 8, seed=5) for _ in range(2)
    )
    batch = collate([first[(1, index)] for index in range(8)])
    assert batch["lq"].shape == batch["gt"].shape == (8, 3, 32, 32) and set(
        batch["degradation"]
    ) == {"05Noise", "14Lowlight"}
    assert all(torch.equal(first[(1, i)]["lq"], again[(1, i)]["lq"]) for i in range(8))
    assert not torch.equal(first[(2, 0)]["lq"], batch["lq"][0])
    assert all(not torch.equal(lq, gt) for lq, gt in zip(batch["lq"], batch["gt"], strict=True))


def test_the_branch_trains_on_photographs_degraded_on_the_spot(
    backbone_folder, data_root, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.fromarray(load("coffee")[:100, :140]).save(tmp_path / "photos" / "coffee.png")
    model = [
        "--model.init_args.backbone",
        str(backbone_folder),
        "--model.init_args.branch.width",
        "16",
    ]
    model += [
        "--model.init_args.branch.heads",
        "2",
        "--model.init_args.branch.window",
        "2",
        "--model.init_args.sampling.tile",
        "32",
    ]
    model += ["--model.init_args.sampling.overlap", "8", "--model.init_args.sampling.overview", "0"]
    data = [
        "--data.init_args.photos",
        str(tmp_path / "photos"),
        "--data.init_args.root",
        str(data_root),
    ]
    data += [
        "--data.init_args.crop",
        "32",
        "--data.init_args.eval_crop",
        "32",
        "--data.init_args.batch_size",
        "2",
    ]
    assert main(["fit", "-c", BRANCH, *model, *data, "--trainer.max_steps", "2"]) == 0
    assert any((tmp_path / "runs" / "nano").rglob("events*"))


def test_the_data_module_hands_its_settings_to_the_crops(tmp_path):
    Image.fromarray(load("coffee")[:100, :140]).save(tmp_path / "coffee.png")
    settings = {"types": ["05Noise", "14Lowlight"], "samples": 6, "dim": 0.25, "smooth": 0.75}
    crops = (
        DegradedPhotos(str(tmp_path), **settings, root="data", batch_size=2, crop=32, seed=3)
        .train_dataloader()
        .dataset
    )
    assert {name: getattr(crops, name) for name in settings} == settings and (
        crops.crop,
        crops.seed,
    ) == (32, 3)


def test_dimmed_scenes_are_the_target_too():
    image = np.uint8([[[0, 51, 255]]])
    assert dimmed(image, 0.5, 2.0).tolist() == [[[0, round(255 * 0.5 * 0.2**2), 128]]]
    plain, dim = (
        DegradedCrops([load("coffee")], 32, ["06JPEG"], 8, seed=5, dim=share)
        for share in (0.0, 1.0)
    )
    for index in range(8):
        light, dark = plain[(0, index)], dim[(0, index)]
        assert dark["gt"].float().mean() < light["gt"].float().mean()
        assert abs(dark["lq"].float().mean() - dark["gt"].float().mean()) < 8, (
            "it is dark before its degradation, and not mended"
        )
    for kind in ("12NightRain", "17Lowlight_JPEG"):  # its darkness is what is to be mended
        plain, dim = (
            DegradedCrops([load("coffee")], 32, [kind], 8, seed=5, dim=share)
            for share in (0.0, 1.0)
        )
        assert all(
            torch.equal(plain[(0, index)]["gt"], dim[(0, index)]["gt"]) for index in range(8)
        )
    with pytest.raises(ValueError, match="data.dim is 2"):
        DegradedPhotos("photos", ["05Noise"], dim=2, root="data", batch_size=2, crop=32)


def test_low_light_may_have_lost_its_grain(monkeypatch):
    """The scene stays."""

    def crops(kind: str, share: float) -> list[dict]:
        made = DegradedCrops([load("coffee")], 32, [kind], 24, seed=5, smooth=share)
        return [made[(0, index)] for index in range(24)]

    def roughness(samples: list[dict]) -> float:
        return sum(sample["lq"].float().diff(dim=-1).abs().mean().item() for sample in samples)

    plain, half, smooth = (crops("14Lowlight", share) for share in (0.0, 0.5, 1.0))
    assert roughness(plain) > 1.1 * roughness(half) > 1.15 * roughness(smooth)
    for a, b in zip(plain, smooth, strict=True):
        assert a["id"] == b["id"] and torch.equal(a["gt"], b["gt"])
    assert all(
        torch.equal(a["lq"], b["lq"])
        for a, b in zip(crops("05Noise", 0.0), crops("05Noise", 1.0), strict=True)
    )
    drawn = []
    monkeypatch.setattr(degraded, "degrade", lambda image, *_, grain: drawn.append(grain) or image)
    crops("14Lowlight", 1.0)
    assert len(set(drawn)) == 24 and min(drawn) >= 0 and max(drawn) <= 1
    assert np.mean(np.square(drawn) < 0.0625) > 0.35, "of u^2 half lie below 1/4, of u a quarter"
    with pytest.raises(ValueError, match="data.smooth is -1"):
        DegradedPhotos("photos", ["05Noise"], smooth=-1, root="data", batch_size=2, crop=32)
