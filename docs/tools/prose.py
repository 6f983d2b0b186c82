"""Measures the prose of Markdown pages: words a sentence, and parentheses.

python docs/tools/prose.py README.md docs/index.md    # prints a row a page
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

LONG = 25  # words; a longer sentence is hard to read at the first reading
_NO_END = re.compile(r"\b(e\.g|i\.e|vs|al|cf|No|Fig|approx)\.")


@dataclass
class Prose:
    """What was measured of one page.

    Args:
        words: of all sentences.
        sentences: their number.
        long: the sentences of more than `LONG` words.
        crowded: the sentences with more than one pair of parentheses.
        parentheses: pairs on the whole page.
    """

    words: int
    sentences: int
    long: list[str]
    crowded: list[str]
    parentheses: int

    @property
    def mean(self) -> float:
        """Words a sentence."""
        return self.words / max(self.sentences, 1)

    @property
    def per_hundred(self) -> float:
        """Pairs of parentheses for every 100 words."""
        return 100 * self.parentheses / max(self.words, 1)


def paragraphs(text: str) -> list[str]:
    """Returns the prose of a page, a paragraph or list item each.

    Code blocks, tables, headings, pictures and comments are no prose.
    """
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"^ *(```|~~~).*?^ *\1 *$", "\n", text, flags=re.DOTALL | re.MULTILINE)
    found: list[str] = []
    going = False
    for line in text.splitlines():
        bare = line.strip()
        if (
            not bare
            or bare.startswith(("|", "#", "<", "![", "---", "$$"))
            or line.startswith("    ")
        ):
            going = going and line.startswith("    ") and bool(bare) and not bare.startswith("|")
            if going:
                found[-1] += f" {bare}"
            continue
        item = re.match(r"([-*+]|\d+[.)])\s+", bare)
        if item or not going:
            found.append(bare[item.end() :] if item else bare)
        else:
            found[-1] += f" {bare}"
        going = True
    return found


def cells(text: str) -> list[str]:
    """Returns the cells of a page's tables that explain something: those below `Meaning`."""
    found: list[str] = []
    place: int | None = None
    for line in text.splitlines():
        row = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not line.startswith("|"):
            place = None
        elif place is not None and set(line) - set("| -:"):
            found.append(row[place])
        elif "Meaning" in row:
            place = row.index("Meaning")
    return found


def plain(paragraph: str) -> str:
    """Returns a paragraph without markup: a code span is one word, a link is its text."""
    text = re.sub(r"`[^`]*`", "CODE", paragraph)
    text = re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"https?://\S+", "URL", text)
    return re.sub(r"[*_]{1,2}(?=\S)|(?<=\S)[*_]{1,2}", "", text)


def sentences(paragraph: str) -> list[str]:
    """Returns the sentences of a paragraph; a list or block that follows a colon is not part."""
    text = _NO_END.sub(lambda found: found[0][:-1], plain(paragraph))
    parts = re.split(r"(?<=[.!?])[\")]?\s+(?=[\"(]?[A-Z0-9])", text)
    return [part for part in (part.strip() for part in parts) if re.search("[A-Za-z]", part)]


def measure(text: str) -> Prose:
    """Returns the measures of a page."""
    found = [one for paragraph in paragraphs(text) for one in sentences(paragraph)]
    words = [len(re.findall(r"[^\W_]+(?:[-'./][^\W_]+)*", one)) for one in found]
    pairs = [one.count("(") for one in found]
    return Prose(
        words=sum(words),
        sentences=len(found),
        long=[one for one, count in zip(found, words, strict=True) if count > LONG],
        crowded=[one for one, count in zip(found, pairs, strict=True) if count > 1],
        parentheses=sum(pairs),
    )


if __name__ == "__main__":
    for name in sys.argv[1:]:
        page = measure(Path(name).read_text(encoding="utf-8"))
        print(
            f"{name}: {page.mean:.1f} words a sentence, {len(page.long)} of {page.sentences} above"
            f" {LONG}, {len(page.crowded)} with several parentheses, {page.per_hundred:.1f}"
            " parentheses for 100 words"
        )
