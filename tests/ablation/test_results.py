"""From scores to differences, verdicts and files, on files that the evaluation itself wrote."""

import csv
import json
import math

import numpy as np
import pytest

from lit_mimdit.ablation.picture import gains
from lit_mimdit.ablation.result_files import write_results
from lit_mimdit.ablation.results import finding, published_difference, read_runs, table, verdict
from lit_mimdit.ablation.runs import COST, all_runs
from lit_mimdit.ablation.study import PaperRow, Study, Variant
from lit_mimdit.evaluation.fid import frechet
from lit_mimdit.evaluation.intervals import crossed_interval, t_interval
from lit_mimdit.evaluation.metrics import METRICS
from lit_mimdit.evaluation.record import ImageScores
from lit_mimdit.evaluation.score_files import write_scores
from lit_mimdit.evaluation.summary import summarise

SEEDS, KINDS, IMAGES = [0, 1, 2], ("01Blur", "08Haze"), 4
SHIFT = {"full": 0.0, "worse": 0.2, "same": 0.0}  # of LPIPS


@pytest.fixture(scope="module")
def study() -> Study:
    paper = PaperRow(3, "w/o Intra-MoE")
    variants = {
        "full": Variant(),
        "worse": Variant(lines={"a": 1}, paper=paper),
        "same": Variant(lines={"a": 2}, paper=paper),
    }
    return Study("base.yaml", "full", variants, SEEDS, ["lpips", "fid", "psnr"])


def features_of(variant: str, seed: int) -> np.ndarray:
    return (
        np.random.default_rng(seed)
        .normal(2.0 * SHIFT[variant], 1.0, (2 * IMAGES, 2048))
        .astype(np.float32)
    )


