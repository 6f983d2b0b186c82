"""Heat maps of routing, with their numbers."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

WEIGHTS = "RdBu_r"


def cells(
    axis: Axes,
    values: np.ndarray,
    rows: list[str],
    columns: list[str],
    norm: Any,
    cmap: str,
    digits: int | None = 2,
) -> Any:
    """A heat map with its numbers written in."""
    image = axis.imshow(values, cmap=cmap, norm=norm, aspect="auto", interpolation="nearest")
    axis.set_xticks(range(len(columns)), columns)
    axis.set_yticks(range(len(rows)), rows)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    if digits is not None:
        colours = image.cmap(image.norm(values))
        light = colours[..., :3] @ np.array([0.299, 0.587, 0.114]) > 0.5
        size = 8 if len(rows) <= 12 else 6
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                shade = "black" if light[row, column] else "white"
                axis.text(
                    column,
                    row,
                    f"{value:.{digits}f}",
                    ha="center",
                    va="center",
                    fontsize=size,
                    color=shade,
                )
    return image


def around_equal_share(groups: int, largest: float = 0.0) -> TwoSlopeNorm:
    """Colours of Inter weights: white is the equal share 1 / G."""
    return TwoSlopeNorm(1 / groups, 0.0, min(1.0, max(2 / groups, largest)))


def colour_bar(figure: Figure, image: Any, axes: Any, label: str) -> None:
    figure.colorbar(
        image, ax=axes, fraction=0.05, pad=0.02, aspect=24, label=label
    ).outline.set_visible(False)


def height_of(rows: int, pitch: float = 0.22) -> float:
    return pitch * rows
