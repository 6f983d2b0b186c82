"""CSV files: those of users, as spreadsheets of any country write them, and tables of our own.

Excel writes a byte order mark, or UTF-16, ends lines with CRLF, and separates by semicolons where
the comma is the decimal sign. Older files are in the code page of Windows.
"""

import csv
import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from lit_mimdit.escaping import csv_cell, csv_text

SEPARATORS = ",;\t|"
Row = dict[str, Any]  # of a table, by column


def decode(data: bytes) -> str:
    """Returns the text of a file: UTF-8 or UTF-16 with their marks, UTF-8, else code page 1252."""
    for mark, encoding in (
        (b"\xef\xbb\xbf", "utf-8-sig"),
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
    ):
        if data.startswith(mark):
            return data.decode(encoding)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "backslashreplace")


def separator(head: str) -> str:
    """Returns the sign that separates the columns of a head line: the most frequent outside quotes.

    A line `sep=;`, which Excel obeys, decides.
    """
    if head.lower().startswith("sep=") and len(head.strip()) == 5:
        return head.strip()[4]
    outside = "".join(head.split('"')[::2])
    return max(SEPARATORS, key=outside.count)


def numbered_rows(text: str) -> list[tuple[int, list[str]]]:
    """Returns number and cells of every line that is not empty, without spaces around a cell.

    A cell with line breaks counts by its last line.
    """
    first, _, rest = text.partition("\n")
    sign = separator(first)
    said = first.lower().startswith("sep=")
    reader = csv.reader(io.StringIO(rest if said else text, newline=""), delimiter=sign)
    rows: list[tuple[int, list[str]]] = []
    for row in reader:
        cells = [cell.strip() for cell in row]
        if any(cells):
            rows.append((reader.line_num + said, [csv_text(cell) for cell in cells]))
    return rows


def head(text: str) -> list[str]:
    """Returns the names of the first line in lower case; none of an empty text."""
    rows = numbered_rows(text)
    return [name.lower() for name in rows[0][1]] if rows else []


def parse(text: str) -> list[dict[str, str]]:
    """Returns one dictionary a line, by the names of the first line in lower case.

    Cells that a line lacks are empty; those beyond the head are ignored.
    """
    names = head(text)
    lines = [row + [""] * (len(names) - len(row)) for _, row in numbered_rows(text)[1:]]
    return [dict(zip(names, line, strict=False)) for line in lines]


def read(path: Path) -> list[dict[str, str]]:
    """Returns the lines of a CSV file by the names of its head; see `parse`."""
    return parse(decode(path.read_bytes()))


def number(cell: str) -> float:
    """Returns a number with a decimal point or a decimal comma. ValueError if it is none.

    Of `1.234,5` and `1,234.5` the last sign is the decimal one.
    """
    text = cell.strip().replace("\u2212", "-").replace("\u00a0", "").replace(" ", "")
    if "," in text and "." in text:
        group, decimal = (".", ",") if text.rindex(",") > text.rindex(".") else (",", ".")
        text = text.replace(group, "").replace(decimal, ".")
    elif text.count(",") == 1:
        text = text.replace(",", ".")
    return float(text)


def table(rows: list[Row]) -> str:
    """Returns rows of the same columns as CSV; numbers have 6 significant digits, and NaN is left
    empty.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]) if rows else ["nothing"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: written(value) for key, value in row.items()} for row in rows)
    return buffer.getvalue()


def written(value: Any) -> Any:
    """Returns what stands in a cell for a value of a row."""
    if isinstance(value, (float, np.floating)):
        return "" if math.isnan(value) else f"{value:.6g}"
    return csv_cell(value) if isinstance(value, str) else value
