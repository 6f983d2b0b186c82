"""The results of a finished evaluation as a model card states them."""

from typing import Any

from huggingface_hub import EvalResult

from lit_mimdit.evaluation.metrics import METRICS
from lit_mimdit.evaluation.summary import ALL
from lit_mimdit.evaluation.tables import markdown, rows_of
from lit_mimdit.inference.run_record import runs_of

TASK = "image-to-image"


def eval_results(summary: dict[str, Any]) -> list[EvalResult]:
    """Returns the means of the restored images in the hub's own form, one a metric and group.

    A metric that was not computed has none. The interval (95%) and the number of images are the
    metric's arguments.
    """
    results = []
    for group in summary["groups"]:
        dataset, degradation = group["dataset"], group["degradation"]
        for key, value in group["versions"].get("restored", {}).items():
            if value["mean"] is None:
                continue
            metric = METRICS[key]
            results.append(
                EvalResult(
                    task_type=TASK,
                    task_name="Image restoration",
                    dataset_type=dataset,
                    dataset_name=dataset if degradation == ALL else f"{dataset}, {degradation}",
                    dataset_config=None if degradation == ALL else degradation,
                    metric_type=key,
                    metric_name=metric.label,
                    metric_value=round(value["mean"], metric.decimals),
                    metric_args={name: value[name] for name in ("low", "high", "n")},
                )
            )
    return results


def require_of(summary: dict[str, Any], hashes: set[str], where: str) -> None:
    """Raises ValueError if a summary says that its images were restored by another file.

    Args:
        summary: of `evaluate` or `test`.
        hashes: sha256 of the checkpoint and of the exported file.
        where: names the summary in the error.
    """
    runs = [] if summary.get("restoration") is None else runs_of(summary["restoration"])
    for run in runs:
        made_by = (run.get("checkpoint") or {}).get("sha256")
        if made_by is not None and made_by not in hashes:
            raise ValueError(
                f"{where}: its images were restored by {run['checkpoint']['name']} (sha256"
                f" {made_by[:16]}...), not by this checkpoint; evaluate what this one restores"
            )


def results_text(summary: dict[str, Any]) -> str:
    """Returns the table of the restored images as Markdown, with how they were scored."""
    head, body = rows_of(summary, "restored")
    shown = [i for i in range(len(head)) if any("not computed" not in row[i] for row in body)]
    table = markdown([head[i] for i in shown], [[row[i] for i in shown] for row in body])
    datasets = ", ".join(sorted({group["dataset"] for group in summary["groups"]}))
    rule = summary.get("image_rule", "")
    return f"Images of {datasets}: {rule}. Brackets hold 95% intervals over images.\n\n{table}"
