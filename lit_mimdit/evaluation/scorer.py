"""The one way from images to scores, for `evaluate` and for `validate` and `test` alike."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_mimdit.evaluation import fid, pixel, weights
from lit_mimdit.evaluation.metrics import MISSING, NO_REFERENCE, Metric, choose
from lit_mimdit.evaluation.perceptual import MAX_PIXELS, Score, load, scoring, tiles
from lit_mimdit.evaluation.pixel import eight_bit

PIXEL = {"psnr": pixel.psnr, "psnr_y": pixel.psnr_y, "ssim_y": pixel.ssim_y, "ssim_rgb": pixel.ssim}


@dataclass
class Scores:
    """The scores of one image.

    It has finite scores by key, reasons of those that have none, tiles where more than one, and
    Inception features (2048,).
    """

    scores: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    tiles: dict[str, int] = field(default_factory=dict)
    feature: np.ndarray | None = None


class Scorer:
    """Metrics ready to run.

    Args:
        metrics: keys or aliases.
        device: of the metrics that are networks.
        references: whether there are reference images.
        max_pixels: cap of the tiled metrics, 0 for none.
        folder: of weights, looked into first.
        download: fetch missing weights.
    """

    def __init__(
        self,
        metrics: str | list[str] | tuple[str, ...],
        device: str | torch.device = "cpu",
        references: bool = True,
        max_pixels: int = MAX_PIXELS,
        folder: Path | None = None,
        download: bool = False,
    ) -> None:
        if max_pixels and max_pixels < 224 * 224:
            raise ValueError(
                f"max_pixels is {max_pixels}: tiles need at least {224 * 224} pixels (224 x 224); 0"
                " is no cap"
            )
        self.metrics = choose(metrics)
        self.device = torch.device(device)
        self.max_pixels = max_pixels
        self.hits: dict[str, list[weights.Found]] = {}
        self.missing: dict[str, str] = {}  # key -> why it cannot be computed
        self._score: dict[str, Score] = {}
        self._inception: torch.nn.Module | None = None
        for metric in self.metrics:
            self._prepare(metric, references, folder, download)

    def _prepare(
        self, metric: Metric, references: bool, folder: Path | None, download: bool
    ) -> None:
        if metric.needs != "image" and not references:
            self.missing[metric.key] = NO_REFERENCE
            return
        hits, missing = weights.find_all(metric, folder)
        if missing and download:
            for file in missing:
                weights.download(file, folder)
            hits, missing = weights.find_all(metric, folder)
        if missing:
            self.missing[metric.key] = f"{MISSING} ({', '.join(file.name for file in missing)})"
            return
        self.hits[metric.key] = hits
        if metric.backend == "pyiqa":
            self._score[metric.key] = scoring(
                metric, load(metric, hits, self.device), self.max_pixels, self.device
            )
        elif metric.backend == "set" and self._inception is None:
            self._inception = load(metric, hits, self.device).net.model

    @property
    def ready(self) -> list[Metric]:
        return [metric for metric in self.metrics if metric.key not in self.missing]

    @property
    def wants_features(self) -> bool:
        return self._inception is not None

    def describe(self) -> dict[str, dict[str, Any]]:
        """Returns what every result must say of its metrics, by key."""
        return {metric.key: self._description(metric) for metric in self.metrics}

    def _description(self, metric: Metric) -> dict[str, Any]:
        hits = self.hits.get(metric.key, [])
        return {
            "label": metric.label,
            "pyiqa_name": metric.pyiqa,
            "version": metric.implementation,
            "direction": metric.direction,
            "weights": {hit.file.name: hit.sha256 for hit in hits},
            "published_weights": all(hit.genuine is not False for hit in hits),
            "cap_pixels": (self.max_pixels or None) if metric.tiled else None,
            "status": self.missing.get(metric.key, "computed"),
        }

    def features(self, images: Tensor) -> list[np.ndarray]:
        """Returns Inception features of images (B, 3, H, W) in [0, 1], one (2048,) an image."""
        return list(fid.features(self._inception, eight_bit(images), self.device))

    def score(self, images: Tensor, references: Tensor | None) -> list[Scores]:
        """Returns scores of images (B, 3, H, W) in [0, 1] as 8-bit files would have them;
        references of the same shape, or None.
        """
        images = eight_bit(images)
        references = None if references is None else eight_bit(references)
        results = [Scores() for _ in images]
        for metric in self.ready:
            if metric.needs != "set" and (references is not None or metric.needs == "image"):
                self._one(metric, images, references, results)
        if self.wants_features:
            for result, feature in zip(results, self.features(images), strict=True):
                result.feature = feature
        return results

    def _one(
        self, metric: Metric, images: Tensor, references: Tensor | None, results: list[Scores]
    ) -> None:
        height, width = images.shape[-2:]
        if min(height, width) < metric.min_side:
            for result in results:
                result.errors[metric.key] = (
                    f"image is {width} x {height} pixels, {metric.label} needs {metric.min_side} a"
                    " side"
                )
            return
        try:
            values = (
                PIXEL[metric.key](images, references)
                if metric.backend == "pixel"
                else self._score[metric.key](images, references)
            )
        except (
            RuntimeError,
            AssertionError,
            ValueError,
        ) as error:  # such as out of memory: listed, and the other metrics go on
            for result in results:
                result.errors[metric.key] = (
                    str(error).strip().splitlines() or [type(error).__name__]
                )[0]
            return
        count = len(tiles(height, width, self.max_pixels)) if metric.tiled else 1
        for result, value in zip(results, values.tolist(), strict=True):
            if np.isfinite(value):
                result.scores[metric.key] = value
            else:
                result.errors[metric.key] = f"the score is {value}"
            if count > 1:
                result.tiles[metric.key] = count
