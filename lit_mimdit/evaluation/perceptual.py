"""Metrics of pyiqa as functions of image batches, with their memory bounded on large images.

LIQE's memory is bounded exactly. pyiqa copies every window of an image (4 GB at 3840 x 2160) and
uses 15 of them. Here those 15 are cut out first.

Metrics marked `tiled` see an image of more pixels than the cap in equal tiles, and the score is the
tiles' mean. That is another number than the whole image's, so the cap stands in every result.
"""

import contextlib
import io
import logging
import math
import pickle
import warnings
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor, nn

from lit_mimdit.evaluation.metrics import Metric
from lit_mimdit.evaluation.weights import Found, handed_to_pyiqa

MAX_PIXELS = (
    4_500_000  # FoundIR's largest images (2720 x 1528) are seen whole, 3840 x 2160 in two tiles
)
WINDOW = 224  # LIQE's, pixels

Score = Callable[[Tensor, Tensor | None], Tensor]


def load(metric: Metric, hits: list[Found], device: torch.device) -> nn.Module:
    """pyiqa's module for a metric with these weights. ValueError if a file cannot be used."""
    from pyiqa.default_model_configs import DEFAULT_CONFIGS

    if metric.pyiqa not in DEFAULT_CONFIGS:
        raise ValueError(
            f"metric {metric.key}: this version of pyiqa has no {metric.pyiqa!r}; install another"
            " one, or leave the metric out"
        )
    try:
        with handed_to_pyiqa(hits), quiet():
            import pyiqa

            net = pyiqa.create_metric(metric.pyiqa, device=device)
    except (
        RuntimeError,
        OSError,
        KeyError,
        ValueError,
        AssertionError,
        EOFError,
        pickle.UnpicklingError,
    ) as error:
        names = ", ".join(str(hit.path) for hit in hits)
        unsafe = isinstance(error, pickle.UnpicklingError)
        reason = (
            "more than tensors in a file that is not the published one"
            if unsafe
            else (str(error).splitlines() or [repr(error)])[0]
        )
        raise ValueError(
            f"metric {metric.key}: its weights cannot be used ({reason}); fetch them again: {names}"
        ) from error
    return net.eval().requires_grad_(False)


@contextlib.contextmanager
def quiet():
    """pyiqa prints and warns on loading; its results say what was loaded."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("pyiqa").setLevel(logging.ERROR)
        yield


def scoring(metric: Metric, net: nn.Module, max_pixels: int, device: torch.device) -> Score:
    """Returns the metric as a function.

    It takes images (B, 3, H, W) and references of the same shape or None, and gives (B,) float64 on
    the CPU.
    """

    def whole(images: Tensor, references: Tensor | None) -> Tensor:
        if metric.pyiqa.startswith("liqe"):
            images, net.net.step = liqe_windows(images, net.net.num_patch), WINDOW
        arguments = (
            [images.to(device)]
            if references is None
            else [images.to(device), references.to(device)]
        )
        return net(*arguments).detach().double().reshape(len(images)).cpu()

    def score(images: Tensor, references: Tensor | None) -> Tensor:
        references = references if metric.needs == "pair" else None
        boxes = (
            tiles(*images.shape[-2:], max_pixels) if metric.tiled else tiles(*images.shape[-2:], 0)
        )
        with torch.no_grad():
            parts = [
                whole(_cut(images, box), None if references is None else _cut(references, box))
                for box in boxes
            ]
        return torch.stack(parts).mean(0)

    return score


def _cut(images: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    top, bottom, left, right = box
    return images[..., top:bottom, left:right]


def tiles(height: int, width: int, max_pixels: int) -> list[tuple[int, int, int, int]]:
    """(top, bottom, left, right) of the fewest nearly equal and nearly square tiles of at most
    `max_pixels`; 0 is no limit.
    """
    rows = columns = 1
    while max_pixels and math.ceil(height / rows) * math.ceil(width / columns) > max_pixels:
        if height / rows > width / columns:
            rows += 1
        else:
            columns += 1
    bands = product(_cuts(height, rows), _cuts(width, columns))
    return [(*vertical, *horizontal) for vertical, horizontal in bands]


def _cuts(length: int, count: int) -> list[tuple[int, int]]:
    """Start and end of `count` parts of a side, as equal as whole pixels allow."""
    ends = [length * number // count for number in range(count + 1)]
    return list(zip(ends, ends[1:]))


def liqe_windows(images: Tensor, count: int, step: int = 32) -> Tensor:
    """Returns the windows that LIQE looks at, side by side: (B, 3, H, W) -> (B, 3, 224, 224 n), n
    <= `count`.

    Every (total // count)-th window of the grid of stride `step`, row by row. With a stride of 224
    LIQE then sees these and no others.
    """
    rows, columns = ((length - WINDOW) // step + 1 for length in images.shape[-2:])
    used = min(count, rows * columns)
    every = max(1, rows * columns // used)
    corners = [divmod(index * every, columns) for index in range(used)]
    return torch.cat(
        [
            images[..., y * step : y * step + WINDOW, x * step : x * step + WINDOW]
            for y, x in corners
        ],
        dim=-1,
    )
