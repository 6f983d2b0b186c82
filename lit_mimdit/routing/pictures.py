"""Pictures of routing, for TensorBoard, reports and notebooks alike: functions from arrays to
matplotlib figures.

L = blocks, G = groups, E = sub-experts, D = degradations.
"""

import io
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from lit_mimdit.data.fonts import families
from lit_mimdit.evaluation.drawing import GROUPS as COLOURS
from lit_mimdit.routing.table6 import Interval

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
WEIGHTS, SHARES = "RdBu_r", "viridis"
LEVELS = {"light": "#9ecae1", "medium": "#4292c6", "heavy": "#08306b"}


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


def _cells(
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


def _around(groups: int, largest: float = 0.0) -> TwoSlopeNorm:
    """Colours of Inter weights: white is the equal share 1 / G."""
    return TwoSlopeNorm(1 / groups, 0.0, min(1.0, max(2 / groups, largest)))


def _bar(figure: Figure, image: Any, axes: Any, label: str) -> None:
    figure.colorbar(
        image, ax=axes, fraction=0.05, pad=0.02, aspect=24, label=label
    ).outline.set_visible(False)


def _height(rows: int, pitch: float = 0.22) -> float:
    return pitch * rows


@mpl.rc_context(STYLE)
def heat_map(weights: np.ndarray, groups: list[str], title: str) -> Figure:
    """Returns the mean Inter weights (L, G) of one degradation, block by group."""
    blocks = len(weights)
    inner = (
        0.65 * len(groups),
        _height(blocks, 0.27),
    )  # inches; a fixed layout draws in half the time
    width, height = inner[0] + 1.5, inner[1] + 0.75
    figure = Figure(figsize=(width, height), dpi=110)
    axis = figure.add_axes((0.5 / width, 0.35 / height, inner[0] / width, inner[1] / height))
    image = _cells(
        axis,
        weights,
        [str(b) for b in range(blocks)],
        groups,
        _around(len(groups), weights.max()),
        WEIGHTS,
    )
    axis.set_ylabel("block")
    axis.set_title(title)
    bar = figure.colorbar(
        image,
        cax=figure.add_axes(
            ((inner[0] + 0.62) / width, 0.35 / height, 0.12 / width, inner[1] / height)
        ),
    )
    bar.set_label("mean Inter weight")
    bar.outline.set_visible(False)
    return figure


@mpl.rc_context(STYLE)
def heat_maps(
    weights: dict[str, np.ndarray], groups: list[str], title: str, columns: int = 5
) -> Figure:
    """Draws the heat maps of all degradations side by side, in one scale."""
    count, blocks = len(weights), max(len(some) for some in weights.values())
    across = min(columns, count)
    down = -(-count // across)
    size = (1.5 + 1.9 * across, 0.7 + down * (0.55 + _height(blocks, 0.2)))
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    norm = _around(len(groups), max(float(some.max()) for some in weights.values()))
    for axis in axes.ravel()[count:]:
        axis.set_axis_off()
    for number, (axis, (name, values)) in enumerate(
        zip(axes.ravel(), weights.items(), strict=False)
    ):
        image = _cells(
            axis,
            values,
            [str(b) for b in range(blocks)],
            groups,
            norm,
            WEIGHTS,
            2 if blocks <= 12 else None,
        )
        axis.set_title(name)
        axis.tick_params(labelbottom=number + across >= count)
        if number % across == 0:
            axis.set_ylabel("block")
    figure.colorbar(
        image, ax=axes, fraction=0.04, pad=0.02, aspect=30, label="mean Inter weight"
    ).outline.set_visible(False)
    figure.suptitle(title)
    return figure


@mpl.rc_context(STYLE)
def table_picture(
    tables: dict[str, np.ndarray], degradations: list[str], groups: list[str], title: str
) -> Figure:
    """Returns tables of mean Inter weights (D, G) side by side, such as the published one and one's
    own; NaN where there is none.
    """
    size = (0.9 + 2.9 * len(tables), 1.0 + _height(len(degradations), 0.34))
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    axes = figure.subplots(1, len(tables), squeeze=False, sharey=True)[0]
    norm = _around(len(groups), max(float(np.nanmax(table)) for table in tables.values()))
    for axis, (name, table) in zip(axes, tables.items(), strict=True):
        image = _cells(axis, table, degradations, groups, norm, WEIGHTS, 3)
        axis.set_title(name)
    _bar(figure, image, axes, "mean Inter weight")
    figure.suptitle(title)
    return figure


@mpl.rc_context(STYLE)
def interval_bars(
    own: Interval,
    published: np.ndarray | None,
    degradations: list[str],
    groups: list[str],
    title: str,
    zero: float,
) -> Figure:
    """Returns own means (D, G) as bars with their intervals, the published values as diamonds; the
    dashed line is `zero`.
    """
    figure = Figure(figsize=(1.2 + 1.75 * len(degradations), 3.0), dpi=110, layout="constrained")
    axes = figure.subplots(1, len(degradations), squeeze=False, sharey=True)[0]
    places = np.arange(len(groups))
    for d, (axis, name) in enumerate(zip(axes, degradations, strict=True)):
        colours = [COLOURS[g % len(COLOURS)] for g in range(len(groups))]
        axis.bar(places, own.mean[d] - zero, 0.72, bottom=zero, color=colours, alpha=0.85)
        reach = np.abs(np.stack([own.mean[d] - own.low[d], own.high[d] - own.mean[d]]))
        if np.isfinite(reach).all():
            axis.errorbar(
                places, own.mean[d], reach, fmt="none", ecolor="#222", elinewidth=1.2, capsize=3
            )
        if published is not None:
            axis.plot(
                places,
                published[d],
                "D",
                ms=6,
                mfc="white",
                mec="#c00000",
                mew=1.5,
                label="published",
            )
        axis.axhline(zero, ls="--", lw=0.8, color="#777", zorder=0)
        axis.set_xticks(places, groups, rotation=35, ha="right", rotation_mode="anchor")
        axis.set_title(name)
    axes[0].set_ylabel("mean Inter weight" if zero else "weight - mean over degradations")
    if published is not None:
        figure.legend(
            *axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False
        )
    figure.suptitle(title)
    return figure


@mpl.rc_context(STYLE)
def depth(
    weights: dict[str, np.ndarray], groups: list[str], title: str, columns: int = 5
) -> Figure:
    """Returns Inter weights (checkpoints, L, G) along the blocks, a panel a degradation.

    A thin line is a checkpoint, the bold one their mean.
    """
    across = min(columns, len(weights))
    down = -(-len(weights) // across)
    figure = Figure(figsize=(0.9 + 1.9 * across, 0.8 + 1.6 * down), dpi=110, layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    for axis in axes.ravel()[len(weights) :]:
        axis.set_axis_off()
    for axis, (name, values) in zip(axes.ravel(), weights.items(), strict=False):
        for group, label in enumerate(groups):
            colour = COLOURS[group % len(COLOURS)]
            if len(values) > 1:
                axis.plot(values[..., group].T, color=colour, lw=0.7, alpha=0.45)
            axis.plot(values[..., group].mean(0), color=colour, lw=2, marker="o", ms=3, label=label)
        axis.axhline(1 / len(groups), ls="--", lw=0.8, color="#777", zorder=0)
        axis.set_title(name)
        axis.set_xlim(-0.3, values.shape[1] - 0.7)
    for axis in axes[:, 0]:
        axis.set_ylabel("Inter weight")
    figure.supxlabel("block", fontsize=9)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    figure.suptitle(title)
    return figure


@mpl.rc_context(STYLE)
def share_map(shares: np.ndarray, groups: list[str], title: str, dead_below: float) -> Figure:
    """Returns the share of the images that each sub-expert worked on, (L, G, E), block by
    sub-expert; dead ones are crossed out.
    """
    blocks, count, experts = shares.shape
    flat = shares.reshape(blocks, -1)
    figure = Figure(
        figsize=(1.8 + 0.42 * flat.shape[1], 1.2 + _height(blocks, 0.27)),
        dpi=110,
        layout="constrained",
    )
    axis = figure.subplots()
    columns = [str(e) for _ in range(count) for e in range(experts)]
    image = _cells(
        axis, flat, [str(b) for b in range(blocks)], columns, mpl.colors.Normalize(0, 1), SHARES
    )
    for row, column in np.argwhere(flat < dead_below):
        axis.plot([column - 0.4, column + 0.4], [row - 0.4, row + 0.4], color="#ff5050", lw=1.2)
    for group, name in enumerate(groups):
        if group:
            axis.axvline(group * experts - 0.5, color="white", lw=3)
        axis.text(
            group * experts + (experts - 1) / 2,
            -0.72,
            name,
            ha="center",
            va="bottom",
            fontweight="bold",
        )
    axis.set_xlabel("sub-expert")
    axis.set_ylabel("block")
    axis.set_title(title, pad=20)
    _bar(figure, image, axis, "share of images")
    return figure


@mpl.rc_context(STYLE)
def severity_map(
    excess: dict[str, np.ndarray],
    q: dict[str, np.ndarray],
    groups: list[str],
    title: str,
    columns: int = 5,
) -> Figure:
    """Returns bits that severity and choice share beyond chance, (L, G) of each degradation; a star
    where q < 0.05.
    """
    across = min(columns, len(excess))
    down, blocks = -(-len(excess) // across), len(next(iter(excess.values())))
    figure = Figure(
        figsize=(1.5 + 1.9 * across, 0.7 + down * (0.55 + _height(blocks, 0.2))),
        dpi=110,
        layout="constrained",
    )
    axes = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    for axis in axes.ravel()[len(excess) :]:
        axis.set_axis_off()
    largest = max(0.05, *(float(some.max()) for some in excess.values()))
    for number, (axis, (name, values)) in enumerate(
        zip(axes.ravel(), excess.items(), strict=False)
    ):
        norm = mpl.colors.Normalize(0, largest)
        image = _cells(axis, values, [str(b) for b in range(blocks)], groups, norm, "magma_r", None)
        for row, column in np.argwhere(q[name] < 0.05):
            dark = values[row, column] > largest / 2
            axis.text(
                column,
                row + 0.08,
                "*",
                ha="center",
                va="center",
                fontsize=11,
                color="white" if dark else "black",
            )
        axis.set_title(name)
        axis.tick_params(labelbottom=number + across >= len(excess))
        if number % across == 0:
            axis.set_ylabel("block")
    _bar(figure, image, axes, "bits beyond chance")
    figure.suptitle(title)
    return figure


@mpl.rc_context(STYLE)
def severity_bars(cases: dict[str, dict[str, np.ndarray]], title: str) -> Figure:
    """Returns the share of the images of each severity that chose each sub-expert (E,), a panel a
    case (router and degradation).
    """
    figure = Figure(figsize=(1.6 + 2.3 * len(cases), 2.8), dpi=110, layout="constrained")
    axes = figure.subplots(1, len(cases), squeeze=False, sharey=True)[0]
    for axis, (name, levels) in zip(axes, cases.items(), strict=True):
        width = 0.8 / len(levels)
        for number, (level, shares) in enumerate(levels.items()):
            colour = LEVELS.get(level, COLOURS[number % len(COLOURS)])
            axis.bar(
                np.arange(len(shares)) + (number - (len(levels) - 1) / 2) * width,
                shares,
                width,
                color=colour,
                label=level,
            )
        axis.set_xticks(range(len(shares)))
        axis.set_xlabel("sub-expert")
        axis.set_title(name)
    axes[0].set_ylabel("share of images")
    axes[0].set_ylim(0, 1)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    figure.suptitle(title)
    return figure
