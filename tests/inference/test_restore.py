"""The restore command on files.

What goes in, what comes out, and what stays whole when something is wrong.
"""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lit_mimdit import cli
from lit_mimdit import files as file_writing
from lit_mimdit.data.image_io import read_photo, write_photo
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.plan import plan
from lit_mimdit.inference.system_file import load_system, save_system


@pytest.fixture
def restore(branch_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *args: cli.main(
        ["restore", "--checkpoint", str(branch_file), "--device", "cpu", *map(str, args)]
    )


def photo(path: Path | str, height: int, width: int, mode: str = "RGB", **options) -> Path:
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    pixels = np.random.default_rng(height * width).integers(0, 256, shape, np.uint8)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels, mode).save(path, **options)
    return Path(path)


@pytest.mark.parametrize("size", [(1, 1), (1, 37), (65, 34), (32, 32)])
def test_a_file_to_a_file_of_the_same_size(restore, size):
    photo("in.png", *size)
    assert restore("in.png", "-o", "out.jpg") == 0
    with Image.open("out.jpg") as image:
        assert (
            (image.height, image.width) == size and image.format == "JPEG" and image.mode == "RGB"
        )


def test_grayscale_alpha_sixteen_bits_and_orientation(restore):
    photo("in/gray.png", 20, 17, "L")
    photo("in/alpha.png", 9, 33, "RGBA")
    rgb = torch.rand(3, 11, 12)
    write_photo("in/sixteen.png", rgb, bits=16)
    turned = Image.Exif()
    turned[0x0112] = 6  # turn by 90 degrees to see it upright
    photo("in/turned.jpg", 10, 23, exif=turned)
    assert restore("in", "-o", "out") == 0
    assert sorted(p.name for p in Path("out").glob("*.png")) == [
        "alpha.png",
        "gray.png",
        "sixteen.png",
        "turned.png",
    ]
    gray, alpha, sixteen, turned = (
        read_photo(f"out/{name}.png") for name in ("gray", "alpha", "sixteen", "turned")
    )
    assert gray.gray and gray.rgb.shape == (3, 20, 17)
    assert torch.equal(alpha.alpha, read_photo("in/alpha.png").alpha) and alpha.rgb.shape == (
        3,
        9,
        33,
    )
    assert sixteen.bits == 16 and len(torch.unique(sixteen.rgb)) > 256
    assert turned.rgb.shape == (3, 23, 10)


def test_folders_keep_their_shape_and_seeds_their_noise(restore):
    photo("in/a.jpg", 12, 12)
    photo("in/deep/a.png", 12, 12)
    assert restore("in", "-o", "one") == 0 and restore("in", "-o", "two") == 0
    assert restore("in", "-o", "three", "--seed", 1) == 0
    names = sorted(str(p.relative_to("one")) for p in Path("one").rglob("*.png"))
    assert names == ["a.png", "deep/a.png"]
    for name in names:
        assert (
            Path("one", name).read_bytes()
            == Path("two", name).read_bytes()
            != Path("three", name).read_bytes()
        )


@pytest.mark.parametrize(
    "options",
    [
        ["--steps", 5],
        ["--solver", "heun"],
        ["--start", "lq", "--strength", "0.3"],
        ["--tile", 16],
        ["--overlap", 0],
        ["--backbone", None],
    ],
    ids=lambda options: options[0],
)
def test_every_option_reaches_the_picture(restore, backbone_folder, options):
    photo("in.png", 40, 33)
    assert restore("in.png", "-o", "plain.png") == 0
    options = [backbone_folder if option is None else option for option in options]
    assert restore("in.png", "-o", "other.png", *options) == 0
    same = Path("plain.png").read_bytes() == Path("other.png").read_bytes()
    assert same == (options[0] == "--backbone"), (
        "all but the place of the backbone change the picture"
    )


def test_a_solver_of_several_steps_reaches_the_picture(restore):
    """Of two steps its first and its last are Euler's."""
    photo("in.png", 40, 33)
    for solver in ("euler", "unipc", "dpmpp_2m"):
        assert restore("in.png", "-o", f"{solver}.png", "--solver", solver, "--steps", 4) == 0
    assert len({Path(f"{name}.png").read_bytes() for name in ("euler", "unipc", "dpmpp_2m")}) == 3


def test_tiles_at_once_change_the_time_only(restore):
    photo("in.png", 40, 70)
    assert (
        restore("in.png", "-o", "two.png") == 0
        and restore("in.png", "-o", "five.png", "--tile_batch", 5) == 0
    )
    assert (read_photo("two.png").rgb - read_photo("five.png").rgb).abs().max() <= 1.01 / 255


def test_a_broken_file_does_not_cost_the_others(restore, capsys):
    good = photo("in/a.png", 12, 12)
    photo("in/z.png", 12, 12)
    Path("in/m.png").write_bytes(good.read_bytes()[:60])
    assert restore("in", "-o", "out") == 1
    captured = capsys.readouterr()
    assert next(
        line for line in captured.err.splitlines() if line.startswith("error: ")
    ).startswith("error: in/m.png")
    assert "error" not in captured.out
    assert sorted(p.name for p in Path("out").glob("*.png")) == ["a.png", "z.png"]


