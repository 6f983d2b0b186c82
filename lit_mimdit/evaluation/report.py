"""`python -m lit_mimdit report` writes one page of finished evaluations.

HTML has everything inside; Markdown has its pictures beside it.
"""

import json
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from lit_mimdit import csv_file
from lit_mimdit.data.image_io import ImageError
from lit_mimdit.evaluation.drawing import interval_plot, routing_plot, small
from lit_mimdit.evaluation.league import label_of, leagues, markdown_of
from lit_mimdit.evaluation.metrics import METRICS, choose
from lit_mimdit.evaluation.page import Page
from lit_mimdit.evaluation.published import comparison
from lit_mimdit.evaluation.score_files import ROUTING, SCORES, SUMMARY, titled_tables
from lit_mimdit.evaluation.summary import FORMAT
from lit_mimdit.evaluation.tables import footnotes

PICTURED = ("degraded", "restored", "reference")
INTER = ["spatial", "channel", "swin", "se"]


@dataclass
class Evaluation:
    """A finished evaluation is a folder, a summary and the scores of each image.

    Inter-MoE weights by image are there where they are known.
    """

    folder: Path
    summary: dict[str, Any]
    scores: list[dict[str, str]]
    routing: dict[str, list[list[float]]]

    @property
    def name(self) -> str:
        return self.summary["name"] if self.summary["name"] != "restored" else self.folder.name

    @property
    def without_routers(self) -> bool:
        """Returns whether the images are known to have no Inter weights.

        What restored them then has no routers.
        """
        return bool(self.routing) and not any(self.routing.values())


def read_run(folder: Path) -> Evaluation:
    """Returns an `evaluate` folder, or the log folder of a `test` or `validate`.

    Raises ValueError if it is none.
    """
    prefix = next(
        (prefix for prefix in ("", "test_", "val_") if (folder / f"{prefix}{SUMMARY}").is_file()),
        None,
    )
    if prefix is None:
        raise ValueError(
            f"{folder}: no {SUMMARY} here; make it with `python -m lit_mimdit evaluate` or `test`"
        )
    path = folder / f"{prefix}{SUMMARY}"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        scores = csv_file.read(folder / f"{prefix}{SCORES}")
        routing = folder / f"{prefix}{ROUTING}"
        weights = json.loads(routing.read_text(encoding="utf-8")) if routing.is_file() else {}
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder}: its results cannot be read ({error}); evaluate again"
        ) from error
    if summary.get("format") != FORMAT:
        raise ValueError(
            f"{path}: of another version ({summary.get('format')!r} instead of {FORMAT!r});"
            " evaluate again"
        )
    return Evaluation(folder, summary, scores, weights)


def report(
    runs: list[Path], *, output: Path, by: str | None = None, cases: int = 3, side: int = 360
) -> None:
    """Make one page of evaluations: report.html (self-contained), and report.md with its pictures
    beside it.

    Args:
        runs: Folders written by `evaluate`, or log folders of `test`.
        output: Folder to write.
        by: Metric that decides which cases are best and worst. Unless given it is the first that
            every image has.
        cases: Best and worst cases shown of each run.
        side: Largest side of a picture, pixels.
    """
    if cases < 0 or side < 16:
        raise ValueError(
            f"cases is {cases} and side {side}: cases must be 0 or more, side at least 16"
        )
    evaluated = [read_run(folder) for folder in runs]
    names = [run.name for run in evaluated]
    if len(set(names)) < len(names):
        raise ValueError(
            f"runs: two are called {next(n for n in names if names.count(n) > 1)!r}; give them"
            " names with `evaluate --name`"
        )
    output.mkdir(parents=True, exist_ok=True)
    page = Page("Evaluation: " + ", ".join(names), output)
    add_plots(page, evaluated)
    add_leagues(page, evaluated)
    for run in evaluated:
        add_run(page, run, by, cases, side)
    page.write()
    print(f"{output / 'report.html'}, {output / 'report.md'}")


def add_plots(page: Page, runs: list[Evaluation]) -> None:
    """A plot a metric, all runs in it, by degradation."""
    page.heading("By degradation", 2)
    series: dict[str, dict[str, dict[str, Any]]] = {}
    for run in runs:
        several = len({group["dataset"] for group in run.summary["groups"]}) > 1
        for group in run.summary["groups"]:
            label = " ".join(
                filter(None, [group["dataset"] if several else "", group["degradation"]])
            )
            for version in [v for v in ("degraded", "restored") if v in group["versions"]]:
                name = run.name if version == "restored" else f"{run.name}, degraded"
                for key, value in group["versions"][version].items():
                    series.setdefault(key, {}).setdefault(name, {})[label] = value
    names = list(dict.fromkeys(name for values in series.values() for name in values))
    for key in [key for key in METRICS if key in series]:
        shown = chain.from_iterable(values.values() for values in series[key].values())
        if any(value["mean"] is not None for value in shown):
            lines = {
                name: series[key].get(name, {}) for name in names
            }  # a run has its colour in every plot
            page.svg(interval_plot(key, lines), f"plot_{key.replace('+', 'plus')}")


def add_leagues(page: Page, runs: list[Evaluation]) -> None:
    """The methods of the paper's tables 1 and 2 in its order, with one's own numbers beside."""
    for league in leagues(labelled(runs)):
        page.heading(league.title, 2)
        page.markdown_tables(markdown_of(league))


def labelled(runs: list[Evaluation]) -> dict[str, dict[str, Any]]:
    """Returns the summaries of runs by their row; a method's several runs have their names in it,
    as in "PromptIR (seed_1)".
    """
    labels, own = [label_of(run.summary) for run in runs], {}
    for run, label in zip(runs, labels):
        if label == "restored":
            label = run.name
        elif labels.count(label) > 1 and label != run.name:
            label = f"{label} ({run.name})"
        own[label] = run.summary
    return own


