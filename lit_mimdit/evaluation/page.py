"""A page is written twice.

HTML has everything inside; Markdown has its pictures as files beside it.
"""

import html
import re
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from lit_mimdit import escaping
from lit_mimdit.evaluation.drawing import strip
from lit_mimdit.evaluation.slider import data_uri, png, slider
from lit_mimdit.evaluation.tables import markdown
from lit_mimdit.files import write_bytes

_PRIVATE = 0xE000  # where escaped signs of Markdown hide from what reads its marks
_ESCAPED, _HIDDEN = re.compile(r"\\([!-/:-@\[-`{-~])"), re.compile("[\ue021-\ue07e]")
STYLE = """
body { font: 15px/1.45 sans-serif; max-width: 1150px; margin: 2em auto; padding: 0 1em }
body { color: #222; background: #fff }
table { border-collapse: collapse; margin: .6em 0; font-size: 13px }
table { display: block; overflow-x: auto }
th, td { border: 1px solid #ccc; padding: 3px 8px; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
th { background: #f3f3f3 } tr.all td { font-weight: bold; border-top: 2px solid #888 }
img, svg { max-width: 100%; height: auto } figure { margin: .4em 0 1em }
figcaption { color: #555; font-size: 13px }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 14px; font-size: 13px }
dt { color: #555 } dd { margin: 0; overflow-wrap: anywhere }
"""


class Page:
    """Collects the parts of a page; `write` makes report.html and report.md in a folder.

    Args:
        title: of the page.
        folder: that exists.
    """

    def __init__(self, title: str, folder: Path) -> None:
        self.title, self.folder = title, folder
        self.html, self.md = [f"<h1>{html.escape(title)}</h1>"], [f"# {escaping.markdown(title)}"]
        self.written: set[str] = set()

    def heading(self, text: str, level: int) -> None:
        self.html.append(f"<h{level}>{html.escape(text)}</h{level}>")
        self.md.append(f"{'#' * level} {escaping.markdown(text)}")

    def text(self, text: str) -> None:
        self.html.append(f"<p>{html.escape(text)}</p>")
        self.md.append(escaping.markdown(text))

    def items(self, texts: list[str]) -> None:
        self.html.append(
            "<ul>" + "".join(f"<li>{html.escape(text)}</li>" for text in texts) + "</ul>"
        )
        self.md.append("\n".join(f"- {escaping.markdown(text)}" for text in texts))

    def pairs(self, values: dict[str, str]) -> None:
        """Names and values."""
        self.html.append(
            "<dl>"
            + "".join(
                f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in values.items()
            )
            + "</dl>"
        )
        lines = [escaping.markdown(f"{key}: {value}") for key, value in values.items()]
        self.md.append("\n".join(f"- {line}" for line in lines))

    def table(self, head: list[str], body: list[list[str]]) -> None:
        self.html.append(_table(head, body))
        self.md.append(markdown(head, body))

    def markdown_tables(self, text: str) -> None:
        """Titles and Markdown tables, whose ** and <u> become HTML."""
        for block in text.split("\n\n"):
            hidden = _ESCAPED.sub(lambda match: chr(_PRIVATE + ord(match[1])), block)
            lines = [_cells(line) for line in hidden.splitlines()]
            self.html.append(
                _table(lines[0], lines[2:], marked=True)
                if block.startswith("|")
                else f"<p>{_marked(hidden)}</p>"
            )
        self.md.append(text)

    def svg(self, svg: str, name: str, caption: str = "") -> None:
        """A drawing, with a caption below."""
        below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
        self.html.append(f"<figure>{svg}{below}</figure>")
        self._beside(f"{name}.svg", svg.encode("utf-8", "backslashreplace"), caption or name)

    def compared(self, images: dict[str, Image.Image], name: str) -> None:
        """Images of one size by what they are: a slider between the first two, the others below.

        Markdown has all of them side by side.
        """
        (first, *_), titles = images.values(), list(images)
        if len(images) > 1:
            before, after = (data_uri(images[title]) for title in titles[:2])
            self.html.append(slider(before, after, first.width, (titles[0], titles[1]), name))
        for title in titles[2:] if len(images) > 1 else titles:
            self.html.append(
                f'<figure><img src="{data_uri(images[title])}" alt="{html.escape(title)}"'
                f' width="{images[title].width}">'
                f"<figcaption>{html.escape(title)}</figcaption></figure>"
            )
        self._beside(f"{name}.png", png(strip(list(images.values()))), " | ".join(titles))

    def _beside(self, name: str, data: bytes, caption: str) -> None:
        folder = self.folder / "pictures"
        folder.mkdir(exist_ok=True)
        stem, _, ending = re.sub(r"[^\w.-]", "_", name).rpartition(".")
        safe = f"{stem}.{ending}"
        number = 1
        while safe in self.written:  # names that differ in other signs only
            number += 1
            safe = f"{stem}_{number}.{ending}"
        self.written.add(safe)
        write_bytes(folder / safe, data)
        self.md.append(f"![{escaping.markdown(caption)}](pictures/{quote(safe)})")

    def write(self) -> None:
        head = (
            '<meta charset="utf-8"><meta name="viewport"'
            f' content="width=device-width"><title>{html.escape(self.title)}</title>'
        )
        text = (
            f'<!doctype html><html lang="en"><head>{head}<style>{STYLE}</style></head>'
            f"<body>{''.join(self.html)}</body></html>\n"
        )
        # a file name that is no UTF-8 shows its bytes
        for name, whole in (("report.html", text), ("report.md", "\n\n".join(self.md) + "\n")):
            write_bytes(self.folder / name, whole.encode("utf-8", "backslashreplace"))


def _table(head: list[str], body: list[list[str]], marked: bool = False) -> str:
    show = _marked if marked else html.escape
    rows = [f"<tr>{''.join(f'<th>{show(cell)}</th>' for cell in head)}</tr>"]
    for cells in body:
        kind = ' class="all"' if "all" in cells else ""
        rows.append(f"<tr{kind}>{''.join(f'<td>{show(cell)}</td>' for cell in cells)}</tr>")
    return f"<table>{''.join(rows)}</table>"


def _cells(line: str) -> list[str]:
    """The cells of a line of a Markdown table, without the spaces around them."""
    return [cell.strip() for cell in line.strip("|").split("|")]


def _marked(text: str) -> str:
    safe = html.escape(text).replace("&lt;u&gt;", "<u>").replace("&lt;/u&gt;", "</u>")
    bold = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", safe)
    return _HIDDEN.sub(lambda match: html.escape(chr(ord(match[0]) - _PRIVATE)), bold)
