"""Each image is degraded lightly, medium or heavily.

The severity is written beside the pairs, or found by thirds of their PSNR.
"""

from pathlib import Path

import numpy as np

from lit_mimdit import csv_file
from lit_mimdit.data.degradations import SEVERITIES
from lit_mimdit.data.image_io import read_rgb, to_tensor
from lit_mimdit.data.layouts import Pair
from lit_mimdit.data.sample_data import TABLE
from lit_mimdit.data.sources import crop_box
from lit_mimdit.evaluation.pixel import eight_bit, psnr


def find_table(root: Path, given: Path | None) -> Path | None:
    """Returns the CSV with columns lq and severity.

    It is the one given, else samples.csv in the root or its parent, if there is one.
    """
    if given is not None:
        if not given.is_file():
            raise ValueError(
                f"severities: there is no file {given}; it is a CSV with the columns lq and"
                " severity"
            )
        return given
    return next(
        (path for path in (root / TABLE, root.absolute().parent / TABLE) if path.is_file()), None
    )


def read_table(path: Path, pairs: list[Pair]) -> list[str]:
    """Returns the severity of each pair; "" where the table has none. LQ paths are relative to the
    table's folder. ValueError for another table.
    """
    text = csv_file.decode(path.read_bytes())
    rows, columns = csv_file.parse(text), csv_file.head(text) or ["none"]
    if not {"lq", "severity"} <= set(columns):
        raise ValueError(
            f"severities: {path} has the columns {', '.join(columns)}; it needs lq and severity"
        )
    known = {
        (path.parent / row["lq"].replace("\\", "/")).resolve(): row["severity"].lower()
        for row in rows
    }
    wrong = sorted(set(known.values()) - {*SEVERITIES, ""})
    if wrong:
        raise ValueError(
            f"severities: {path} says {wrong[0]!r}; choose among {', '.join(SEVERITIES)}"
        )
    return [known.get(pair.lq.resolve(), "") for pair in pairs]


def middle(path: Path, crop: int | None) -> np.ndarray:
    """Returns the image (H, W, 3), or its middle crop of `crop` pixels; all of a side that is
    shorter.
    """
    image = read_rgb(path)
    if crop is None:
        return image
    height, width = (min(crop, side) for side in image.shape[:2])
    top, left = crop_box(image.shape[0], image.shape[1], crop, None)
    top, left = max(top, 0), max(left, 0)
    return image[top : top + height, left : left + width]


def psnr_of(pair: Pair, crop: int | None) -> float:
    """Returns the PSNR (dB) of the LQ image against its GT, in the crop that the routers see."""
    lq, gt = middle(pair.lq, crop), middle(pair.gt, crop)
    if lq.shape != gt.shape:
        raise ValueError(
            f"pair {pair.id}: LQ and GT have different sizes; `python -m lit_mimdit data check`"
            " lists such pairs"
        )
    return psnr(eight_bit(to_tensor(lq))[None], eight_bit(to_tensor(gt))[None]).item()


def by_thirds(values: list[float], degradations: list[str]) -> list[str]:
    """Returns severities from PSNR.

    Within each degradation the third of the lowest values is heavy, that of the highest light.
    """
    severities = [""] * len(values)
    for name in set(degradations):
        rows = [row for row, degradation in enumerate(degradations) if degradation == name]
        for place, row in enumerate(sorted(rows, key=lambda row: (-values[row], row))):
            severities[row] = SEVERITIES[3 * place // len(rows)]
    return severities
