"""Figures of matplotlib: their style, and what becomes a file or a part of a page."""

import io
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

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
    "font.family": list(families()),
}


def arrange(figure: Figure) -> None:
    """Arrange what a figure holds, once: matplotlib would do so twice for every file of it."""
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.execute(figure)
        figure.set_layout_engine("none")


def pixels(figure: Figure) -> np.ndarray:
    """(H, W, 3) uint8."""
    arrange(figure)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def svg(figure: Figure) -> str:
    """Returns a figure as SVG text, to stand in a page."""
    buffer = io.StringIO()
    with mpl.rc_context(STYLE):
        arrange(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :].rstrip()


def png(figure: Figure, dpi: int = 150) -> bytes:
    """Returns the bytes of a figure's PNG file."""
    buffer = io.BytesIO()
    arrange(figure)
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()