def test_a_full_disk_leaves_nothing_half_written(restore, monkeypatch, capsys):
    photo("in.png", 12, 12)
    photo("out.png", 5, 5)
    before = Path("out.png").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(file_writing.os, "fsync", full)
    assert restore("in.png", "-o", "out.png", "--overwrite") == 1
    assert "out.png: cannot be written: No space left on device" in capsys.readouterr().err
    assert Path("out.png").read_bytes() == before and sorted(os.listdir()) == ["in.png", "out.png"]


@pytest.mark.parametrize(
    "args, message",
    [
        (["gone.png", "-o", "out.png"], "gone.png: no such file or folder"),
        (["empty", "-o", "out"], "empty: no images in this folder"),
        (["a", "-o", "a/x.png"], "is a file; several photographs need a folder"),
        (["a/x.png", "-o", "a/x.png"], "would replace the original"),
        (["a", "-o", "a"], "would replace the original"),
        (["a/x.png", "-o", "nowhere/x.png"], "there is no folder nowhere"),
        (["a/x.png", "-o", "x.bmp"], "cannot write images of type '.bmp'"),
        (["a/x.png", "-o", "x.png", "--tile", "36"], "sampling.tile is 36 px"),
        (["a/x.png", "-o", "x.png", "--steps", "0"], "sampling.steps is 0"),
        (
            ["a/x.png", "-o", "x.png", "--device", "gpu9"],
            "device is 'gpu9': it cannot be used here",
        ),
        (["a/x.png", "-o", "x.png", "--backbone", "/gone"], "there is no folder '/gone'"),
    ],
)
def test_what_cannot_be_done_is_said_before_the_work(restore, args, message, capsys):
    photo("a/x.png", 8, 8)
    photo("b/x.png", 8, 8)
    Path("empty").mkdir()
    original = Path("a/x.png").read_bytes()
    assert restore(*args) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ") and message in last
    assert not any(Path(name).exists() for name in ("out", "out.png", "x.png", "x.bmp", "nowhere"))
    assert Path("a/x.png").read_bytes() == original


def test_two_inputs_of_one_name_in_different_folders_are_fine_below_one_folder(tmp_path):
    photo(tmp_path / "in" / "a" / "x.png", 8, 8)
    photo(tmp_path / "in" / "b" / "x.jpg", 8, 8)
    jobs = plan([tmp_path / "in"], tmp_path / "out")
    assert [str(target.relative_to(tmp_path)) for _, target in jobs.jobs] == [
        "out/a/x.png",
        "out/b/x.png",
    ]


def test_a_branch_of_another_backbone_or_width_is_refused(branch_file, make_backbone, tmp_path):
    cpu = torch.device("cpu")
    other = make_backbone(tmp_path / "deeper", num_layers=2)
    with pytest.raises(
        ValueError, match="trained on backbone .*, which has another geometry than .*deeper'"
    ):
        load_restorer(branch_file, str(other), cpu)
    same = make_backbone(tmp_path / "same")
    load_restorer(branch_file, str(same), cpu)
    weights = same / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["proj_out.weight"] += 0.1
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(ValueError, match="trained on other weights of a backbone like"):
        load_restorer(branch_file, str(same), cpu)

    file = load_system(branch_file)
    file.arguments["branch"]["width"] = 8
    save_system(tmp_path / "narrow.safetensors", file)
    with pytest.raises(ValueError, match="parameters .* of another shape .such as mims"):
        load_restorer(tmp_path / "narrow.safetensors", None, cpu)


def test_predict_writes_the_bytes_that_restore_writes(tiny, capsys):
    """One command from a checkpoint, the other from a YAML.

    Same sampling, same seed, same picture.
    """
    photo("in/a.png", 40, 33)
    photo("in/deep/b.jpg", 12, 20, "L")
    config = tiny(
        **{"data.init_args.predict": "in", "trainer.max_steps": 2, "trainer.limit_val_batches": 0}
    )
    assert cli.main(["fit", "-c", config]) == 0
    last = "runs/quickstart/checkpoints/last.ckpt"
    assert cli.main(["predict", "-c", config, "--ckpt_path", last]) == 0
    exact = ["--device", "cpu", "--dtype", "float32"]
    assert cli.main(["restore", "in", "-o", "out", "--checkpoint", last, *exact]) == 0
    for name in ("a.png", "deep/b.png"):
        assert Path("out", name).read_bytes() == Path("runs/quickstart/restored", name).read_bytes()
    assert (
        cli.main(["predict", "-c", config, "--ckpt_path", last, "--data.init_args.seed", "5"]) == 0
    )
    assert Path("out/a.png").read_bytes() != Path("runs/quickstart/restored/a.png").read_bytes()

    Path("in/c.png").write_bytes(b"no image")
    Path("runs/quickstart/restored/a.png").unlink()
    capsys.readouterr()
    assert cli.main(["predict", "-c", config, "--ckpt_path", last]) == 2
    assert "error: not restored: in/c.png" in capsys.readouterr().err.strip().splitlines()[-1]
    assert Path("runs/quickstart/restored/a.png").exists()