def write_test(run, study: Study) -> None:
    """A finished run.

    LPIPS and PSNR differ between images, a little between seeds, and between variants by SHIFT.
    """
    draw, rows = np.random.default_rng([run.seed, len(run.variant)]), []
    features = np.concatenate([features_of(run.variant, run.seed), features_of("full", 99)])
    for number in range(2 * IMAGES):
        about = (str(number), "", KINDS[number // IMAGES], 64, 64)
        lpips = 0.3 + 0.05 * number + SHIFT[run.variant] + 0.01 * draw.normal()
        scores = {"lpips": float(lpips), "psnr": float(20 + draw.normal())}
        rows.append(ImageScores(about[0], "restored", *about[1:], scores=scores, feature=number))
        if run.variant == "same":  # the others do not score their input
            given = {"psnr": 10.0 + number}
            rows.append(ImageScores(about[0], "degraded", *about[1:], scores=given))
        rows.append(ImageScores(about[0], "reference", *about[1:], feature=2 * IMAGES + number))
    keys = {"status": "computed", "published_weights": True, "cap_pixels": None}
    metrics = {
        key: keys | {"label": METRICS[key].label, "version": "", "weights": {}}
        for key in study.metrics
    }
    about = {"name": "restored", "image_rule": "whole", "restoration": {"commit": "abc"}}
    (run.folder / "test").mkdir(parents=True)
    write_scores(
        run.folder / "test", about | summarise(rows, features, metrics), rows, prefix="test_"
    )
    cost = {
        "trained_parameters": 10,
        "branch_flops": 20 + len(run.variant),
        "forward_flops": 40,
        "image": "64 x 64",
    }
    (run.folder / COST).write_text(json.dumps(cost))


@pytest.fixture(scope="module")
def rows(study, tmp_path_factory) -> tuple[list[dict], list, object]:
    folder = tmp_path_factory.mktemp("study")
    for run in all_runs(study, folder):
        write_test(run, study)
    tested = read_runs(all_runs(study, folder))
    return table(study, tested), tested, folder


def pick(rows: list[dict], variant: str, metric: str, degradation: str = "all") -> dict:
    return next(
        row
        for row in rows
        if (row["variant"], row["metric"], row["degradation"]) == (variant, metric, degradation)
    )


def scores(folder, variant: str, seed: int, column: str, kind: str = "all") -> np.ndarray:
    with open(
        folder / "runs" / variant / f"seed{seed}" / "test" / "test_scores.csv", newline=""
    ) as file:
        lines = sorted(csv.DictReader(file), key=lambda line: line["id"])
    return np.array([float(line[column]) for line in lines if kind in ("all", line["degradation"])])


@pytest.mark.parametrize("kind", ["all", *KINDS])
def test_differences_are_paired_by_seed_and_image(rows, kind):
    found, _, folder = rows
    apart = [
        scores(folder, "worse", s, "restored_lpips", kind)
        - scores(folder, "full", s, "restored_lpips", kind)
        for s in SEEDS
    ]
    row = pick(found, "worse", "lpips", kind)
    assert row["difference"] == pytest.approx(np.mean(apart)) and (
        row["seeds"],
        row["images"],
    ) == np.shape(apart)
    assert 0 < row["low"] < row["difference"] < row["high"] and row["high"] - row["low"] < 0.1, (
        "images differ by more, and cancel"
    )
    assert (
        row["finding"] == "variant worse"
        and pick(found, "same", "lpips", kind)["finding"] == "undecided"
    )


def test_fid_is_of_the_set_and_its_interval_over_seeds(rows):
    found, _, _ = rows
    row = pick(found, "worse", "fid")
    own, full = (
        np.array([frechet(features_of(v, s), features_of("full", 99)) for s in SEEDS])
        for v in ("worse", "full")
    )
    mean, low, high = t_interval(own - full)
    assert (row["value"], row["difference"]) == pytest.approx((own.mean(), mean), rel=1e-4)
    assert (row["low"], row["high"]) == pytest.approx((low, high), rel=1e-3)
    assert (row["interval_over"], row["seeds"], row["images"]) == ("seeds", 3, 2 * IMAGES)


def test_the_input_has_rows_of_its_own_where_a_test_scored_it(rows, study):
    found, tested, folder = rows
    row = pick(found, "degraded", "psnr", "08Haze")
    full = [scores(folder, "full", s, "restored_psnr", "08Haze") for s in SEEDS]
    assert (row["value"], row["images"], row["seeds"]) == (15.5, IMAGES, 3)  # of 14, 15, 16, 17
    assert row["difference"] == pytest.approx(15.5 - np.mean(full))
    assert row["finding"] == "variant worse"
    assert row["steps"] is row["trained_parameters"] is row["restore_flops_of_full"] is None
    assert {r["metric"] for r in found if r["variant"] == "degraded"} == {"psnr"}
    write_results(study, tested, folder, {})
    text = (folder / "results.md").read_text()
    assert "| degraded | 11.50 [" in text
    assert (folder / "gains.png").stat().st_size > 5000
    (axis,) = gains(study, found).axes
    shown = axis.images[0].get_array()
    assert shown.shape == (3, 3) and axis.images[0].get_clim()[0] == -axis.images[0].get_clim()[1]
    assert shown[0, 1] == pytest.approx(np.mean(full) - 15.5)
    without = table(study, [one for one in tested if one.run.variant != "same"])
    assert all(r["variant"] != "degraded" for r in without) and gains(study, without) is None


def test_every_value_has_an_interval_of_its_own(rows):
    """That of differences is narrower: images differ by more than variants, and cancel."""
    found, _, folder = rows
    for variant in SHIFT:
        row = pick(found, variant, "lpips")
        own = np.stack([scores(folder, variant, seed, "restored_lpips") for seed in SEEDS])
        ends = crossed_interval(own)[1:]
        assert (row["value_low"], row["value_high"]) == pytest.approx(ends, rel=1e-4)
        assert row["value_low"] < row["value"] < row["value_high"]
        assert row["value_high"] - row["value_low"] > 0.2
        of_set = pick(found, variant, "fid")
        distances = [frechet(features_of(variant, s), features_of("full", 99)) for s in SEEDS]
        expected = [float(end) for end in t_interval(np.array(distances))[1:]]
        assert [of_set["value_low"], of_set["value_high"]] == pytest.approx(expected, rel=1e-3)


def test_verdicts_need_the_whole_interval(rows, study):
    intervals = ((1, 2), (-2, -1), (-1, 1), (math.nan, math.nan))
    assert [finding(low, high, True) for low, high in intervals] == [
        "variant better",
        "variant worse",
        "undecided",
        "no interval",
    ]
    assert finding(1, 2, False) == "variant worse"
    assert verdict(0.1, 0.2, 0.03) == verdict(-0.2, -0.1, -0.03) == "confirmed in the small"
    assert (
        verdict(-0.2, -0.1, 0.03) == "not confirmed"
        and verdict(-0.1, 0.2, 0.03) == verdict(0.0, 0.2, 0.03) == "undecided"
    )
    found, _, _ = rows
    assert (
        pick(found, "worse", "lpips")["verdict"] == "confirmed in the small"
        and pick(found, "worse", "psnr")["verdict"] == ""
    )
    assert pick(found, "worse", "lpips")["paper_difference"] == pytest.approx(0.1873 - 0.1636)
    assert (
        published_difference(study, "worse", "fid") == (34.5619, 26.8815)
        and published_difference(study, "full", "fid") is None
    )


def test_files_say_the_same_as_the_rows(rows, study, tmp_path):
    found, tested, _ = rows
    write_results(study, tested, tmp_path, {"Study": "x.yaml"})
    with open(tmp_path / "results.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(found) == 3 * 3 * 3 + 3  # and PSNR of the input
    assert float(pick(lines, "worse", "lpips")["low"]) == pytest.approx(
        pick(found, "worse", "lpips")["low"], rel=1e-5
    )
    text, tex = (tmp_path / "results.md").read_text(), (tmp_path / "results.tex").read_text()
    row = pick(found, "worse", "lpips")
    shown = f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"
    assert (
        text.count(shown) == 3
        and text.count("confirmed in the small") >= 1
        and "0.1873" in text
        and "+0.0237" in text
    )
    assert (
        "25 of full" not in text
        and "(1.04 of full)" in text
        and shown in tex
        and tex.count(r"\toprule") == 8
    )
    value = f"{row['value']:.4f} [{row['value_low']:.4f}, {row['value_high']:.4f}]"
    assert value in text and value in tex and "## LPIPS" in text
    assert (tmp_path / "results.png").stat().st_size > 5000 and "worse" in (
        tmp_path / "results.svg"
    ).read_text()


def test_one_seed_gives_numbers_and_no_interval(rows, study):
    _, tested, _ = rows
    row = pick(table(study, [one for one in tested if one.run.seed == 1]), "worse", "lpips")
    assert (
        row["difference"] == pytest.approx(0.2, abs=0.05)
        and math.isnan(row["low"])
        and math.isnan(row["value_low"])
        and row["verdict"] == "no interval"
    )
