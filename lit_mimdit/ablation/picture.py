"""The differences of all variants as a forest plot."""

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from lit_mimdit.ablation.study import DEGRADED, Study
from lit_mimdit.csv_file import Row
from lit_mimdit.data.fonts import lettering
from lit_mimdit.evaluation.figures import STYLE
from lit_mimdit.evaluation.metrics import METRICS
from lit_mimdit.evaluation.summary import ALL

COLOURS = {
    "variant worse": "#d62728",
    "variant better": "#2ca02c",
    "undecided": "#7f7f7f",
    "no interval": "#c7c7c7",
}


@mpl.rc_context(STYLE)
def forest(study: Study, rows: list[Row]) -> Figure:
    """Draws a panel a metric with a line a variant.

    A line is the variant's mean difference to the full model over all images, with its interval.
    The input, where it was scored, has a line as well.
    """
    keys = [key for key in study.metrics if any(row["metric"] == key for row in rows)]
    scored = any(row["variant"] == DEGRADED for row in rows)
    names = [*[DEGRADED] * scored, *study.others]
    overall = {(r["variant"], r["metric"]): r for r in rows if r["degradation"] == ALL}
    figure = Figure(
        figsize=(1.6 + 1.9 * max(1, len(keys)), 1.1 + 0.28 * len(names)),
        dpi=110,
        layout="constrained",
    )
    axes = figure.subplots(1, max(1, len(keys)), squeeze=False, sharey=True)[0]
    for axis, key in zip(axes, keys, strict=False):
        metric = METRICS[key]
        axis.axvline(0, color="black", linewidth=0.8)
        for place, name in enumerate(names):
            row = overall.get((name, key))
            if row is None:
                continue
            colour = COLOURS[row["finding"]]
            axis.plot(row["difference"], place, "o", markersize=4, color=colour)
            if np.isfinite(row["low"]):
                axis.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=1.5)
        axis.set_title(f"{metric.label} {metric.arrow}")
        axis.tick_params(axis="x", rotation=45)
        axis.margins(x=0.1)
    axes[0].set_yticks(range(len(names)), [lettering(name) for name in names])
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    handles = [
        mpl.lines.Line2D([], [], color=colour, marker="o", markersize=4, label=name)
        for name, colour in COLOURS.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(f"variant - {lettering(study.full)}, all images")
    return figure
