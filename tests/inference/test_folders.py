"""Folders as people have them: every photograph once, nothing foreign replaced, nothing lost
without a word."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lit_mimdit import cli
from lit_mimdit.data.image_io import find_images
from lit_mimdit.data.listing import result_names
from lit_mimdit.inference import restore as command
from lit_mimdit.inference import restore_files
from lit_mimdit.inference.folder_record import JOURNAL, FolderRecord
from lit_mimdit.inference.plan import plan
from lit_mimdit.inference.restorer import Restorer
from lit_mimdit.inference.run_record import NAME, read_record, read_records


@pytest.fixture
def restore(branch_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *args: cli.main(
        ["restore", "--checkpoint", str(branch_file), "--device", "cpu", *map(str, args)]
    )


def photo(path: Path | str, side: int = 8, kind: str | None = None) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(map(ord, path.name))
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(path, kind)
    return path


def names(folder: str) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*.png"))


# --- what a folder holds


def test_content_decides_and_the_rest_is_named_with_its_reason(tmp_path):
    photo(tmp_path / "a.jfif", kind="JPEG")
    photo(tmp_path / "b.gif")
    photo(tmp_path / "noending", kind="PNG")
    photo(tmp_path / "c.dat", kind="WEBP")
    (tmp_path / "notes.txt").write_text("BM, said he")
    (tmp_path / "empty.xyz").touch()
    (tmp_path / "film.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(60))
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    (tmp_path / "p.jxl").write_bytes(b"\xff\x0a" + bytes(60))
    found = find_images(tmp_path)
    assert [path.name for path in found.images] == ["a.jfif", "b.gif", "c.dat", "noending"]
    assert {path.name: reason for path, reason in found.left_out} == {
        "empty.xyz": "an empty file",
        "film.mp4": "not an image but a film",
        "gone.png": "a link to nothing",
        "notes.txt": "not an image in a known format",
        "one": "a link that leads in a circle",
        "p.jxl": "a JPEG XL image, which is not read; convert it to PNG or TIFF",
        "pipe.png": "a pipe",
        "two": "a link that leads in a circle",
    }


def test_links_give_every_file_once_under_its_own_name(tmp_path):
    own = photo(tmp_path / "z" / "own.png")
    (tmp_path / "a").symlink_to("z")
    (tmp_path / "z" / "loop").symlink_to(tmp_path)
    (tmp_path / "other.png").symlink_to(own)
    (tmp_path / ".hidden.png").touch()
    found = find_images(tmp_path)
    assert found.images == [own] and found.hidden == 1
    assert [(path.name, reason.split()[0]) for path, reason in found.left_out] == [
        ("a", "links"),
        ("other.png", "links"),
        ("loop", "links"),
    ]


def test_a_link_to_a_folder_above_is_not_followed(tmp_path):
    photo(tmp_path / "other" / "private.png")
    own = photo(tmp_path / "album" / "own.png")
    (tmp_path / "album" / "up").symlink_to("..")
    (tmp_path / "link").symlink_to("album")
    found = find_images(tmp_path / "album")
    assert found.images == [own]
    reasons = [(path.name, reason) for path, reason in found.left_out]
    assert reasons == [("up", "links to a folder that it lies in")]
    # a link that the user names is the folder
    assert [path.name for path in find_images(tmp_path / "link").images] == ["own.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open every folder")
def test_a_closed_folder_is_named(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    assert "cannot be opened" in find_images(tmp_path).left_out[0][1]


def test_results_have_different_names():
    files = ["a.jpg", "a.png", "b.v1.jpg", "b.v2", "c/x.tif", "d", "a.jpg.webp"]
    assert [name.as_posix() for name in result_names([Path(file) for file in files])] == [
        "a.jpg.png",
        "a.png.png",
        "b.v1.png",
        "b.v2.png",
        "c/x.png",
        "d.png",
        "a.jpg_2.png",
    ]
    assert result_names([Path("x.png"), Path("x.png")]) == [Path("x.png.png"), Path("x_2.png")]


def test_a_name_of_a_picture_is_a_file_and_no_folder(tmp_path):
    source = photo(tmp_path / "in.png")
    for suffix in (".gif", ".psd", ".heic", ".tga", ".JXL", ".mp4"):
        with pytest.raises(ValueError, match="cannot write images of type"):
            plan([source], tmp_path / f"out{suffix}")
    assert plan([source], tmp_path / "out.jfif").to_file
    assert not plan([source], tmp_path / "out.v2").to_file


def test_a_format_that_cannot_hold_it_is_refused_before_the_model_is_loaded(restore, monkeypatch):
    Image.new("L", (16384, 1)).save("wide.png")
    monkeypatch.setattr(command, "load_restorer", lambda *a, **k: pytest.fail("loaded"))
    assert restore("wide.png", "-o", "out.webp") == 2
    assert restore("wide.png", "-o", "out.gif") == 2
    assert os.listdir() == ["wide.png"]


# --- calls


def test_what_is_left_out_is_said_and_the_exit_status_says_so(restore, capsys):
    photo("in/IMG_1.jpg")
    photo("in/IMG_1.png")
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    frames[0].save("in/film.gif", save_all=True, append_images=frames[1:])
    Path("in/letter.doc").write_text("no picture")
    assert restore("in", "-o", "out") == 1
    said = capsys.readouterr().err
    assert "left out: in/letter.doc: not an image" in said
    assert "note: in/film.gif: holds 3 pictures, and the first is restored" in said
    assert names("out") == ["IMG_1.jpg.png", "IMG_1.png.png", "film.png"]


def test_foreign_files_are_kept_and_own_ones_are_known(restore, capsys):
    photo("beside/IMG_1.jpg")
    foreign = photo("beside/IMG_1.png", 9).read_bytes()
    assert restore("beside/IMG_1.jpg", "-o", "beside") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert Path("beside/IMG_1.png").read_bytes() == foreign
    assert restore("beside/IMG_1.jpg", "-o", "beside", "--overwrite") == 0
    made = Path("beside/IMG_1.png").read_bytes()
    assert made != foreign
    assert restore("beside/IMG_1.jpg", "-o", "beside", "--seed", 5) == 0, "ours: replaced"
    assert Path("beside/IMG_1.png").read_bytes() != made
    photo("beside/IMG_1.png", 7)  # edited since
    assert restore("beside/IMG_1.jpg", "-o", "beside") == 2
    assert restore("beside/IMG_1.jpg", "-o", "beside/IMG_1.png") == 2


@pytest.mark.parametrize("output", ["in/restored", "in"])
def test_an_output_inside_the_input_restores_no_outputs(restore, output):
    photo("in/a.jpg")
    photo("in/deep/b.jpg")
    before = set(names("in"))
    for _ in range(2):
        assert restore("in", "-o", output) == 0
        assert len(set(names("in")) - before) == 2


def test_finished_files_are_skipped_and_records_merge(restore, monkeypatch):
    photo("in/a.jpg")
    photo("in/b.jpg")
    assert restore("in", "-o", "out") == 0
    times = {path: path.stat().st_mtime_ns for path in Path("out").glob("*.png")}
    photo("in/c.jpg")
    seen = []
    real = restore_files.restore_file
    monkeypatch.setattr(
        restore_files, "restore_file", lambda *args: seen.append(args[1].name) or real(*args)
    )
    assert restore("in", "-o", "out") == 0
    assert seen == ["c.jpg"]
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert sorted(read_record(Path("out"))["images"]) == ["a.png", "b.png", "c.png"]
    photo("in/b.jpg", 9)  # another picture of the same name
    assert restore("in", "-o", "out") == 0
    assert seen == ["c.jpg", "b.jpg"]
    assert restore("in/a.jpg", "-o", "out", "--seed", 3) == 0
    record = read_records(Path("out"))
    assert [run["seed"] for run in record["mixed"]] == [3, 0]
    assert sorted(record["images"]) == ["a.png", "b.png", "c.png"]
    assert not Path("out", JOURNAL).exists()


def test_an_interrupted_call_goes_on(restore, monkeypatch, capsys):
    for name in "abc":
        photo(f"in/{name}.jpg")
    real = restore_files.restore_file

    def interrupted(*args):
        if args[1].name == "b.jpg":
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(restore_files, "restore_file", interrupted)
        assert restore("in", "-o", "out") == 130
    assert sorted(read_record(Path("out"))["images"]) == ["a.png"]
    assert restore("in", "-o", "out") == 0
    assert "1 photograph(s) are finished already" in capsys.readouterr().err
    assert sorted(read_record(Path("out"))["images"]) == ["a.png", "b.png", "c.png"]
    assert restore("in", "-o", "out") == 0
    assert "photographs:" not in capsys.readouterr().err, "a bar of nothing"


def test_a_killed_call_leaves_a_journal_that_the_next_one_reads(tmp_path):
    source, run = photo(tmp_path / "a.jpg"), {"format": "x", "seed": 0}
    out = tmp_path / "out"
    out.mkdir()
    FolderRecord(out, run).write(source, out / "a.png", b"picture", [[1.0]])
    with open(out / JOURNAL, "a") as file:
        file.write('\n{"name": "b.png", "sour')  # cut off
    again = FolderRecord(out, run)
    assert again.is_finished(source, out / "a.png") and not again.is_ours(out / "b.png")
    assert not FolderRecord(out, run | {"seed": 1}).is_finished(source, out / "a.png")
    again.close()
    assert json.loads((out / NAME).read_text())["images"] == {"a.png": [[1.0]]}
    assert not (out / JOURNAL).exists()


@pytest.mark.parametrize(
    "error, said",
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "not enough memory; try --tile 16"),
        (RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory"), "--tile 16"),
        (MemoryError(), "--tile 16"),
        (RuntimeError("shapes differ"), "in/b.jpg: RuntimeError: shapes differ"),
    ],
)
def test_one_failure_costs_one_picture(restore, monkeypatch, capsys, error, said):
    for name in "abc":
        photo(f"in/{name}.jpg", 9 if name == "b" else 8)
    real = Restorer.__call__

    def failing(self, lq, *args):
        if lq.shape[-1] == 9:
            raise error
        return real(self, lq, *args)

    monkeypatch.setattr(Restorer, "__call__", failing)
    assert restore("in", "-o", "out") == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and said in lines[0] and "in/b.jpg" in lines[0]
    assert names("out") == ["a.png", "c.png"]


def test_metadata_is_copied_or_stripped(restore):
    exif = Image.Exif()
    exif[0x0132], exif[0x0112] = "2024:05:01 10:00:00", 6
    Image.new("RGB", (9, 5)).save("in.jpg", exif=exif)
    assert restore("in.jpg", "-o", "kept.png") == 0
    assert restore("in.jpg", "-o", "bare.jpg", "--strip_metadata") == 0
    with Image.open("kept.png") as kept, Image.open("bare.jpg") as bare:
        assert kept.getexif()[0x0132] == "2024:05:01 10:00:00" and kept.getexif()[0x0112] == 1
        assert kept.size == bare.size == (5, 9) and not bare.getexif()


def test_the_limit_of_megapixels_is_an_option(restore, capsys):
    photo("in.png", 40)
    assert restore("in.png", "-o", "out.png", "--max_megapixels", "0.001") == 1
    assert "--max_megapixels" in capsys.readouterr().err
    assert restore("in.png", "-o", "out.png", "--max_megapixels", "0.01") == 0
