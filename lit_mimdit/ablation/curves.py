"""How the runs of a study learn: their training losses, step by step, from what TensorBoard
recorded.

All runs of one seed see the same pairs with the same noise and times, so the loss of a variant at a
step is comparable with the full model's at that step, far more closely than two steps of one run
are.
"""

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_mimdit.ablation.runs import Run
from lit_mimdit.ablation.study import Study
from lit_mimdit.routing.pictures import STYLE

TAG = "train/loss"
MARKERS = "osv^D*"


def losses(run: Run) -> dict[int, float]:
    """Training loss by step, as far as it was logged."""
    folder = run.folder / "log"
    if not folder.is_dir():
        return {}
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return (
        {event.step: event.value for event in events.Scalars(TAG)}
        if TAG in events.Tags()["scalars"]
        else {}
    )


def curves(runs: list[Run]) -> list[dict[str, Any]]:
    """A row a run and logged step."""
    return [
        {"variant": run.variant, "seed": run.seed, "step": step, "loss": loss}
        for run in runs
        for step, loss in sorted(losses(run).items())
    ]


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Means of `width` neighbours, (n,) -> (n - width + 1,)."""
    return np.convolve(values, np.full(width, 1 / width), mode="valid")


def mean_curve(
    rows: list[dict[str, Any]], variant: str, full: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Steps and loss of a variant, means over its seeds; with `full` divided by that one's loss of
    the same seed and step.

    A step that a seed passed without logging it is left out: a run that goes on after a kill may
    log one of its own, and the mean would jump there.
    """
    found: dict[int, dict[int, float]] = {}  # by seed, by step
    other = {(row["seed"], row["step"]): row["loss"] for row in rows if row["variant"] == full}
    for row in rows:
        if row["variant"] == variant and (full is None or (row["seed"], row["step"]) in other):
            found.setdefault(row["seed"], {})[row["step"]] = row["loss"] / (
                1 if full is None else other[row["seed"], row["step"]]
            )
    logged = sorted(set().union(*found.values()))
    steps = [
        step for step in logged if all(step in seed or step > max(seed) for seed in found.values())
    ]
    values = [np.mean([seed[step] for seed in found.values() if step in seed]) for step in steps]
    return np.array(steps), np.array(values)


@mpl.rc_context(STYLE)
def picture(study: Study, rows: list[dict[str, Any]]) -> Figure:
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
                smooth(steps, width), smooth(values, width), label=name, linewidth=1.2, **style
            )
    right.axhline(1, color="black", linewidth=0.8)
    for axis, title in ((left, "training loss"), (right, f"training loss / that of {study.full}")):
        axis.set(title=title, xlabel="step")
    figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure
