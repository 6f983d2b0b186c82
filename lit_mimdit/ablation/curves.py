"""Curves of the training losses of a study's runs, as TensorBoard recorded them.

All runs of one seed see the same pairs with the same noise and times. So the loss of a variant at a
step is comparable with the full model's at that step. Two steps of one run are far less comparable.
"""

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_mimdit.ablation.runs import Run
from lit_mimdit.ablation.study import Study
from lit_mimdit.csv_file import Row
from lit_mimdit.data.fonts import lettering
from lit_mimdit.evaluation.figures import STYLE

TAG = "train/loss"
MARKERS = "osv^D*"


def losses(run: Run) -> dict[int, float]:
    """Returns the training loss by step, as far as it was logged."""
    folder = run.folder / "log"
    if not folder.is_dir():
        return {}
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    if TAG not in events.Tags()["scalars"]:
        return {}
    return {event.step: event.value for event in events.Scalars(TAG)}


def curves(runs: list[Run]) -> list[Row]:
    """Returns a row a run and logged step."""
    rows = []
    for run in runs:
        about = {"variant": run.variant, "seed": run.seed}
        for step, loss in sorted(losses(run).items()):
            rows.append(about | {"step": step, "loss": loss})
    return rows


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Returns means of `width` neighbours, (n,) -> (n - width + 1,)."""
    return np.convolve(values, np.full(width, 1 / width), mode="valid")


Curve = dict[int, float]  # loss by step


def curves_by_seed(rows: list[Row], variant: str) -> dict[int, Curve]:
    """Returns the curve of each run of a variant."""
    by_seed: dict[int, Curve] = {}
    for row in rows:
        if row["variant"] == variant:
            by_seed.setdefault(row["seed"], {})[row["step"]] = row["loss"]
    return by_seed


def ratio(curve: Curve, full: Curve) -> Curve:
    """Returns a curve divided by the full model's, where both have a loss."""
    return {step: loss / full[step] for step, loss in curve.items() if step in full}


def common_steps(curves_of_seeds: list[Curve]) -> list[int]:
    """Returns steps at which each run either logged a loss or had ended.

    A step that a run passed without logging it is left out. A run that goes on after a kill may log
    a step of its own, and the mean would jump there.
    """
    logged: set[int] = set()
    for curve in curves_of_seeds:
        logged |= curve.keys()
    for curve in curves_of_seeds:
        logged = {step for step in logged if step in curve or step > max(curve)}
    return sorted(logged)


def mean_curve(
    rows: list[Row], variant: str, full: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns steps and loss of a variant, both (n,), as means over its seeds.

    With `full` each loss is divided by that of `full` at the same seed and step.
    """
    by_seed = curves_by_seed(rows, variant)
    if full is not None:
        of_full = curves_by_seed(rows, full)
        by_seed = {seed: ratio(curve, of_full.get(seed, {})) for seed, curve in by_seed.items()}
    runs = [curve for curve in by_seed.values() if curve]
    steps = common_steps(runs)
    means = []
    for step in steps:
        means.append(np.mean([curve[step] for curve in runs if step in curve]))
    return np.array(steps), np.array(means)


@mpl.rc_context(STYLE)
def picture(study: Study, rows: list[Row]) -> Figure:
    """Left the losses, right each variant's divided by the full model's."""
    figure = Figure(figsize=(9.6, 4.4), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    colours = mpl.colormaps["tab20"].resampled(20)
    for number, name in enumerate(study.variants):
        for axis, full in ((left, None), (right, study.full)):
            steps, values = mean_curve(rows, name, full)
            width = max(1, len(steps) // 6)
            if not len(steps) or (full == name and axis is right):
                continue
            style = {
                "color": colours(number % 20),
                "marker": MARKERS[number % len(MARKERS)],
                "markevery": 0.2,
                "markersize": 4,
            }
            axis.plot(
                smooth(steps, width),
                smooth(values, width),
                label=lettering(name),
                linewidth=1.2,
                **style,
            )
    right.axhline(1, color="black", linewidth=0.8)
    relative = f"training loss / that of {lettering(study.full)}"
    for axis, title in ((left, "training loss"), (right, relative)):
        axis.set(title=title, xlabel="step")
    figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure
