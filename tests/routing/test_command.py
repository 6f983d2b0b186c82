"""The command from outside.

Its numbers are those of a recomputation by hand, its files are whole.
"""

import contextlib
import csv
import io
import json
import re
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import stats

from lit_mimdit import cli
from lit_mimdit.data.sample_data import write_sample_data
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.restorer import Restorer
from lit_mimdit.inference.system_file import load_system
from lit_mimdit.routing.command import names_of
from lit_mimdit.routing.study_files import TABLES, read_csv

from .conftest import write_branch

KINDS = ["01Blur", "05Noise", "08Haze"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Six test images of 48 px of three types, two of each severity."""
    folder = tmp_path_factory.mktemp("routing") / "data"
    write_sample_data(folder, size=48, train_crops=0, val_crops=0, test_crops=6, types=KINDS)
    return folder / "test"


@pytest.fixture(scope="module")
def study(data, branches, tmp_path_factory) -> tuple[Path, str]:
    """Folder and screen of a study of three trainings."""
    folder = tmp_path_factory.mktemp("study")
    with contextlib.redirect_stdout(io.StringIO()) as said:
        args = [
            "--data",
            str(data),
            "--checkpoint",
            *map(str, branches),
            "--permutations",
            "199",
            "-o",
            str(folder),
        ]
        assert cli.main(["routing", *args]) == 0
    return folder, said.getvalue()


@cache
def loaded(branch: Path) -> tuple[Restorer, dict[str, torch.Tensor]]:
    return load_restorer(branch, None, torch.device("cpu")), load_system(branch).tensors


def by_hand(branch: Path, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inter weights (L, G) and chosen sub-experts (L, G, E) of a small image, from the parameters
    alone, one MiM after the other.
    """
    restorer, tensors = loaded(branch)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        posterior = restorer.vae.encode(2 * pixels - 1).latent_dist.mode()
        latent = (posterior - restorer.vae.config.shift_factor) * restorer.vae.config.scaling_factor
        tokens = restorer.network.backbone.pos_embed(latent)[0]
        inter, chosen = [], []
        for block in range(3):
            own = {
                name.removeprefix(f"mims.{block}."): t
                for name, t in tensors.items()
                if name.startswith(f"mims.{block}.")
            }
            u = F.linear(tokens, own["project.weight"], own["project.bias"])
            mean = F.layer_norm(u, u.shape[-1:], own["norm.weight"], own["norm.bias"]).mean(0)
            logits = own["router.project.weight"] @ mean + own["router.project.bias"]
            inter.append((logits.exp() / logits.exp().sum()).numpy())
            chosen.append([])
            for group in range(4):
                logits = (
                    own[f"groups.{group}.router.project.weight"] @ mean
                    + own[f"groups.{group}.router.project.bias"]
                )
                chosen[-1].append(
                    [float(value >= logits.sort().values[1]) for value in logits]
                )  # the 2 largest of 3
    return np.array(inter), np.array(chosen)


def test_every_image_s_record_is_a_recomputation_by_hand(data, branches, tmp_path):
    """Images of one tile: 32 px, the middle of each."""
    assert (
        cli.main(
            [
                "routing",
                "--data",
                str(data),
                "--crop",
                "32",
                "--checkpoint",
                str(branches[0]),
                "-o",
                str(tmp_path),
            ]
        )
        == 0
    )
    records = read_csv(tmp_path / "records.csv")
    assert [row["id"] for row in records[:2]] == ["01Blur/0001", "01Blur/0002"] and len(
        records
    ) == 18
    for row in (records[0], records[7], records[17]):
        kind, name = row["id"].split("/")
        pixels = np.asarray(
            Image.open(data / kind / "LQ" / f"{name}.png").convert("RGB"), np.float32
        )[8:40, 8:40]
        inter, chosen = by_hand(branches[0], pixels)
        found = np.array([value for key, value in row.items() if key.startswith("inter_")]).reshape(
            3, 4
        )
        np.testing.assert_allclose(found, inter, atol=2e-5)
        found = np.array(
            [value for key, value in row.items() if key.startswith("chosen_")]
        ).reshape(3, 4, 3)
        assert np.array_equal(found, chosen)
    own = [row for row in read_csv(tmp_path / "table6.csv") if row["degradation"] == "haze"]
    hazy = []
    for path in sorted((data / "08Haze" / "LQ").iterdir()):
        pixels = np.asarray(Image.open(path).convert("RGB"), np.float32)
        hazy.append(by_hand(branches[0], pixels[8:40, 8:40])[0].mean(0))
    assert [row["mean"] for row in own] == pytest.approx(np.mean(hazy, 0).tolist(), abs=1e-5)
    assert [row["standard_error_over_images"] for row in own] == pytest.approx(
        stats.sem(hazy).tolist(), rel=1e-3
    )
    assert own[1]["low"] == pytest.approx(
        stats.t.interval(0.95, 5, np.mean(hazy, 0)[1], stats.sem(hazy)[1])[0], abs=1e-5
    )


def test_table_6_of_several_trainings_has_intervals_over_them(study, branches):
    folder, said = study
    records, table = read_csv(folder / "records.csv"), read_csv(folder / "table6.csv")
    assert [(row["degradation"], row["group"]) for row in table][:5] == [
        ("blur", "spatial"),
        ("blur", "channel"),
        ("blur", "swin"),
        ("blur", "se"),
        ("noise", "spatial"),
    ]
    names = list(dict.fromkeys(row["checkpoint"] for row in records))
    assert names == ["seed_0/branch", "seed_1/branch", "seed_2/branch"]
    means = []
    for name in names:
        own = [r for r in records if (r["checkpoint"], r["degradation"]) == (name, "05Noise")]
        means.append(
            np.mean([[r[f"inter_block_{b:02d}_1_channel"] for b in range(3)] for r in own])
        )
    low, high = stats.t.interval(0.95, 2, np.mean(means), stats.sem(means))
    cell = table[5]
    assert (
        cell["degradation"],
        cell["group"],
        cell["published"],
        cell["images"],
        cell["checkpoints"],
    ) == (
        "noise",
        "channel",
        0.2784,
        6,
        3,
    )
    assert (cell["mean"], cell["low"], cell["high"]) == pytest.approx(
        (np.mean(means), low, high), abs=1e-5
    )
    assert "mean of 3 trainings, 95% t intervals over them" in said and "| noise | 6 |" in said
    assert re.search(
        r"published preferences, more or less than an equal share: \d+ appears, \d+ opposite, \d+"
        r" undecided",
        said,
    )


def test_the_folder_is_whole(study):
    folder, _ = study
    assert {path.name for path in folder.iterdir()} == {
        *(f"{name}.csv" for name in TABLES),
        "table6.md",
        "table6.tex",
        "routing.json",
        "report.html",
        "report.md",
        "pictures",
    }
    pictures = {path.name for path in (folder / "pictures").iterdir()}
    assert {
        f"{name}.{form}"
        for name in ("table6", "heat_maps", "depth", "severity_0", "sub_experts_2")
        for form in ("png", "svg")
    } <= pictures
    for path in (folder / "pictures").glob("*.png"):
        with Image.open(path) as image:
            assert min(image.size) > 200 and np.asarray(image.convert("L")).std() > 10, path
    summary = json.loads((folder / "routing.json").read_text())
    assert (
        summary["images"] == 18
        and summary["severity"] == "samples.csv (18 of 18 images)"
        and len(summary["files"]) == 3
    )
    assert (
        summary["files"][0]["sha256"] != summary["files"][1]["sha256"]
        and summary["image rule"] == "whole images"
    )
    assert summary["health"] == dict.fromkeys(summary["checkpoints"]), (
        "18 images are too few for dead experts"
    )
    assert (
        r"\begin{tabular}" in (folder / "table6.tex").read_text()
        and "spatial, paper" in (folder / "table6.md").read_text()
    )
    page = (folder / "report.html").read_text()
    assert (
        page.count("<svg") == len([name for name in pictures if name.endswith(".svg")])
        and "too few images" in page
    )
    for name in re.findall(r"\]\((pictures/[^)]*)\)", (folder / "report.md").read_text()):
        assert (folder / name).is_file()


def test_the_tables_agree_with_the_records(study):
    folder, _ = study
    records = read_csv(folder / "records.csv")
    own = [
        r
        for r in records
        if (r["checkpoint"], r["degradation"], r["severity"])
        == ("seed_1/branch", "01Blur", "heavy")
    ]
    assert len(own) == 2
    shares = read_csv(folder / "sub_experts.csv")
    place = {
        "checkpoint": "seed_1/branch",
        "degradation": "01Blur",
        "severity": "heavy",
        "block": 2.0,
        "group": "2_swin",
        "sub_expert": 1.0,
    }
    (row,) = [r for r in shares if r == r | place]
    assert row["share"] == pytest.approx(
        np.mean([r["chosen_block_02_2_swin_expert_1"] for r in own]), abs=1e-5
    )
    assert row["mean_gate"] == pytest.approx(
        np.mean([r["gate_block_02_2_swin_expert_1"] for r in own]), abs=1e-5
    )
    place = {"checkpoint": "seed_2/branch", "degradation": "all", "block": 1.0, "group": "3_se"}
    (row,) = [r for r in read_csv(folder / "blocks.csv") if r == r | place]
    every = [r["inter_block_01_3_se"] for r in records if r["checkpoint"] == "seed_2/branch"]
    assert row["mean"] == pytest.approx(np.mean(every), abs=1e-5) and row["images"] == 18
    assert row["standard_error"] == pytest.approx(stats.sem(every), rel=1e-3) and row[
        "deviation"
    ] == pytest.approx(np.std(every), rel=1e-3)
    routers = read_csv(folder / "routers.csv")
    assert len(routers) == 3 * 3 * (1 + 4) and all(0 < r["p"] <= r["q"] <= 1 for r in routers)
    severity = read_csv(folder / "severity.csv")
    assert len(severity) == 3 * 3 * 12 and {r["severities"] for r in severity} == {
        "light medium heavy"
    }
    assert {r["images"] for r in severity} == {6.0} and all(
        0 <= r["information_bits"] <= np.log2(3) for r in severity
    )


def test_other_groups_than_the_paper_s_have_no_published_numbers(
    data, backbone_folder, tmp_path, capsys
):
    branch = write_branch(tmp_path, backbone_folder, 7, groups=["swin", "swin"])
    args = [
        "--data",
        str(data),
        "--crop",
        "32",
        "--limit",
        "1",
        "--checkpoint",
        str(branch),
        "-o",
        str(tmp_path / "out"),
    ]
    assert cli.main(["routing", *args]) == 0
    assert "0_swin" in capsys.readouterr().out
    rows = read_csv(tmp_path / "out" / "table6.csv")
    assert (
        len(rows) == 6
        and "published" not in rows[0]
        and {row["group"] for row in rows} == {"0_swin", "1_swin"}
    )
    assert (
        not (tmp_path / "out" / "severity.csv").exists()
        and "nothing to test" in (tmp_path / "out" / "report.html").read_text()
    )


def test_other_types_than_the_five_are_reported_too(data, branches, tmp_path, capsys):
    root = tmp_path / "data"
    shutil.copytree(data / "05Noise", root / "fog")
    args = [
        "--data",
        str(root),
        "--crop",
        "32",
        "--severity",
        "psnr",
        "--checkpoint",
        str(branches[0]),
        "-o",
        str(tmp_path / "out"),
    ]
    assert cli.main(["routing", *args]) == 0
    assert (
        "| fog | 6 |" in capsys.readouterr().out and not (tmp_path / "out" / "table6.csv").exists()
    )
    with open(tmp_path / "out" / "records.csv", newline="") as file:
        assert [row["severity"] for row in csv.DictReader(file)].count("heavy") == 2


def test_checkpoints_have_short_names_that_differ():
    assert names_of([Path("runs/a/last.ckpt")]) == ["last"]
    assert names_of([Path("runs/a/last.ckpt"), Path("runs/b/last.ckpt")]) == ["a/last", "b/last"]
    assert names_of([Path("a/x.ckpt"), Path("a/x.pt")]) == ["x.ckpt", "x.pt"]
    with pytest.raises(ValueError, match="a.ckpt is given twice"):
        names_of([Path("a.ckpt"), Path("a.ckpt")])


@pytest.mark.parametrize(
    "args, message",
    [
        (["--limit", "0"], "limit is 0: it must be at least 1"),
        (["--crop", "0"], "crop is 0"),
        (["--permutations", "0"], "permutations is 0"),
        (["--data", "gone"], "gone: no such folder"),
        (["--data", "."], ".: no pairs of images found in the layout foundir"),
        (["--checkpoint", "gone.ckpt"], "checkpoint gone.ckpt: no such file"),
        (["--checkpoint", "a.ckpt", "a.ckpt"], "given twice"),
        (["--severity", "awful"], "severity"),
        (["--severities", "gone.csv"], "there is no file gone.csv"),
    ],
)
def test_errors_are_one_line(args, message, data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = args if "--data" in args else [*args, "--data", str(data)]
    assert cli.main(["routing", *given, "-o", "out"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and message in lines[0], lines


def test_branches_that_cannot_be_compared_are_refused(
    data, branches, backbone_folder, tmp_path, capsys
):
    other = write_branch(tmp_path, backbone_folder, 8, groups=["swin", "spatial"])
    args = [
        "--data",
        str(data),
        "--limit",
        "1",
        "--crop",
        "32",
        "--checkpoint",
        str(branches[0]),
        str(other),
        "-o",
        str(tmp_path / "out"),
    ]
    assert cli.main(["routing", *args]) == 2
    assert "has other groups, sub-experts or blocks than" in capsys.readouterr().err
