"""Figures of matplotlib: their style, and what becomes a file or a part of a page."""

import io
from functools import cache
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lit_mimdit.console import readable
from lit_mimdit.data.fonts import families

STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "figure.titlesize": 11,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "routing",
    # names of users: a dollar sign is no formula, and their letters may need another font
    "text.parse_math": False,
    "font.family": list(dict.fromkeys(["DejaVu Sans", *families()])),
}


def lettering(text: str) -> str:
    """Returns a user's text for a figure: letters that no font of this machine has become codes.

    matplotlib draws boxes for them, and then all Chinese names look the same.
    """
    return "".join(c if c.isascii() or _has(c) else readable(c) for c in text)


@cache
def _has(letter: str) -> bool:
    """Whether one of the style's fonts has a letter."""
    fonts = map(font_manager.findfont, STYLE["font.family"])
    return any(font_manager.get_font(path).get_char_index(ord(letter)) for path in fonts)


def pixels(figure: Figure) -> np.ndarray:
    """(H, W, 3) uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def svg(figure: Figure) -> str:
    """Returns a figure as SVG text, to stand in a page."""
    buffer = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :].rstrip()


def png(figure: Figure, dpi: int = 150) -> bytes:
    """Returns the bytes of a figure's PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()
