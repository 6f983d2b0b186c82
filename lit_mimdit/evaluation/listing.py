"""`python -m lit_mimdit metrics`: what can be computed here, and what is missing."""

from pathlib import Path

from lit_mimdit.evaluation import weights
from lit_mimdit.evaluation.metrics import METRICS, MISSING, Metric, choose
from lit_mimdit.evaluation.perceptual import MAX_PIXELS

NEEDS = {"pair": "image and reference", "image": "image alone", "set": "all images and references"}


def metrics(*, only: str = ",".join(METRICS), weights: Path | None = None) -> None:
    """List the metrics: key, direction, files of weights with their addresses, where they were
    looked for, and whether they can run here.

    Args:
        only: Metrics by key, separated by commas.
        weights: Folder of weights that is looked into first.
    """
    for metric in choose(only, "only"):
        print("\n".join(describe(metric, weights)) + "\n")


def describe(metric: Metric, folder: Path | None) -> list[str]:
    """Returns the lines of one metric."""
    present, missing = weights.find_all(metric, folder)
    names = f"pyiqa: {metric.pyiqa}" if metric.pyiqa else "own"
    lines = [
        f"{metric.key}: {metric.label}, {metric.direction}; needs {NEEDS[metric.needs]}; {names};"
        f" {metric.implementation}"
    ]
    if metric.aliases:
        lines.append(f"  also called: {', '.join(metric.aliases)}")
    if metric.tiled:
        lines.append(
            f"  cap: images above {MAX_PIXELS:,} pixels in tiles, mean of their scores"
            " (--max_pixels)"
        )
    if metric.min_side > 1:
        lines.append(f"  images of at least {metric.min_side} pixels a side")
    for hit in present:
        kind = {
            True: "the published file",
            False: "not the published file",
            None: "no published hash to compare with",
        }[hit.genuine]
        lines.append(
            f"  file {hit.file.name}: {hit.path}, sha256 {hit.sha256[:16]}, {kind}; source"
            f" {hit.file.source}"
        )
    for file in missing:
        lines.append(f"  file {file.name}: missing; source {file.source}")
        lines.append(f"    looked for: {', '.join(map(str, weights.places(file, folder)))}")
    lines.append(f"  {MISSING}" if missing else "  can run here")
    return lines
