"""Docstrings of the package: sentences that are understood at the first reading."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path

import prose

ROOT = Path(__file__).parents[1]
# first words of what is no sentence, but an answer to a question that nobody asked
FRAGMENTS = {"What", "Whether", "How", "Of", "In", "That", "Those"}
FRAGMENTS |= {"Which", "Where", "Why", "From", "For", "By", "With", "Is", "ValueError"}
HEADING = re.compile(r"^(?:Args|Attributes|Raises|Returns|Yields):$", re.MULTILINE)
ENTRY = re.compile(r"^(?=[a-z_]\w*(?:, [a-z_]\w*)*: )", re.MULTILINE)
SOURCE = re.compile(r"^Sources?:.*?(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)
DOCTEST = re.compile(r"^ *(?:>>>|\.\.\.) .*$", re.MULTILINE)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def documented(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each docstring of a file, without its indentation."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
            yield node.body[0].lineno, text


@cache
def docstrings() -> dict[str, str]:
    """Docstrings of the package by file and line."""
    found = {}
    for path in sorted((ROOT / "lit_mimdit").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        for line, text in documented(path.read_text(encoding="utf-8")):
            found[f"{name}:{line}"] = text
    return found


def below_heading(section: str) -> tuple[list[str], str]:
    """Entries of a list of arguments, attributes or errors, and the text after the list.

    An entry is indented by four spaces, and its other lines by more.
    """
    inside = re.match(r"(?:\n(?: {4}.*)?)*", section)[0]
    entries = re.split(r"\n {4}(?! )", inside)
    return [re.sub(r"\n {8}", "\n", entry) for entry in entries], section[len(inside) :]


def pieces(text: str) -> list[str]:
    """Paragraphs, and each entry of a list by itself.

    A paragraph that begins with a name and a colon is a list too, with an entry a line.
    """
    running, *sections = HEADING.split(text.replace("``", "`"))
    found, paragraphs = [], running.split("\n\n")
    for section in sections:
        entries, after = below_heading(section)
        found += entries
        paragraphs += after.split("\n\n")
    lists = [ENTRY.split(part) if ENTRY.match(part) else [part] for part in paragraphs]
    return [*chain.from_iterable(lists), *found]


def long_sentences(text: str) -> list[str]:
    """Sentences above the standard's length; sources, doctests and indented blocks have none."""
    prosaic = DOCTEST.sub("", SOURCE.sub("", text))
    return [one for piece in pieces(prosaic) for one in prose.measure(piece).long]


def begins_with_a_fragment(text: str) -> bool:
    first = re.match(r"\w*", text)[0]
    return first in FRAGMENTS or text.startswith("The same ")


def test_no_sentence_is_long():
    long = {place: long_sentences(text) for place, text in docstrings().items()}
    assert len(long) > 2000
    lines = [f"{place}: {one}" for place, found in long.items() for one in found]
    assert not lines, "\n".join(lines)


def test_no_docstring_begins_with_a_fragment():
    wrong = {p: text for p, text in docstrings().items() if begins_with_a_fragment(text)}
    assert not wrong, "\n".join(f"{place}: {wrong[place].splitlines()[0]}" for place in wrong)


WORDS = "word " * 25  # as many as a sentence may have


def test_a_long_sentence_is_found_wherever_it_stands():
    assert not long_sentences(f"Returns it.\n\n{WORDS}.")
    assert long_sentences(f"{WORDS}word.")
    assert long_sentences(f"Returns it.\n\nArgs:\n    one: {WORDS}\n        word.\n    two: it.")
    assert long_sentences(f"Returns it.\n\nRaises:\n    ValueError: it.\n\n{WORDS}word.")
    assert long_sentences(f"Returns it.\n\none: it.\ntwo: {WORDS}.")
    assert long_sentences(f"Returns it.\n\nSource: it.\n\n{WORDS}word.")


def test_formulas_sources_doctests_and_short_entries_are_no_long_sentence():
    half = "word " * 14
    assert not long_sentences(f"Returns it.\n\nArgs:\n    one: {half}\n    two: {half}")
    assert not long_sentences(f"Returns it.\n\none: {half}\ntwo, three: {half}")
    assert not long_sentences(f"Returns it.\n\n    y = {WORDS}x\n\nHere y is the result.")
    assert not long_sentences(f"Returns it.\n\n>>> {WORDS}word\n... {WORDS}word")
    assert not long_sentences(f"Returns it.\n\nSources: {WORDS}\n{WORDS}word.")


def test_a_fragment_is_found():
    assert begins_with_a_fragment("Whether it is whole.")
    assert begins_with_a_fragment("What's left.") and begins_with_a_fragment("The same for s.")
    assert not begins_with_a_fragment("Returns whether it is whole.")
    assert not begins_with_a_fragment("Inner and outer.") and not begins_with_a_fragment("`x`.")
