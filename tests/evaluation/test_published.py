"""The paper's numbers as they are, and the marks beside them."""

import csv
from pathlib import Path

import pytest

from lit_mimdit.escaping import tex as escape
from lit_mimdit.evaluation import published
from lit_mimdit.evaluation.published import Entry, comparison, marks, read_published
from lit_mimdit.evaluation.tables import latex

PAPER = Path(published.__file__).parent / "paper"


def test_the_tables_come_with_the_package_whole():
    first, second = read_published(1), read_published(2)
    assert sum(map(len, first.values())) == 330 and sum(map(len, second.values())) == 264
    assert next(e.value for e in first["Blur", "LPIPS"] if e.method == "FoundIR") == 0.1722
    assert next(e.value for e in second["4KRD", "NIQE"] if e.method == "MiM-DiT (paper)") == 3.6536
    assert {path.name[:6] for path in PAPER.glob("*.csv")} == {f"table{i}" for i in range(1, 7)}
    with open(PAPER / "table6_routing_weights.csv", newline="") as file:
        assert sum(float(line["blur"]) for line in csv.DictReader(file)) == pytest.approx(
            1.0, abs=2e-3
        )


def test_best_and_second_follow_the_direction_and_ties_share():
    entries = [
        Entry("a", 0.30),
        Entry("b", 0.20),
        Entry("c", 0.20001),
        Entry("d", 0.25),
        Entry("e", 0.1, ranked=False),
    ]
    assert marks(entries, higher=False) == {"a": "", "b": "best", "c": "best", "d": "second"}
    assert marks(entries, higher=True) == {"a": "best", "b": "", "c": "", "d": "second"}


def summary(n: int, dataset: str = "FoundIR", degradation: str = "01Blur", **values: float) -> dict:
    restored = {
        key: {"mean": value, "low": None, "high": None, "n": n} for key, value in values.items()
    }
    about = {"metrics": {"musiq": {"status": "not computed: weights missing (a.pth)"}}}
    return about | {
        "groups": [
            {
                "dataset": dataset,
                "degradation": degradation,
                "n": n,
                "versions": {"restored": restored},
            }
        ]
    }


def line(text: str, start: str) -> str:
    return next(found for found in text.splitlines() if found.startswith(start))


def test_ones_own_row_stands_beside_them_and_is_ranked_at_equal_n():
    text = comparison(summary(150, lpips=0.18, niqe=2.0), "mine", "markdown")
    assert "Table 1, Blur: published values and mine (mine: N = 150)" in text and "Haze" not in text
    assert (
        line(text, "| mine")
        == "| mine (this run) | <u>0.1800</u> | - | **2.0000** | - | not computed | - |"
    )
    assert (
        "**0.1722**" in line(text, "| FoundIR")
        and "<u>" not in line(text, "| DiffUIR |").split("|")[2]
    )
    assert "<u>2.9546</u>" in line(text, "| MiM-DiT (paper)")


def test_other_images_are_shown_but_never_ranked():
    text = comparison(summary(3, lpips=0.0001), "mine", "markdown")
    assert "other images than the published ones or their list unknown: not ranked" in text
    assert "| 0.0001 |" in line(text, "| mine") and "**0.1722**" in line(text, "| FoundIR")
    benchmark = comparison(summary(150, "UHD-LL", "all", fid=1.0), "mine", "markdown")
    assert "Table 2, UHD-LL" in benchmark and "**1.0000**" in line(benchmark, "| mine")
    assert comparison(summary(5, "", "all", lpips=0.1), "mine", "markdown") == ""


def test_latex_is_escaped_and_marked():
    text = comparison(summary(150, lpips=0.18), "mi_ne & co", "latex")
    assert r"mi\_ne \& co (this run) & \underline{0.1800}" in text and r"\textbf{0.1722}" in text
    assert (
        r"LPIPS $\downarrow$" in text
        and text.count(r"\begin{tabular}") == 1
        and "_" not in text.replace(r"\_", "")
    )
    assert escape("50% ↑") == r"50\% $\uparrow$"
    table = latex(
        ["degradation", "N", "PSNR ↑"], [["01_Blur", "2", "3"], ["all", "2", "3"]], "a title"
    )
    assert r"\begin{tabular}{lrr}" in table and r"01\_Blur & 2 & 3 \\" in table
