"""Names in figures keep their letters, or have codes in the place of boxes."""

import warnings

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from lit_mimdit.data import fonts
from lit_mimdit.data.fonts import lettering
from lit_mimdit.evaluation.figures import STYLE, pixels, png, svg

LACKING = "\U00010c00"  # Old Turkic: no font that comes with matplotlib has it


@pytest.mark.parametrize("text", ["plain", "ähnlich", "Привет", "α = 0.5, ΔE"])
def test_letters_of_a_font_stay(text):
    assert lettering(text) == text


def test_a_letter_that_no_font_has_becomes_its_code(monkeypatch):
    monkeypatch.setitem(STYLE, "font.family", ["DejaVu Sans"])
    monkeypatch.setattr(fonts, "families", lambda: ("DejaVu Sans",))
    fonts._has.cache_clear()
    shown = lettering(f"a{LACKING}")
    assert shown != f"a{LACKING}" and shown.isascii() and "10c00" in shown
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = Figure()
        figure.suptitle(shown)
        png(figure)
        figure.suptitle(f"a{LACKING}")
        with pytest.raises(UserWarning, match="missing from font"):
            png(figure)


def test_a_figure_is_arranged_once_for_all_its_files(monkeypatch):
    arranged = []
    real = ConstrainedLayoutEngine.execute
    monkeypatch.setattr(
        ConstrainedLayoutEngine, "execute", lambda *args: arranged.append(1) or real(*args)
    )
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    axes.set_ylabel("a label of\nthree\nlines")
    before = axes.get_position().x0
    first = png(figure)
    assert svg(figure).startswith("<svg") and png(figure) == first and pixels(figure).any()
    assert len(arranged) == 1 and axes.get_position().x0 != before
    assert axes.yaxis.label.get_window_extent().x0 >= 0, "it lies in the figure"
