"""The command on folders: what it writes, that it goes on after a kill, and what it refuses."""

import csv
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from skimage.metrics import peak_signal_noise_ratio

from lit_mimdit import cli
from lit_mimdit.data.image_io import read_rgb
from lit_mimdit.evaluation import evaluate as command
from lit_mimdit.evaluation import weights
from lit_mimdit.evaluation.record import ImageScores, Record
from lit_mimdit.inference.run_record import commit, write_record

from .conftest import noisy, picture, save

DYING = """
import os, signal, sys
from lit_mimdit import cli
from lit_mimdit.evaluation import evaluate as command

plain, count = command.score_batch, []


def dying(*args):
    plain(*args)
    count.append(1)
    if len(count) == 3:
        os.kill(os.getpid(), signal.SIGKILL)


command.score_batch = dying
cli.main(sys.argv[1:])
"""


def arguments(
    output: str = "out", metrics: str = "psnr,ssim,niqe", degraded: bool = True
) -> list[str]:
    args = [
        "evaluate",
        "--restored",
        "restored",
        "--reference",
        "reference",
        "-o",
        output,
        "--metrics",
        metrics,
        "--device",
        "cpu",
    ]
    return [*args, *(["--degraded", "degraded"] if degraded else [])]


def run(
    *extra: str, output: str = "out", metrics: str = "psnr,ssim,niqe", degraded: bool = True
) -> int:
    return cli.main([*arguments(output, metrics, degraded), *extra])


