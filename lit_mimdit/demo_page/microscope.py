"""The router microscope as HTML: why a photograph was restored as it was.

L = blocks, G = groups, E = sub-experts of a group.
"""

import html
from collections.abc import Sequence

import numpy as np

from lit_mimdit.demo_page.looks import Looks, reliance, sentence
from lit_mimdit.evaluation.drawing import PALETTE, routing_plot
from lit_mimdit.inference.tiling import Box

# pixels: width of the names, width of the bars, height of a line, longer side of a map
NAME = 150
BAR = 420
LINE = 20
MAP = 240


def _svg(width: float, height: float, about: str, parts: list[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}"'
        f' width="{width:.0f}" height="{height:.0f}" font-family="sans-serif" font-size="12"'
        f' role="img" style="max-width:100%;height:auto"><title>{html.escape(about)}</title>'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>'
    )


def bars(rows: dict[str, np.ndarray], groups: Sequence[str]) -> str:
    """Returns mean Inter weights (G,) by name as stacked bars, a line a name; the first in bold."""
    parts, x = [], float(NAME)
    for index, group in enumerate(groups):
        colour = PALETTE[index % len(PALETTE)]
        parts.append(f'<rect x="{x}" y="3" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{x + 14}" y="12">{html.escape(group)}</text>')
        x += 30 + 7 * len(group)
    for line, (name, weights) in enumerate(rows.items()):
        y, x = 20 + LINE * line, float(NAME)
        weight = "bold" if line == 0 else "normal"
        parts.append(
            f'<text x="{NAME - 8}" y="{y + 13}" text-anchor="end" font-weight="{weight}">'
            f"{html.escape(name)}</text>"
        )
        for index, value in enumerate(weights):
            width = BAR * float(value) / (float(weights.sum()) or 1.0)
            about = f"{name}, {groups[index]}: {float(value):.3f}"
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{LINE - 4}"'
                f' fill="{PALETTE[index % len(PALETTE)]}">'
                f"<title>{html.escape(about)}</title></rect>"
            )
            if width > 34:
                parts.append(
                    f'<text x="{x + width / 2:.1f}" y="{y + 12}" text-anchor="middle"'
                    f' fill="white" font-size="11">{float(value):.2f}</text>'
                )
            x += width
    height = 24 + LINE * len(rows)
    return _svg(NAME + BAR + 8, height, "Inter weights, mean over the blocks", parts)


def sub_experts(chosen: np.ndarray, groups: Sequence[str]) -> str:
    """Returns the share of the tiles (L, G, E) that each sub-expert worked on, as a table."""
    head = "".join(f"<th>{html.escape(group)}</th>" for group in groups)
    rows = []
    for block, of_block in enumerate(chosen):
        cells = []
        for shares in of_block:
            squares = "".join(
                f'<span title="sub-expert {expert}: {100 * float(share):.0f}% of the tiles"'
                f' style="display:inline-block;width:1.5em;text-align:center;'
                f'background:rgba(78,121,167,{0.1 + 0.9 * float(share):.2f})">{expert}</span>'
                for expert, share in enumerate(shares)
            )
            cells.append(f"<td>{squares}</td>")
        rows.append(f"<tr><th>block {block}</th>{''.join(cells)}</tr>")
    style = "font:12px sans-serif;border-spacing:6px 2px"
    return f'<table style="{style}"><tr><th></th>{head}</tr>{"".join(rows)}</table>'


def tile_map(values: np.ndarray, boxes: list[Box], size: tuple[int, int], title: str) -> str:
    """Returns one number for each tile (tiles,) as a map of the photograph, dark where it is large.

    Args:
        values: drawn from the smallest (white) to the largest (blue).
        boxes: (top, left, height, width) of each tile in pixels.
        size: (height, width) of the photograph in pixels.
        title: above the map.
    """
    scale = MAP / max(size)
    low, high = float(values.min()), float(values.max())
    span = (high - low) or 1.0
    parts = [f'<text x="2" y="12">{html.escape(title)}: {low:.3f} to {high:.3f}</text>']
    for value, (top, left, height, width) in zip(values.tolist(), boxes, strict=True):
        # tiles overlap: each is drawn half transparent
        shade = 0.6 * (value - low) / span
        parts.append(
            f'<rect x="{left * scale:.1f}" y="{18 + top * scale:.1f}"'
            f' width="{width * scale:.1f}" height="{height * scale:.1f}"'
            f' fill="#1f4e9c" fill-opacity="{shade:.2f}" stroke="#bbb" stroke-width="0.5">'
            f"<title>{value:.3f}</title></rect>"
        )
    return _svg(size[1] * scale, 18 + size[0] * scale, title, parts)


def microscope(
    inter: np.ndarray,
    chosen: np.ndarray,
    groups: Sequence[str],
    looks: Looks | None,
    boxes: list[Box] | None = None,
    size: tuple[int, int] = (1, 1),
) -> str:
    """Returns everything that is known of a photograph's routing as HTML.

    Args:
        inter: Inter weights (tiles, L, G).
        chosen: share of the tiles that each sub-expert worked on, (L, G, E).
        groups: their names.
        looks: known degradations to stand beside it.
        boxes: where the tiles lie; None draws no maps.
        size: (height, width) of the photograph in pixels.
    """
    mean = inter.mean(0)
    parts, rows = [], {"this photograph": mean.mean(0)}
    if looks is not None:
        shares = looks.like(mean)
        parts.append(f"<p><b>{html.escape(sentence(shares))}</b></p>")
        parts.append(f"<p>{html.escape(reliance(shares, looks.recall))}</p>")
        rows |= {name: weights.mean(0) for name, weights in looks.means.items()}
    parts += [
        "<h4>Inter weights, mean over the blocks</h4>",
        bars(rows, groups),
        "<h4>Inter weights, block by block</h4>",
        routing_plot(mean.tolist(), list(groups), width=NAME + BAR + 8),
        "<h4>Sub-experts at work, dark where they worked on many tiles</h4>",
        sub_experts(chosen, groups),
    ]
    if boxes is not None and len(boxes) > 1:
        parts.append("<h4>Inter weights over the photograph</h4>")
        parts += [
            tile_map(inter[:, :, index].mean(1), boxes, size, group)
            for index, group in enumerate(groups)
        ]
    return f'<div class="microscope">{"".join(parts)}</div>'
