"""Means, intervals, groups and failures against sums by hand; two processes against one."""

import json
import sys
from dataclasses import replace
from subprocess import PIPE, Popen

import numpy as np
import pytest
import torch

from lit_mimdit.evaluation.fid import FEATURES, frechet
from lit_mimdit.evaluation.record import ImageScores
from lit_mimdit.evaluation.scorer import Scorer
from lit_mimdit.evaluation.scores import ScoreTable, means, render
from lit_mimdit.evaluation.summary import summarise

METRICS = Scorer("psnr,ssim_y").describe()


def row(id: str, version: str, degradation: str, **scores: float) -> ImageScores:
    return ImageScores(id, version, "", degradation, 40, 52, scores)


def some_rows() -> list[ImageScores]:
    return [
        row("a", "degraded", "Blur", psnr=20.0, ssim_y=0.5),
        row("a", "restored", "Blur", psnr=26.0, ssim_y=0.5),
        row("b", "degraded", "Rain", psnr=22.0, ssim_y=0.6),
        row("b", "restored", "Rain", psnr=24.0, ssim_y=0.5),
        row("c", "degraded", "Rain", psnr=30.0, ssim_y=0.7),
        row("c", "restored", "Rain", psnr=29.0, ssim_y=0.9),
    ]


def group(summary: dict, name: str) -> dict:
    return next(g for g in summary["groups"] if g["degradation"] == name)


NO_FEATURES = np.zeros((0, FEATURES), np.float32)


def test_means_gains_and_ties_by_hand():
    found = summarise(some_rows(), NO_FEATURES, METRICS)
    assert [(g["degradation"], g["n"]) for g in found["groups"]] == [
        ("Blur", 1),
        ("Rain", 2),
        ("all", 3),
    ]
    assert group(found, "Rain")["versions"]["restored"]["psnr"]["mean"] == 26.5
    assert group(found, "all")["versions"]["degraded"]["psnr"]["mean"] == 24.0
    gain = group(found, "all")["gain"]["psnr"]
    assert gain["mean"] == pytest.approx(7 / 3) and (
        gain["better"],
        gain["worse"],
        gain["tied"],
    ) == (2, 1, 0)
    ssim = group(found, "all")["gain"]["ssim_y"]
    assert (ssim["better"], ssim["worse"], ssim["tied"]) == (1, 1, 1)
    single = group(found, "Blur")["versions"]["restored"]["psnr"]
    assert single["low"] is None and single["high"] is None, "one image has no interval"


def test_better_means_lower_where_lower_is_better():
    about = Scorer("psnr").describe()
    about["niqe"] = about["psnr"] | {"label": "NIQE"}
    rows = [row("a", "degraded", "Blur", niqe=7.0), row("a", "restored", "Blur", niqe=5.0)]
    gain = group(summarise(rows, NO_FEATURES, about), "all")["gain"]["niqe"]
    assert gain["mean"] == -2.0 and (gain["better"], gain["worse"]) == (1, 0)


def test_what_failed_is_listed_and_in_no_mean():
    rows = some_rows()
    rows[3] = replace(rows[3], scores={"ssim_y": 0.5}, errors={"psnr": "the score is nan"})
    found = summarise(rows, NO_FEATURES, METRICS)
    value = group(found, "Rain")["versions"]["restored"]["psnr"]
    assert (value["mean"], value["n"]) == (29.0, 1) and group(found, "Rain")["n"] == 2
    assert group(found, "Rain")["gain"]["psnr"]["n"] == 1
    assert found["failed"] == [
        {
            "dataset": "",
            "id": "b",
            "version": "restored",
            "metric": "psnr",
            "reason": "the score is nan",
        }
    ]
    json.dumps(found, allow_nan=False)


def test_order_changes_nothing_to_the_last_bit():
    rows = [
        row(f"{i:03}", "restored", "ab"[i % 2], psnr=float(v))
        for i, v in enumerate(np.random.default_rng(0).normal(25, 3, 60))
    ]
    assert summarise(rows, NO_FEATURES, METRICS) == summarise(rows[::-1], NO_FEATURES, METRICS)


def test_fid_is_pooled_and_by_degradation():
    features = np.random.default_rng(0).normal(size=(16, FEATURES)).astype(np.float32)
    rows = []
    for i in range(8):
        about = (f"{i}", "restored", "", "ab"[i % 2], 40, 52)
        rows += [
            ImageScores(*about, feature=2 * i),
            ImageScores(about[0], "reference", *about[2:], feature=2 * i + 1),
        ]
    metrics = {"fid": METRICS["psnr"], "fid_torchmetrics": METRICS["psnr"]}
    found = summarise(rows, features, metrics)
    own, other = features[::2], features[1::2]
    assert group(found, "all")["versions"]["restored"]["fid"]["mean"] == pytest.approx(
        frechet(own, other), rel=1e-9
    )
    assert group(found, "a")["versions"]["restored"]["fid"]["mean"] == pytest.approx(
        frechet(own[::2], other[::2]), rel=1e-9
    )
    assert (
        group(found, "b")["versions"]["restored"]["fid"]["n"] == 4
        and "fid_torchmetrics" not in group(found, "b")["versions"]["restored"]
    )
    assert group(found, "all")["versions"]["restored"]["fid_torchmetrics"]["mean"] == pytest.approx(
        frechet(own, other), rel=1e-3
    )