@pytest.fixture(autouse=True)
def no_weights(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(weights.VARIABLE, raising=False)


def summary(folder: str = "out") -> dict:
    return json.loads(Path(folder, "summary.json").read_text())


def test_the_files_of_an_evaluation(folders, capsys):
    assert run("--name", "mine") == 0
    found, said = summary(), capsys.readouterr().out
    assert [(g["degradation"], g["n"]) for g in found["groups"]] == [
        ("01Blur", 3),
        ("05Noise", 3),
        ("all", 6),
    ]
    with open("out/scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [
        f"{'01Blur' if i < 3 else '05Noise'}/{i:04}" for i in range(6)
    ]
    for i, row in enumerate(rows):
        clean, image = (
            read_rgb(Path("out", row["reference_file"])),
            read_rgb(Path("out", row["restored_file"])),
        )
        assert float(row["restored_psnr"]) == pytest.approx(
            peak_signal_noise_ratio(clean, image), abs=1e-5
        )
        assert (
            (int(row["height"]), int(row["width"])) == clean.shape[:2]
            and row["failed"] == ""
            and i < 6
        )
    mean = sum(float(row["restored_psnr"]) for row in rows) / 6
    value = found["groups"][-1]["versions"]["restored"]["psnr"]
    assert (
        value["mean"] == pytest.approx(mean, abs=1e-9)
        and value["low"] < mean < value["high"]
        and value["n"] == 6
    )
    assert (
        found["metrics"]["niqe"]["status"]
        == "not computed: weights missing (niqe_modelparameters.mat)"
    )
    for text in (said, Path("out/tables.md").read_text(), Path("out/tables.tex").read_text()):
        assert "not computed: weights missing" in text
    assert (
        f"{mean:.2f} [" in Path("out/tables.md").read_text()
        and "## mine" in Path("out/tables.md").read_text()
    )


def test_every_result_carries_what_it_depends_on(folders, capsys):
    sampling = {"steps": 40, "tile": 512, "overlap": 64}
    about = {
        "format": "lit_mimdit.restoration.1",
        "commit": "abc",
        "checkpoint": {"name": "b.safetensors", "sha256": "0" * 64},
    }
    about |= {"config_hash": "f" * 16, "sampling": sampling, "seed": 7, "colour_fix": "none"}
    write_record(Path("restored"), about, {"01Blur/0000.png": [[0.1, 0.2, 0.3, 0.4]]})
    assert run() == 0
    found = summary()
    assert (
        found["metrics"]["ssim_y"]
        | {
            "weights": {},
            "pyiqa_name": "ssim",
            "direction": "higher is better",
        }
        == found["metrics"]["ssim_y"]
    )
    assert (
        found["metrics"]["psnr"]["version"].startswith("lit_mimdit ")
        and found["image_rule"] == command.IMAGE_RULE
    )
    assert found["commit"] == commit() and found["sizes"] == {"52 x 40": 3, "52 x 44": 3}
    made = found["restoration"]
    assert {key: made[key] for key in about} == about and (
        made["images_named"],
        made["images_evaluated"],
    ) == (1, 6)
    assert json.loads(Path("out/routing.json").read_text()) == {
        "01Blur/0000": [[0.1, 0.2, 0.3, 0.4]]
    }
    Path("restored/restoration.json").rename("restored/01Blur/restoration.json")
    write_record(Path("restored/05Noise"), about, {"0005.png": [[0.4, 0.3, 0.2, 0.1]]})
    assert (
        run("--restart") == 0
        and summary()["restoration"]["seed"] == 7
        and summary()["restoration"]["images_named"] == 1
    )
    assert json.loads(Path("out/routing.json").read_text()) == {
        "05Noise/0005": [[0.4, 0.3, 0.2, 0.1]]
    }
    write_record(Path("restored/05Noise"), about | {"seed": 8}, {})
    assert run("--restart") == 0 and [
        made["seed"] for made in summary()["restoration"]["mixed"]
    ] == [7, 8]
    Path("restored/restoration.json").write_text("{")
    assert (
        run("--restart") == 2
        and "restored/restoration.json: not readable as JSON" in capsys.readouterr().err
    )


class Killed(BaseException):
    pass


def test_after_kill_9_the_same_command_goes_on(processes, folders, capsys, monkeypatch):
    """The process is really killed after its third image; what it scored is not scored again, and
    the result is the uninterrupted one.
    """
    assert run(output="whole") == 0
    done = processes.run(
        [sys.executable, "-c", DYING, *arguments()], capture_output=True
    )  # not a fork: torch's threads would not survive it
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    record = Path("out/record.jsonl")
    assert (
        len(record.read_text().splitlines()) == 1 + 2 * 3 and not Path("out/summary.json").exists()
    )
    with open(record, "ab") as file:
        file.write(b'{"id": "05Noise/0003", "vers')  # and half a line
    scored = []
    plain = command.score_batch
    monkeypatch.setattr(
        command,
        "score_batch",
        lambda s, batch, *rest: (scored.extend(i.id for i in batch), plain(s, batch, *rest)),
    )
    capsys.readouterr()
    assert run() == 0
    assert (
        scored == ["05Noise/0003", "05Noise/0004", "05Noise/0005"]
        and "3 of 6 images are in the record" in capsys.readouterr().out
    )
    assert summary() == summary("whole")
    assert Path("out/scores.csv").read_text() == Path("whole/scores.csv").read_text()
    scored.clear()
    assert run() == 0 and scored == []


def test_batches_give_what_single_images_give(folders):
    assert run(output="one") == 0 and run("--batch_size", "4", output="four") == 0
    assert summary("one")["groups"] == summary("four")["groups"]


def test_a_record_of_other_settings_or_images_is_not_continued(folders, capsys):
    assert run() == 0
    assert run(metrics="psnr") == 2
    assert (
        "out/record.jsonl: made with another metrics; give another --output, or --restart"
        in capsys.readouterr().err
    )
    save(Path("restored/01Blur/0000.png"), picture(9))
    assert run() == 2 and "made with another images" in capsys.readouterr().err
    assert run(output="other") == 0
    os.utime("restored/01Blur/0001.png", (1, 1))  # another picture may have as many bytes
    assert run(output="other") == 2 and "made with another images" in capsys.readouterr().err
    assert run("--restart", metrics="psnr") == 0 and list(summary()["metrics"]) == ["psnr"]


def test_only_the_intersection_when_told_to(folders, capsys):
    Path("restored/05Noise/0004.png").unlink()
    assert run() == 2
    assert "missing: no restored image for" in capsys.readouterr().err and not Path("out").exists()
    assert run("--intersection") == 0
    assert "intersection: N = 5; 1 image(s) left out" in capsys.readouterr().out
    assert (
        summary()["intersection"] is True
        and summary()["groups"][-1]["n"] == 5
        and len(summary()["problems"]) == 1
    )


def test_an_image_that_fails_is_listed_and_in_no_mean(folders, capsys):
    path = Path("restored/01Blur/0001.png")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])  # the header says its size, the pixels are cut
    assert run() == 1
    found = summary()
    assert {(f["id"], f["metric"]) for f in found["failed"]} == {("01Blur/0001", "file")}
    assert (
        found["groups"][-1]["versions"]["restored"]["psnr"]["n"] == 5
        and found["groups"][-1]["n"] == 6
    )
    assert "error: 01Blur/0001 restored file" in capsys.readouterr().err
    assert (
        "(N=5)" in Path("out/tables.md").read_text()
        and "## Failed" in Path("out/tables.md").read_text()
    )
    assert "0001.png" in Path("out/scores.csv").read_text().splitlines()[2]


