"""Fonts that have the letters of a name, for labels in pictures.

A font draws a box for a letter that it lacks, and then all Chinese names look the same.
"""

from functools import cache
from pathlib import Path

from PIL import ImageFont

from lit_mimdit.console import readable

OF_MATPLOTLIB = "DejaVu Sans"  # comes with it
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
# parts of file names of fonts with Chinese, Japanese and Korean letters (Linux, Windows, macOS)
WIDE = (
    "notosanscjk", "notosansmonocjk", "notoserifcjk", "sourcehansans", "wqy", "droidsansfallback",
    "unifont", "uming", "ukai", "ipag", "vlgothic", "takao", "nanum", "baekmuk", "msyh", "simsun",
    "simhei", "msgothic", "yugoth", "meiryo", "malgun", "arialuni", "pingfang", "hiragino",
    "applesdgothic", "stheiti", "notosans", "dejavusans",
)  # fmt: skip


def drawable(text: str, size: int) -> tuple[str, Font]:
    """Returns a label and a font that draws all of it.

    Args:
        text: what is to be drawn.
        size: of the letters, pixels.

    Returns:
        the text itself with the first font that has all its letters; or, where no font has, the
        text with codes in place of the letters that are missing, such as \\u65e5.
    """
    own = ImageFont.load_default(size)
    if text.isascii() or covers(own, text):
        return text, own
    for path in _candidates():
        font = _load(path, size)
        if font is not None and covers(font, text):
            return text, font
    return "".join(c if covers(own, c) else readable(c) for c in text), own


def covers(font: Font, text: str) -> bool:
    """Returns whether a font has a shape of its own for every letter that is not ASCII."""
    lacking = _shape(font, "\U0010fffe")  # no character: every font draws its box
    return all(c.isascii() or _shape(font, c) != lacking for c in text)


def _shape(font: Font, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


@cache
def _candidates() -> tuple[Path, ...]:
    """Fonts of this machine that may have the letters, the widest first."""
    from matplotlib import font_manager  # DejaVu comes with it

    files = [Path(path) for path in font_manager.findSystemFonts()]
    files += [Path(font_manager.findfont(OF_MATPLOTLIB))]
    return tuple(sorted(files, key=_rank)) if files else ()


def _rank(path: Path) -> tuple[int, str]:
    name = path.stem.lower().replace("-", "").replace("_", "").replace(" ", "")
    return next((i for i, part in enumerate(WIDE) if part in name), len(WIDE)), str(path)


@cache
def _load(path: Path, size: int) -> Font | None:
    """The font of a file; None if this library cannot read it."""
    try:
        return ImageFont.truetype(str(path), size)
    except OSError:
        return None


@cache
def families() -> tuple[str, ...]:
    """Returns matplotlib's own font and those with wide letters that it knows here, for its
    `font.family`.
    """
    from matplotlib import font_manager

    known = {entry.name for entry in font_manager.fontManager.ttflist}
    named = {name.lower().replace(" ", ""): name for name in sorted(known)}
    wide = [name for part in WIDE[:-1] for key, name in named.items() if part in key]
    return tuple(dict.fromkeys([OF_MATPLOTLIB, *wide]))


def lettering(text: str) -> str:
    """Returns a user's text for a figure of matplotlib: letters that none of `families` has become
    codes.
    """
    return "".join(c if c.isascii() or _has(c) else readable(c) for c in text)


@cache
def _has(letter: str) -> bool:
    from matplotlib import font_manager

    fonts = map(font_manager.findfont, families())
    return any(font_manager.get_font(path).get_char_index(ord(letter)) for path in fonts)
