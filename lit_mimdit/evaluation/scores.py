"""Scores of single images and their table by degradation.

PSNR and SSIM are on RGB in [0, 1] at full size, no crop, no resize, after rounding to 8 bits as a written file would be.
"""

import csv
import io
import math
import statistics
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from lit_mimdit.data.image_io import write_bytes

SCORES = ("psnr", "ssim")
WINDOW = 11  # pixels of SSIM's window


def eight_bit(image: Tensor) -> Tensor:
    """What a viewer of the written 8-bit file sees, float32 in [0, 1]."""
    return (image.float().clamp(0, 1) * 255.0).round() / 255.0


def score(image: Tensor, reference: Tensor) -> dict[str, float]:
    """PSNR (dB) and SSIM of one image (3, H, W) against its reference, both RGB in [0, 1]."""
    image, reference = eight_bit(image)[None], eight_bit(reference)[None]
    _, ssim = structural_similarity_index_measure(image, reference, data_range=1.0, return_full_image=True)
    if min(ssim.shape[-2:]) >= WINDOW:  # whole windows only, as in Wang et al. and scikit-image; torchmetrics' mean has mirrored borders
        border = WINDOW // 2
        ssim = ssim[..., border:-border, border:-border]
    return {"psnr": peak_signal_noise_ratio(image, reference, data_range=1.0).item(), "ssim": ssim.mean().item()}


@dataclass
class ScoreTable:
    """Scores of images in several versions ("degraded", "restored", ...), gathered over processes."""

    versions: tuple[str, ...]
    rows: list[dict[str, str | float]] = field(default_factory=list)

    def add(self, id: str, degradation: str, reference: Tensor, images: dict[str, Tensor]) -> None:
        """Score every version of one image, (3, H, W) each."""
        assert tuple(images) == self.versions, (tuple(images), self.versions)
        row: dict[str, str | float] = {"id": id, "degradation": degradation}
        for version, image in images.items():
            row |= {f"{version}_{key}": value for key, value in score(image, reference).items()}
        self.rows.append(row)

    def gather(self) -> None:
        """Rows of all processes, sorted by id, on each of them."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            everyone: list[list[dict[str, str | float]]] = [[] for _ in range(torch.distributed.get_world_size())]
            torch.distributed.all_gather_object(everyone, self.rows)
            self.rows = [row for rows in everyone for row in rows]
        self.rows.sort(key=lambda row: str(row["id"]))

    def means(self) -> dict[str, dict[str, float]]:
        """Mean of every score for each degradation and for "all" images; "n" is their number."""
        result: dict[str, dict[str, float]] = {}
        names = sorted({str(row["degradation"]) for row in self.rows})
        for name in [*names, "all"]:
            rows = [row for row in self.rows if name in ("all", row["degradation"])]
            if rows:
                keys = [f"{version}_{key}" for version in self.versions for key in SCORES]
                result[name] = {"n": float(len(rows))} | {key: statistics.fmean(float(row[key]) for row in rows) for key in keys}
        return result

    def interval(self, better: str, worse: str, key: str = "psnr") -> tuple[float, float]:
        """Mean difference better - worse over all images, and the half width of its 95% interval (normal approximation).

        The width is NaN for a single image, and when a perfect image has an infinite PSNR.
        """
        gains = [float(row[f"{better}_{key}"]) - float(row[f"{worse}_{key}"]) for row in self.rows]
        known = len(gains) > 1 and all(map(math.isfinite, gains))
        spread = 1.96 * statistics.stdev(gains) / math.sqrt(len(gains)) if known else math.nan
        return statistics.fmean(gains), spread

    def render(self, title: str) -> str:
        """The table as text, 120 columns."""
        from rich.console import Console
        from rich.table import Table

        table = Table(title=title)
        table.add_column("degradation")
        table.add_column("N", justify="right")
        for version in self.versions:
            table.add_column(f"{version}\nPSNR / SSIM", justify="right")
        for name, mean in self.means().items():
            cells = [f"{mean[f'{v}_psnr']:.2f} / {mean[f'{v}_ssim']:.3f}" for v in self.versions]
            if name == "all":
                table.add_section()
            table.add_row(name, f"{mean['n']:.0f}", *cells)
        buffer = io.StringIO()
        Console(file=buffer, width=120).print(table)
        return buffer.getvalue().rstrip()

    def write_csv(self, path: Path) -> None:
        """One row an image."""
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, fieldnames=list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, buffer.getvalue().encode())
