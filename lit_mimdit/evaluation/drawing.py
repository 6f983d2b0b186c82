"""Pictures of a report are drawn without a plotting library.

Interval plots and router weights are SVG texts; strips of before and after are images.
"""

import html
import math
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lit_mimdit.data.image_io import read_rgb
from lit_mimdit.evaluation.metrics import METRICS

COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#17becf", "#7f7f7f")
PALETTE = (
    "#4e79a7",
    "#f28e2b",
    "#59a14f",
    "#e15759",
    "#b07aa1",
    "#9c755f",
    "#76b7b2",
    "#bab0ac",
)
# pixels
ROW = 18
LEFT = 190
RIGHT = 40
TOP = 34


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers that cover [low, high]."""
    span = (high - low) or abs(high) or 1.0
    step = 10 ** math.floor(math.log10(span / count))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= count)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


Series = dict[str, dict[str, dict[str, Any]]]  # series -> group -> {"mean", "low", "high", "n"}


@dataclass(frozen=True)
class _Layout:
    """The places of everything in an interval plot, in pixels; means are placed along an axis.

    Args:
        axis: its ticks, from the left to the right.
        width: of the picture.
        groups: in rows, from the top down.
        series: with a line in each row, and below all rows a line in the legend.
    """

    axis: list[float]
    width: int
    groups: list[str]
    series: list[str]

    @property
    def line(self) -> int:
        """Height of one series in a row."""
        return max(8, ROW - 2 * len(self.series))

    @property
    def pitch(self) -> int:
        """Height of a row."""
        return self.line * len(self.series) + 8

    @property
    def bottom(self) -> int:
        """Returns where the rows end."""
        return TOP + self.pitch * len(self.groups)

    @property
    def height(self) -> int:
        """Height of the picture in pixels, with the axis and the legend."""
        return self.bottom + 24 + ROW * len(self.series)

    def x(self, value: float) -> float:
        """Returns where a value lies."""
        first, last = self.axis[0], self.axis[-1]
        return LEFT + (value - first) / (last - first) * (self.width - LEFT - RIGHT)


def interval_plot(key: str, series: Series, width: int = 760) -> str:
    """Returns means with intervals as an SVG text, a row a group with a line for each series.

    The pooled groups, called "all", are the last rows.
    """
    names = dict.fromkeys(group for values in series.values() for group in values)
    groups = sorted(names, key=lambda group: group.split()[-1:] == ["all"])
    layout = _Layout(_axis(series), width, groups, list(series))
    metric = METRICS[key]
    title = f"{metric.label}, {metric.direction}"
    return "".join(
        [
            *_frame(layout, title),
            *_grid(layout),
            *_rows(layout, series, metric.decimals),
            *_legend(layout),
            "</svg>",
        ]
    )


def _axis(series: Series) -> list[float]:
    """Ticks that cover every mean and interval."""
    ends = []
    for value in chain.from_iterable(values.values() for values in series.values()):
        if value["mean"] is not None:
            ends += [value[end] for end in ("mean", "low", "high") if value[end] is not None]
    return ticks(min(ends), max(ends))


def _frame(layout: _Layout, title: str) -> list[str]:
    """The opening of the SVG, the white ground and the title."""
    width = layout.width
    height = layout.height
    text = html.escape(title)
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        f' width="{width}" height="{height}" font-family="sans-serif" font-size="12"'
        f' role="img"><title>{text}</title>',
        f'<rect width="{width}" height="{height}" fill="white"/><text x="{LEFT}" y="16"'
        f' font-weight="bold">{text}</text>',
    ]


def _grid(layout: _Layout) -> list[str]:
    """A vertical line with its number for each tick."""
    parts = []
    for tick in layout.axis:
        x, bottom = layout.x(tick), layout.bottom
        parts.append(
            f'<line x1="{x:.1f}" y1="{TOP - 8}" x2="{x:.1f}" y2="{bottom}" stroke="#ddd"/>'
        )
        parts.append(
            f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle" fill="#555">{tick:g}</text>'
        )
    return parts


def _rows(layout: _Layout, series: Series, decimals: int) -> list[str]:
    """The name of each group, and a mark for each of its means."""
    parts = []
    for row, group in enumerate(layout.groups):
        top = TOP + layout.pitch * row
        parts.append(
            f'<text x="{LEFT - 10}" y="{top + layout.pitch / 2 - 1:.1f}"'
            f' text-anchor="end">{html.escape(group)}</text>'
        )
        for i, (name, values) in enumerate(series.items()):
            y = top + layout.line * i + layout.line / 2
            colour = COLOURS[i % len(COLOURS)]
            parts += _mark(values.get(group), layout, y, colour, f"{name}, {group}", decimals)
    return parts


def _legend(layout: _Layout) -> list[str]:
    """A dot and a name for each series, below the axis."""
    parts = []
    for i, name in enumerate(layout.series):
        y = layout.bottom + 32 + ROW * i
        parts.append(f'<circle cx="{LEFT}" cy="{y - 4}" r="4" fill="{COLOURS[i % len(COLOURS)]}"/>')
        parts.append(f'<text x="{LEFT + 10}" y="{y}">{html.escape(name)}</text>')
    return parts


def _mark(
    value: dict[str, Any] | None,
    layout: _Layout,
    y: float,
    colour: str,
    name: str,
    decimals: int,
) -> list[str]:
    """A dot at a mean and a line over its interval; nothing where there is no number."""
    if value is None or value["mean"] is None:
        return []
    x = layout.x(value["mean"])
    text = f"{name}: {value['mean']:.{decimals}f} (N = {value['n']})"
    parts = [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"'
        f' fill="{colour}"><title>{html.escape(text)}</title></circle>'
    ]
    if value["low"] is not None:
        low, high = layout.x(value["low"]), layout.x(value["high"])
        parts.append(
            f'<line x1="{low:.1f}" y1="{y:.1f}" x2="{high:.1f}" y2="{y:.1f}"'
            f' stroke="{colour}" stroke-width="1.5"/>'
        )
    return parts


def routing_plot(blocks: list[list[float]], names: list[str], width: int = 760) -> str:
    """Returns Inter-MoE weights of an image as an SVG text.

    Each block has a stacked bar, block 0 first, with the groups' names above.
    """
    bar, top = max(6, min(28, (width - 40) // max(1, len(blocks)) - 4)), 20
    height, tall = 130, 80
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
            f' width="{width}" height="{height}" font-family="sans-serif" font-size="11"'
            ' role="img"><title>Inter-MoE weights by block</title>'
        ),
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    x = 0
    for index, name in enumerate(names):
        parts.append(
            f'<rect x="{x}" y="2" width="10" height="10"'
            f' fill="{PALETTE[index % len(PALETTE)]}"/><text x="{x + 14}" y="11">{name}</text>'
        )
        x += 24 + 7 * len(name)
    for block, weights in enumerate(blocks):
        y, x = float(top), block * (bar + 4)
        for index, weight in enumerate(weights):
            side = tall * weight / (sum(weights) or 1.0)
            about = f"block {block}, {names[index] if index < len(names) else index}: {weight:.3f}"
            colour = PALETTE[index % len(PALETTE)]
            shape = f'x="{x}" y="{y:.1f}" width="{bar}" height="{side:.1f}" fill="{colour}"'
            parts.append(f"<rect {shape}><title>{about}</title></rect>")
            y += side
        parts.append(
            f'<text x="{x + bar / 2}" y="{top + tall + 14}" text-anchor="middle"'
            f' fill="#555">{block}</text>'
        )
    return "".join([*parts, "</svg>"])


def small(path: Path, side: int) -> Image.Image:
    """Returns an image of at most `side` pixels in height and width, never enlarged."""
    pixels = read_rgb(path)
    if pixels.dtype == np.uint16:
        pixels = (pixels / 257.0).round().astype(np.uint8)
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture


def strip(pictures: list[Image.Image]) -> Image.Image:
    """Returns images of one size side by side."""
    gap = 4
    sheet = Image.new(
        "RGB",
        (sum(p.width + gap for p in pictures) - gap, max(p.height for p in pictures)),
        "white",
    )
    x = 0
    for picture in pictures:
        sheet.paste(picture, (x, 0))
        x += picture.width + gap
    return sheet