def test_without_reference_metrics_that_need_one_say_so(folders):
    assert (
        cli.main(["evaluate", "--restored", "restored", "-o", "out", "--metrics", "psnr,fid,niqe"])
        == 0
    )
    status = {key: about["status"] for key, about in summary()["metrics"].items()}
    assert (
        status["psnr"] == status["fid"] == "not computed: no reference images"
        and "weights missing" in status["niqe"]
    )


@pytest.mark.parametrize(
    "extra, message",
    [
        (["--metrics", "psnr,lpip"], "metrics: no metric 'lpip'; choose among psnr"),
        (["--batch_size", "0"], "batch_size is 0: it must be at least 1"),
        (["-o", "restored"], "output is restored: give a folder of its own"),
        (["--restored", "gone"], "gone: no such folder"),
        (["--layout", "imagenet"], "unknown layout 'imagenet'"),
        (["--frames", "x.txt"], "frames is given without --layout"),
        (["--device", "cuda:77"], "device is 'cuda:77'"),
    ],
)
def test_impossible_settings_are_one_line(folders, capsys, extra, message):
    assert run(*extra, degraded="--layout" not in extra) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and message in lines[0]


def test_features_of_a_torn_record_are_cut_to_what_its_lines_name(tmp_path):
    import numpy as np

    record = Record(tmp_path, {"a": 1})
    for index in range(3):
        record.add(
            ImageScores(f"{index}", "restored", "", "", 1, 1), np.full(2048, index, np.float32)
        )
    record.close()
    lines = (tmp_path / "record.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "record.jsonl").write_bytes(b"".join(lines[:3]))
    with open(tmp_path / "features.f32", "ab") as file:
        file.write(b"abc")
    again = Record(tmp_path, {"a": 1})
    assert (
        again.features().shape == (2, 2048)
        and not again.done("2", "restored")
        and again.done("1", "restored")
    )
    again.add(
        ImageScores("2", "restored", "", "", 1, 1, errors={"niqe": "the score is nan"}),
        np.full(2048, 5, np.float32),
    )
    assert again.features()[:, 0].tolist() == [0, 1, 5] and not again.done("2", "restored"), (
        "what failed is tried again"
    )
    again.close()


def test_the_listing_says_what_can_run(folders, capsys, random_weights):
    assert cli.main(["metrics"]) == 0
    text = capsys.readouterr().out
    assert text.count("can run here") == 4 and text.count("not computed: weights missing") == 11
    assert "lpips: LPIPS (Alex), lower is better; needs image and reference" in text
    assert (
        "file niqe_modelparameters.mat: missing; source https://huggingface.co/chaofengc/" in text
    )
    assert (
        "looked for: weights/niqe_modelparameters.mat" in text
        and "cap: images above 4,500,000 pixels" in text
    )
    assert cli.main(["metrics", "--only", "niqe,fid", "--weights", str(random_weights)]) == 0
    text = capsys.readouterr().out
    assert text.count("can run here") == 2 and "not the published file" in text and "sha256" in text


def test_pictures_of_16_bits_are_scored_as_8(folders):
    import torch

    from lit_mimdit.data.image_io import to_tensor, write_photo

    clean = to_tensor(noisy(picture(0), 3))
    write_photo(Path("restored/01Blur/0000.png"), clean + 0.3 / 255, bits=16)
    save(Path("other/0000.png"), (clean * 255).round().byte().permute(1, 2, 0).numpy())
    assert run(degraded=False, metrics="psnr") == 0
    reference = to_tensor(read_rgb("reference/01Blur/GT/0000.PNG"))
    with open("out/scores.csv", newline="") as file:
        value = float(next(csv.DictReader(file))["restored_psnr"])
    assert value == pytest.approx(
        -10 * torch.log10((clean - reference).square().mean()).item(), abs=1e-4
    )


def test_a_name_that_is_no_utf8_is_scored_and_shows_its_bytes(folders):
    for folder, seed in (("odd/restored", 3), ("odd/reference", 0)):
        image = noisy(picture(seed), seed) if seed else picture(0)
        save(Path(folder, os.fsdecode(b"caf\xe9.png")), image)
    args = ["evaluate", "--restored", "odd/restored", "--reference", "odd/reference"]
    assert cli.main([*args, "-o", "out", "--metrics", "psnr", "--device", "cpu"]) == 0
    assert r"caf\udce9" in Path("out/scores.csv").read_text(encoding="utf-8")
    assert cli.main([*args, "-o", "out", "--metrics", "psnr", "--device", "cpu"]) == 0