def test_data_sets_are_never_pooled_together():
    rows = [replace(r, dataset="4KRD") for r in some_rows()]
    rows += [replace(r, dataset="UHD-LL", scores={"psnr": 1.0, "ssim_y": 0.0}) for r in some_rows()]
    found = summarise(rows, NO_FEATURES, METRICS)
    assert [(g["dataset"], g["n"]) for g in found["groups"] if g["degradation"] == "all"] == [
        ("4KRD", 3),
        ("UHD-LL", 3),
    ]
    assert (
        means(found)["4KRD/psnr_restored"] == pytest.approx(79 / 3)
        and means(found)["UHD-LL/psnr_restored"] == 1.0
    )
    text = render({"metrics": METRICS, **found}, "both", ("degraded", "restored"))
    assert "4KRD all" in text and "UHD-LL Rain" in text


def test_the_text_names_metrics_and_what_is_missing():
    about = METRICS | {
        "liqe": (
            METRICS["psnr"] | {"label": "LIQE", "status": "not computed: weights missing (a.pt)"}
        )
    }
    text = render(summarise(some_rows(), NO_FEATURES, about), "the title", ("degraded", "restored"))
    assert (
        "the title" in text
        and "PSNR RGB (dB) / SSIM Y" in text
        and "LIQE: not computed: weights missing (a.pt)" in text
    )
    assert "26.50 / 0.700" in text and max(map(len, text.splitlines())) <= 120


RANKS = """
import json, sys
import torch, torch.distributed as dist
from lit_mimdit.evaluation.scorer import Scorer
from lit_mimdit.evaluation.scores import ScoreTable
rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if world > 1:
    meet = f"file://{folder}/meet{world}"
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=world)
scorer = Scorer("psnr,ssim_y")
scorer.features = lambda images: list(images.flatten(1)[:, :2048].numpy())
type(scorer).wants_features = property(lambda self: True)
plain = scorer.score
def score(images, references):
    results = plain(images, references)
    for result, feature in zip(results, scorer.features(images)):
        result.feature = feature
    return results
scorer.score = score
fid = Scorer("psnr").describe()["psnr"]
scorer.describe = lambda: {**Scorer("psnr,ssim_y").describe(), "fid": fid}
table = ScoreTable(("degraded", "restored"), scorer)
for i in range(7):
    if i % world == rank:
        draw = torch.Generator().manual_seed(i)
        clean = torch.rand(3, 32, 32, generator=draw)
        noise = torch.randn(3, 32, 32, generator=draw)
        versions = {"degraded": clean + 0.2 * noise, "restored": clean + 0.1 * noise}
        table.add(f"{i}", "ab"[i % 2], clean, versions)
        table.routing[f"{i}"] = [[float(i)]]
table.gather()
if rank == 0:
    answer = [table.summary(), table.routing and sorted(table.routing)]
    print(json.dumps(answer, sort_keys=True), flush=True)
if world > 1:
    dist.barrier()
    dist.destroy_process_group()
"""


def test_two_processes_give_the_summary_of_one(processes, tmp_path):
    """Seven images, four on rank 0 and three on rank 1.

    The same JSON to the last digit, FID and intervals too.
    """

    def start(rank: int, world: int) -> Popen:
        command = [sys.executable, "-c", RANKS, str(rank), str(world), str(tmp_path)]
        return processes.Popen(command, stdout=PIPE, stderr=PIPE, text=True)

    running = [start(0, 1), start(0, 2), start(1, 2)]
    said = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], [
        errors[-2000:] for _, errors in said
    ]
    one, two = json.loads(said[0][0]), json.loads(said[1][0])
    assert (
        one == two
        and one[0]["groups"][-1]["n"] == 7
        and one[0]["groups"][-1]["versions"]["restored"]["fid"]["mean"] > 0
    )


def test_a_table_scores_every_version_against_the_reference():
    clean = torch.rand(3, 20, 24, generator=torch.Generator().manual_seed(0))
    made = ScoreTable(("degraded", "restored"), Scorer("psnr"))
    made.add("a", "Blur", clean, {"degraded": (clean + 0.1).clamp(0, 1), "restored": clean})
    found = {r.version: r for r in made.rows}
    assert (
        found["restored"].scores["psnr"] == pytest.approx(80.0)
        and 15 < found["degraded"].scores["psnr"] < 25
    )
    assert (found["restored"].height, found["restored"].width) == (20, 24)
