"""The page of finished evaluations, and that it needs nothing but itself."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from lit_mimdit import cli
from lit_mimdit.evaluation.drawing import interval_plot, routing_plot, small, strip, ticks
from lit_mimdit.evaluation.report import Evaluation, labelled
from lit_mimdit.evaluation.weights import VARIABLE
from lit_mimdit.inference.run_record import write_record

from .conftest import noisy, picture, save


@pytest.fixture
def runs(folders, monkeypatch) -> list[str]:
    """Two evaluations: "out" with degraded images and router weights, "plain" without."""
    monkeypatch.setenv("TORCH_HOME", str(folders / "none"))
    monkeypatch.delenv(VARIABLE, raising=False)
    made = {
        "format": "lit_mimdit.restoration.1",
        "sampling": {"steps": 3},
        "fidelity": {"name": "f.safetensors", "weight": 0.5},
    }
    write_record(Path("restored"), made, {"05Noise/0005.png": [[0.1, 0.2, 0.3, 0.4], [0.25] * 4]})
    common = [
        "evaluate",
        "--restored",
        "restored",
        "--reference",
        "reference",
        "--metrics",
        "psnr,ssim_y,niqe",
        "--device",
        "cpu",
    ]
    assert cli.main([*common, "--degraded", "degraded", "-o", "out", "--name", "one & two"]) == 0
    assert cli.main([*common, "-o", "plain"]) == 0
    return ["out", "plain"]


def test_the_page_is_whole_in_itself(runs, capsys):
    assert cli.main(["report", *runs, "-o", "page", "--cases", "1", "--side", "64"]) == 0
    html, markdown = Path("page/report.html").read_text(), Path("page/report.md").read_text()
    assert (
        not re.search(r'(src|href)="(?!data:)', html)
        and "<script" not in html
        and "http" not in html.replace("http://www.w3.org", "")
    )
    summary = json.loads(Path("out/summary.json").read_text())
    mean = summary["groups"][-1]["versions"]["restored"]["psnr"]["mean"]
    for text in (html, markdown):
        assert (
            "steps 3" in text
            and "fidelity network" in text
            and "name f.safetensors, weight 0.5" in text
        )
        assert f"{mean:.2f} [" in text and "not computed: weights missing" in text
        assert "Best by PSNR RGB (dB)" in text and "Worst by PSNR RGB (dB)" in text
        assert text.index("01Blur/0000") < text.index("05Noise/0005"), (
            "less noise was added to the first"
        )
    assert "one &amp; two" in html and r"one \& two" in markdown
    colour = {
        re.search(r'fill="(#\w+)"/><text[^>]*>plain<', svg)[1]
        for svg in re.findall(r"<svg.*?</svg>", html)
        if ">plain<" in svg
    }
    assert len(colour) == 1, "a run has one colour in all plots"
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", markdown)
    assert pictures and all(Path("page", name).is_file() for name in pictures)
    assert sum("routing" in name for name in pictures) == 2, "only this image's weights are known"
    # two cases of each run: degraded, restored and reference, or without degraded
    assert sum(name.endswith(".png") for name in pictures) == 4
    assert html.count("data:image/png;base64,") == 2 * 3 + 2 * 2
    assert html.count('<input type="range" class="cut"') == 4
    assert "<span>degraded</span>" in html and "<span>reference</span>" in html
    for svg in re.findall(r"<svg.*?</svg>", html):
        ElementTree.fromstring(svg)


def test_several_runs_of_one_method_keep_its_name():
    def run(folder: str, name: str = "restored", system: str = "promptir.PromptIR") -> Evaluation:
        made = {"system": {"class_path": f"lit_mimdit.systems.{system}"}}
        return Evaluation(Path(folder), {"name": name, "restoration": made}, [], {})

    two = [run("seed_0"), run("seed_1"), run("dgunet", system="dgunet.DGUNet")]
    assert list(labelled(two)) == ["PromptIR (seed_0)", "PromptIR (seed_1)", "DGUNet"]
    named = [run("a", "PromptIR"), run("b"), run("c", "mine"), run("d", system="other.Other")]
    assert list(labelled(named)) == ["PromptIR", "PromptIR (b)", "mine", "d"]
    assert list(labelled([run("a")])) == ["PromptIR"]


def test_before_and_after_are_the_files(tmp_path):
    clean = picture(0, 40, 60)
    paths = [save(tmp_path / "a.png", noisy(clean, 20)), save(tmp_path / "b.png", clean)]
    whole, less = (strip([small(path, side) for path in paths]) for side in (100, 30))
    assert whole.size == (60 + 4 + 60, 40) and less.size == (30 + 4 + 30, 20)
    assert whole.crop((64, 0, 124, 40)).tobytes() == Image.open(paths[1]).tobytes()


def test_plots_place_values_on_their_axis():
    assert (
        ticks(0.0, 1.0) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
        and ticks(3.0, 3.0)[0] < ticks(3.0, 3.0)[-1]
    )
    value = {"mean": 25.0, "low": 20.0, "high": 30.0, "n": 3}
    root = ElementTree.fromstring(
        interval_plot("psnr", {"a <b>": {"Blur": value, "Rain": value | {"mean": None}}})
    )
    space = "{http://www.w3.org/2000/svg}"
    circle = root.find(f"{space}circle")
    assert circle.find(f"{space}title").text == "a <b>, Blur: 25.00 (N = 3)"
    (line,) = [e for e in root.findall(f"{space}line") if e.get("stroke-width")]
    assert (float(line.get("x1")) + float(line.get("x2"))) / 2 == pytest.approx(
        float(circle.get("cx")), abs=0.1
    )
    axis = {
        float(e.text): float(e.get("x"))
        for e in root.findall(f"{space}text")
        if e.get("fill") == "#555"
    }
    low, high = min(axis), max(axis)
    expected = axis[low] + (25.0 - low) / (high - low) * (axis[high] - axis[low])
    assert (
        float(circle.get("cx")) == pytest.approx(expected, abs=0.2)
        and low <= 20
        and high >= 30
        and max(axis.values()) <= 760
    )
    heights = [
        float(e.get("height"))
        for e in ElementTree.fromstring(routing_plot([[0.1, 0.2, 0.3, 0.4]], list("abcd")))
        if len(e)
    ]
    assert heights == pytest.approx([8, 16, 24, 32])


def test_what_is_no_evaluation_is_refused(runs, capsys):
    assert cli.main(["report", "reference", "-o", "page"]) == 2
    assert "reference: no summary.json here" in capsys.readouterr().err
    assert (
        cli.main(["report", "out", "out", "-o", "page"]) == 2
        and "two are called 'one & two'" in capsys.readouterr().err
    )
    assert (
        cli.main(["report", "out", "-o", "page", "--by", "lpips"]) == 2
        and "has no such scores" in capsys.readouterr().err
    )
    Path("out/summary.json").write_text('{"format": "other"}')
    assert (
        cli.main(["report", "out", "-o", "page"]) == 2
        and "of another version ('other'" in capsys.readouterr().err
    )
