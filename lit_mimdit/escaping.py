r"""Names and labels that a user chose, made safe for the formats that tables are written in.

A file may be called `a_b & 50% $x$ #1.png`. Each format has its own signs that must not act:

    TeX        \ { } $ & # % _ ^ ~ < > | "
    Markdown   \ ` * _ < > & | # $ ~ at any place, brackets of a link, and line breaks
    CSV        a cell that begins with = + - @ or a control character: a spreadsheet computes it
"""

import re

TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "->": r"$\to$",
}
_TEX = re.compile("|".join(map(re.escape, sorted(TEX, key=len, reverse=True))))
_MARKDOWN = re.compile(r"[\\`*_<>&|#$~]")
_BRACKET = re.compile(r"[\[\]]")
_LINK = re.compile(r"\]\s*[(\[:]")  # brackets alone, as of an interval, are no link
_FORMULA = re.compile(r"^'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf)")


def one_line(text: str) -> str:
    """Returns text without line breaks and control characters."""
    return re.sub(r"[\x00-\x1f\x7f\u2028\u2029]+", " ", text)


def tex(text: str) -> str:
    """Returns plain text for LaTeX; `->` and arrows become its own."""
    return _TEX.sub(lambda match: TEX[match[0]], one_line(text))


def markdown(text: str) -> str:
    """Returns plain text for Markdown, also inside a table's cell."""
    safe = _MARKDOWN.sub(lambda sign: f"\\{sign[0]}", one_line(text))
    return _BRACKET.sub(lambda sign: f"\\{sign[0]}", safe) if _LINK.search(text) else safe


def csv_cell(text: str) -> str:
    """Returns text that no spreadsheet takes for a formula: an apostrophe before its sign.

    Numbers stay numbers. `csv_text` takes the apostrophe away.
    """
    formula = _FORMULA.match(text) and not _NUMBER.fullmatch(text)
    return f"'{text}" if formula else text


def csv_text(cell: str) -> str:
    """Returns the text that `csv_cell` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell[1:]) else cell


def mathtext(text: str) -> str:
    """Returns text that matplotlib shows as it is: two dollar signs would begin a formula."""
    return one_line(text).replace("$", r"\$")
