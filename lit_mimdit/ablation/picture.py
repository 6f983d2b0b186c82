"""The differences of all variants as a forest plot, and what they gain on their input as a map."""

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from lit_mimdit.ablation.results import named_lines
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
    names = [name for name in named_lines(study, rows) if name != study.full]
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


@mpl.rc_context(STYLE)
def gains(study: Study, rows: list[Row]) -> Figure | None:
    """Draws what each variant gains on the degraded images, by degradation; red is a loss.

    It is of the study's first metric whose input was scored. None where none was.
    """
    values = {(row["variant"], row["metric"], row["degradation"]): row["value"] for row in rows}
    key = next((key for key in study.metrics if (DEGRADED, key, ALL) in values), None)
    if key is None:
        return None
    metric = METRICS[key]
    kinds = list(dict.fromkeys(row["degradation"] for row in rows if row["metric"] == key))
    names = [name for name in study.variants if (name, key, ALL) in values]
    sign = 1 if metric.higher else -1
    inputs = np.array([values[DEGRADED, key, kind] for kind in kinds])
    own = [[values[name, key, kind] for kind in kinds] for name in names]
    gained = sign * (np.array(own) - inputs)
    # one system that fails wholly should not make the others pale
    most = max(float(np.quantile(np.abs(gained), 0.9)), 1e-9)
    wide, tall = max(4.8, 2.6 + 0.42 * len(kinds)), max(3.0, 1.8 + 0.3 * len(names))
    figure = Figure(figsize=(wide, tall), dpi=110, layout=ConstrainedLayoutEngine(w_pad=0.15))
    axis = figure.subplots()
    axis.imshow(gained, cmap="RdBu", vmin=-most, vmax=most, aspect="auto")
    for place, value in np.ndenumerate(gained):
        dark = abs(value) > 0.6 * most
        text = f"{value:+.1f}" if most >= 1 else f"{value:+.2f}"
        at = place[1], place[0]
        axis.text(*at, text, ha="center", va="center", size=6, color="white" if dark else "black")
    axis.set_xticks(range(len(kinds)), [lettering(kind) for kind in kinds], rotation=60, ha="right")
    axis.set_yticks(range(len(names)), [lettering(name) for name in names])
    axis.tick_params(length=0)
    better = "" if metric.higher else ", sign turned so that more is better"
    figure.suptitle(f"{metric.label}: gain on the degraded images{better}")
    return figure
