"""docs/reference/ says what the code says."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import describe
import pytest
import reference


@dataclass
class Inner:
    """Some settings.

    Args:
        depth: layers, at least 1.
    """

    depth: int = 2


@dataclass
class Outer:
    """Settings with others inside.

    Args:
        inner: see Inner.
        mode: fast | slow, and <no> markup.
    """

    inner: Inner
    mode: Literal["fast", "slow"] | None = None
    silent: float = 1e-4


def test_no_page_is_stale(tmp_path):
    pages = reference.pages()
    assert len(pages) == 10
    for name, text in pages.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert reference.stale(tmp_path, pages) == []
    (tmp_path / "metrics.md").write_text("old", encoding="utf-8")
    (tmp_path / "study.md").unlink()
    (tmp_path / "more.md").write_text("", encoding="utf-8")
    assert reference.stale(tmp_path, pages) == ["metrics.md", "more.md", "study.md"]
    stale = reference.stale(reference.FOLDER, pages)
    assert not stale, "run python docs/tools/reference.py"


def test_a_parameter_has_type_default_and_meaning():
    inner, mode, silent = describe.parts_of(Outer, {Inner: "x.md#inner"})
    assert inner == describe.Part("inner", "[Inner](x.md#inner)", "required", "See Inner.")
    assert mode == describe.Part(
        "mode", "`fast`, `slow` or null", "`null`", r"Fast \| slow, and \<no> markup."
    )
    assert silent == describe.Part("silent", "number", "`0.0001`", "")


def test_dataclasses_are_found_inside_others():
    assert describe.nested(Outer) == [Inner]
    assert describe.keys_of(Outer, Inner) == ["inner"]


def test_a_parameter_without_a_meaning_is_named():
    with pytest.raises(ValueError, match=r"Outer: its docstring does not explain silent"):
        describe.complete(Outer, describe.parts_of(Outer))


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (list[str] | None, "list of text or null"),
        (dict[str, int], "mapping of text to integer"),
        (tuple[int, float], "list: integer, number"),
        (Path, "path"),
        (bool, "true or false"),
    ],
)
def test_types_are_words(annotation, words):
    assert describe.kind_of(annotation) == words


@pytest.mark.parametrize(
    ("text", "line"),
    [("a path\n  of two lines", "A path of two lines"), ("auto: goes on", "auto: goes on")],
)
def test_a_meaning_is_one_line(text, line):
    assert describe.sentence(text) == line
