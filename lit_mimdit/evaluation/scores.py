"""Scores of several versions of each image ("degraded", "restored", ...), gathered over processes:
what validate and test report.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import Tensor

from lit_mimdit.evaluation.fid import FEATURES
from lit_mimdit.evaluation.metrics import METRICS
from lit_mimdit.evaluation.pixel import eight_bit
from lit_mimdit.evaluation.record import ImageScores
from lit_mimdit.evaluation.score_files import write_scores
from lit_mimdit.evaluation.scorer import PIXEL, Scorer
from lit_mimdit.evaluation.summary import ALL, summarise


def score(image: Tensor, reference: Tensor) -> dict[str, float]:
    """Returns the PSNR (dB) and SSIM, of RGB and Y, of one image (3, H, W) against its reference,
    both RGB in [0, 1].
    """
    image, reference = eight_bit(image)[None], eight_bit(reference)[None]
    return {key: function(image, reference).item() for key, function in PIXEL.items()}


class ScoreTable:
    """Rows of every image and version.

    Args:
        versions: of each image, in the order of the table's columns.
        scorer: the metrics.
    """

    def __init__(self, versions: tuple[str, ...], scorer: Scorer) -> None:
        self.versions, self.scorer = versions, scorer
        self.rows: list[ImageScores] = []
        self.features: list[np.ndarray] = []
        self.routing: dict[str, list[list[float]]] = {}

    def add(
        self,
        id: str,
        degradation: str,
        reference: Tensor,
        images: dict[str, Tensor],
        dataset: str = "",
    ) -> None:
        """Score every version of one image, (3, H, W) each."""
        assert tuple(images) == self.versions, (tuple(images), self.versions)
        about = (dataset, degradation, *reference.shape[-2:])
        for version, image in images.items():
            result = self.scorer.score(image[None], reference[None])[0]
            feature = self._keep(result.feature)
            self.rows.append(
                ImageScores(
                    id, version, *about, result.scores, result.errors, result.tiles, feature
                )
            )
        if self.scorer.wants_features:
            self.rows.append(
                ImageScores(
                    id,
                    "reference",
                    *about,
                    feature=self._keep(self.scorer.features(reference[None])[0]),
                )
            )

    def _keep(self, feature: np.ndarray | None) -> int | None:
        if feature is None:
            return None
        self.features.append(feature)
        return len(self.features) - 1

    def gather(self) -> None:
        """Rows of all processes, sorted, on each of them."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            everyone: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(everyone, (self.rows, self.features, self.routing))
            self.rows = []
            self.features = []
            self.routing = {}
            for rows, features, routing in everyone:
                for row in rows:
                    row.feature = None if row.feature is None else row.feature + len(self.features)
                self.rows += rows
                self.features += features
                self.routing |= routing
        self.rows.sort(key=lambda row: (row.dataset, row.degradation, row.id, row.version))

    def summary(self, **about: Any) -> dict[str, Any]:
        """Returns the summary of all scores, see evaluation/summary.py.

        `about` is carried along: name, image_rule and whatever a result must say.
        """
        features = np.stack(self.features) if self.features else np.zeros((0, FEATURES), np.float32)
        return {"name": "restored"} | about | summarise(self.rows, features, self.scorer.describe())

    def write(
        self, folder: Path, summary: dict[str, Any], files: dict[tuple[str, str], str], prefix: str
    ) -> None:
        """The files of an evaluation, for this table."""
        write_scores(folder, summary, self.rows, files, self.routing, prefix)


def means(summary: dict[str, Any]) -> dict[str, float]:
    """`psnr_restored` and so on over all images; of several data sets `4KRD/psnr_restored`.

    Scores without a number are left out.
    """
    pooled = [group for group in summary["groups"] if group["degradation"] == ALL]
    means: dict[str, float] = {}
    for group in pooled:
        prefix = f"{group['dataset']}/" if len(pooled) > 1 and group["dataset"] else ""
        for version, values in group["versions"].items():
            for key, value in values.items():
                if value["mean"] is not None:
                    means[f"{prefix}{key}_{version}"] = value["mean"]
    return means


def render(summary: dict[str, Any], title: str, versions: tuple[str, ...]) -> str:
    """Returns all versions side by side as text of 120 columns.

    A table has three metrics, and one column a version.
    """
    from rich.console import Console
    from rich.table import Table

    buffer = io.StringIO()
    keys = list(summary["metrics"])
    for first in range(0, len(keys), 3):
        part = keys[first : first + 3]
        table = Table(title=title if first == 0 else None)
        table.add_column("degradation")
        table.add_column("N", justify="right")
        for version in versions:
            table.add_column(
                f"{version}\n{' / '.join(METRICS[key].label for key in part)}", justify="right"
            )
        for group in summary["groups"]:
            if group["degradation"] == ALL:
                table.add_section()
            name = (
                " ".join(filter(None, [group["dataset"], group["degradation"]]))
                if _several(summary)
                else group["degradation"]
            )
            cells = [name, str(group["n"])]
            for version in versions:
                cells.append(" / ".join(_cell(summary, group, version, key) for key in part))
            table.add_row(*cells)
        Console(file=buffer, width=120, markup=False, emoji=False).print(table)
    notes = [
        f"{about['label']}: {about['status']}"
        for about in summary["metrics"].values()
        if about["status"] != "computed"
    ]
    return "\n".join([buffer.getvalue().rstrip(), *notes])


def _several(summary: dict[str, Any]) -> bool:
    return len({group["dataset"] for group in summary["groups"]}) > 1


def _cell(summary: dict[str, Any], group: dict[str, Any], version: str, key: str) -> str:
    value = group["versions"].get(version, {}).get(key)
    digits = 2 if METRICS[key].decimals == 2 else 3
    return "-" if value is None or value["mean"] is None else f"{value['mean']:.{digits}f}"
