"""Pictures of what the Intra routers choose: shares of sub-experts, and choices by severity.

L = blocks, G = groups, E = sub-experts.
"""

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from lit_mimdit.data.fonts import lettering
from lit_mimdit.evaluation.drawing import COLOURS
from lit_mimdit.evaluation.figures import STYLE
from lit_mimdit.routing.heat_map import cells, colour_bar, height_of

SHARES = "viridis"
LEVELS = {"light": "#9ecae1", "medium": "#4292c6", "heavy": "#08306b"}


@mpl.rc_context(STYLE)
def share_map(shares: np.ndarray, groups: list[str], title: str, dead_below: float) -> Figure:
    """Returns the share of the images that each sub-expert worked on, (L, G, E), block by
    sub-expert; dead ones are crossed out.
    """
    blocks, count, experts = shares.shape
    flat = shares.reshape(blocks, -1)
    figure = Figure(
        figsize=(1.8 + 0.42 * flat.shape[1], 1.2 + height_of(blocks, 0.27)),
        dpi=110,
        layout="constrained",
    )
    axis = figure.subplots()
    columns = [str(e) for _ in range(count) for e in range(experts)]
    image = cells(
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
    axis.set_title(lettering(title), pad=20)
    colour_bar(figure, image, axis, "share of images")
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
        figsize=(1.5 + 1.9 * across, 0.7 + down * (0.55 + height_of(blocks, 0.2))),
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
        image = cells(axis, values, [str(b) for b in range(blocks)], groups, norm, "magma_r", None)
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
        axis.set_title(lettering(name))
        axis.tick_params(labelbottom=number + across >= len(excess))
        if number % across == 0:
            axis.set_ylabel("block")
    colour_bar(figure, image, axes, "bits beyond chance")
    figure.suptitle(lettering(title))
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
        axis.set_title(lettering(name))
    axes[0].set_ylabel("share of images")
    axes[0].set_ylim(0, 1)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    figure.suptitle(lettering(title))
    return figure
