"""Pictures of Inter weights, for TensorBoard, reports and notebooks alike: functions from arrays to
matplotlib figures. `choice_pictures` has those of the Intra routers.

L = blocks, G = groups, D = degradations.
"""

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from lit_mimdit.data.fonts import lettering
from lit_mimdit.evaluation.drawing import COLOURS
from lit_mimdit.evaluation.figures import STYLE
from lit_mimdit.routing.heat_map import (
    WEIGHTS,
    around_equal_share,
    cells,
    colour_bar,
    height_of,
)
from lit_mimdit.routing.table6 import Interval


@mpl.rc_context(STYLE)
def heat_map(weights: np.ndarray, groups: list[str], title: str) -> Figure:
    """Returns the mean Inter weights (L, G) of one degradation, block by group."""
    blocks = len(weights)
    inner = (
        0.65 * len(groups),
        height_of(blocks, 0.27),
    )  # inches; a fixed layout draws in half the time
    width, height = inner[0] + 1.5, inner[1] + 0.75
    figure = Figure(figsize=(width, height), dpi=110)
    axis = figure.add_axes((0.5 / width, 0.35 / height, inner[0] / width, inner[1] / height))
    image = cells(
        axis,
        weights,
        [str(b) for b in range(blocks)],
        groups,
        around_equal_share(len(groups), weights.max()),
        WEIGHTS,
    )
    axis.set_ylabel("block")
    axis.set_title(lettering(title))
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
    size = (1.5 + 1.9 * across, 0.7 + down * (0.55 + height_of(blocks, 0.2)))
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    norm = around_equal_share(len(groups), max(float(some.max()) for some in weights.values()))
    for axis in axes.ravel()[count:]:
        axis.set_axis_off()
    for number, (axis, (name, values)) in enumerate(
        zip(axes.ravel(), weights.items(), strict=False)
    ):
        image = cells(
            axis,
            values,
            [str(b) for b in range(blocks)],
            groups,
            norm,
            WEIGHTS,
            2 if blocks <= 12 else None,
        )
        axis.set_title(lettering(name))
        axis.tick_params(labelbottom=number + across >= count)
        if number % across == 0:
            axis.set_ylabel("block")
    figure.colorbar(
        image, ax=axes, fraction=0.04, pad=0.02, aspect=30, label="mean Inter weight"
    ).outline.set_visible(False)
    figure.suptitle(lettering(title))
    return figure


@mpl.rc_context(STYLE)
def table_picture(
    tables: dict[str, np.ndarray], degradations: list[str], groups: list[str], title: str
) -> Figure:
    """Returns tables of mean Inter weights (D, G) side by side, such as the published one and one's
    own; NaN where there is none.
    """
    size = (0.9 + 2.9 * len(tables), 1.0 + height_of(len(degradations), 0.34))
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    axes = figure.subplots(1, len(tables), squeeze=False, sharey=True)[0]
    norm = around_equal_share(
        len(groups), max(float(np.nanmax(table)) for table in tables.values())
    )
    for axis, (name, table) in zip(axes, tables.items(), strict=True):
        image = cells(axis, table, degradations, groups, norm, WEIGHTS, 3)
        axis.set_title(lettering(name))
    colour_bar(figure, image, axes, "mean Inter weight")
    figure.suptitle(lettering(title))
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
        axis.set_title(lettering(name))
    axes[0].set_ylabel("mean Inter weight" if zero else "weight - mean over degradations")
    if published is not None:
        figure.legend(
            *axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False
        )
    figure.suptitle(lettering(title))
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
        axis.set_title(lettering(name))
        axis.set_xlim(-0.3, values.shape[1] - 0.7)
    for axis in axes[:, 0]:
        axis.set_ylabel("Inter weight")
    figure.supxlabel("block", fontsize=9)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    figure.suptitle(lettering(title))
    return figure