def add_run(page: Page, run: Evaluation, by: str | None, cases: int, side: int) -> None:
    """Tables, notes, provenance, published numbers and cases of one run."""
    page.heading(run.name, 2)
    page.pairs(provenance(run.summary))
    for title, head, body in titled_tables(run.summary):
        page.heading(title, 3)
        page.table(head, body)
    page.items(footnotes(run.summary))
    if run.summary["failed"]:
        page.heading("Failed", 3)
        page.items(
            [
                f"{f['id']}, {f['version']}, {f['metric']}: {f['reason']}"
                for f in run.summary["failed"]
            ]
        )
    beside = comparison(run.summary, run.summary["name"], "markdown")
    if beside:
        page.heading("Beside the published numbers", 3)
        page.markdown_tables(beside)
    if run.without_routers:
        page.text("No routers: this system has none.")
    add_cases(page, run, by, cases, side)


def provenance(summary: dict[str, Any]) -> dict[str, str]:
    """Returns what the numbers come from, as text."""
    made = summary.get("restoration") or {}
    checkpoint, sampling, fidelity = (
        made.get(key) or {} for key in ("checkpoint", "sampling", "fidelity")
    )
    about = {
        "images": (
            f"{sum(summary['sizes'].values())}"
            f" ({', '.join(f'{n} of {size}' for size, n in list(summary['sizes'].items())[:6])})"
        ),
        "image rule": summary["image_rule"],
        "checkpoint": (
            f"{checkpoint['name']} (sha256 {checkpoint['sha256'][:16]})"
            if checkpoint
            else "not recorded"
        ),
        "config hash": made.get("config_hash", "not recorded"),
        "sampling": (
            ", ".join(f"{key} {value}" for key, value in sampling.items()) or "not recorded"
        ),
        "fidelity network": (
            ", ".join(f"{key} {str(value)[:20]}" for key, value in fidelity.items())
            or "none recorded"
        ),
        "seed": str(made.get("seed", "not recorded")),
        "colour fix": made.get("colour_fix", "not recorded"),
        "restored at commit": str(made.get("commit") or "not recorded"),
        "evaluated at commit": str(summary.get("commit") or made.get("commit") or "not recorded"),
    }
    if "mixed" in made:
        about["checkpoint"] = f"{len(made['mixed'])} different settings, all in summary.json"
    for key, value in summary["metrics"].items():
        files = ", ".join(f"{name} {digest[:16]}" for name, digest in value["weights"].items())
        about[key] = value["version"] + (f"; {files}" if files else "")
    return about


def ranking(run: Evaluation, by: str | None) -> tuple[str, list[dict[str, str]]] | None:
    """Returns the metric and its images from best to worst, or None if no image has a score."""
    keys = (
        [metric.key for metric in choose(by, "by")]
        if by
        else [key for key in run.summary["metrics"] if METRICS[key].needs != "set"]
    )
    for key in keys:
        column = f"restored_{key}"
        scored = [row for row in run.scores if row.get(column)]
        if scored:
            return key, sorted(
                scored, key=lambda row: csv_file.number(row[column]), reverse=METRICS[key].higher
            )
    if by:
        raise ValueError(
            f"by is {by!r}: {run.folder} has no such scores; it has"
            f" {', '.join(run.summary['metrics'])}"
        )
    return None


def add_cases(page: Page, run: Evaluation, by: str | None, cases: int, side: int) -> None:
    """Best and worst images as before/after strips with their router weights."""
    ranked = ranking(run, by)
    if ranked is None or cases == 0:
        return
    key, rows = ranked
    best = rows[:cases]
    worst = [row for row in reversed(rows) if row not in best][:cases]
    for title, chosen in (
        (f"Best by {METRICS[key].label}", best),
        (f"Worst by {METRICS[key].label}", worst),
    ):
        if chosen:
            page.heading(title, 3)
        for number, row in enumerate(chosen):
            add_case(page, run, row, side, f"{run.name}_{title.split()[0]}_{number}".lower())


def add_case(page: Page, run: Evaluation, row: dict[str, str], side: int, name: str) -> None:
    """One image: its versions side by side, its scores, its router weights."""
    shown = [v for v in PICTURED if row.get(f"{v}_file")]
    keys = [key for key in run.summary["metrics"] if row.get(f"restored_{key}")]
    scores = "; ".join(f"{METRICS[k].label} {_change(row, k)}" for k in keys)
    kind = f" ({row['degradation']})" if row["degradation"] else ""
    page.text(f"{row['id']}{kind}: {scores}")
    if not shown:
        page.text(
            "no pictures: this run kept none (ResultTable's keep_images: true keeps those of"
            " `test`)"
        )
    else:
        try:
            pictures = {v: small(run.folder / row[f"{v}_file"], side) for v in shown}
        except ImageError as error:
            page.text(f"no pictures: {error}")
        else:
            page.compared(pictures, name)
    blocks = run.routing.get(row["id"])
    if blocks:
        groups = (
            INTER if len(blocks[0]) == len(INTER) else [f"group {i}" for i in range(len(blocks[0]))]
        )
        page.svg(
            routing_plot(blocks, groups),
            f"{name}_routing",
            "Inter-MoE weights, a bar a block of the transformer",
        )


def _change(row: dict[str, str], key: str) -> str:
    digits = METRICS[key].decimals
    known = [row[f"{v}_{key}"] for v in ("degraded", "restored") if row.get(f"{v}_{key}")]
    return " -> ".join(f"{csv_file.number(value):.{digits}f}" for value in known)
