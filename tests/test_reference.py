"""docs/reference/ says what the code says, in sentences."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import describe
import prose
import pytest
import reference
import run_keys
import variables
import yaml

from lit_mimdit import nano, systems

PAGES = {path.name: path.read_text(encoding="utf-8") for path in reference.FOLDER.glob("*.md")}
# a cell that begins so is no sentence, and says nothing without its neighbours
FRAGMENT = re.compile(r"(Of|By|From|As in|As of|The same|Likewise|Those)\b|The \w+'s\.?$")


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


def test_a_meaning_ends_with_a_full_stop():
    assert describe.cell("a path, `x`") == "A path, `x`."
    assert describe.cell("Is it?") == "Is it?" and describe.cell("") == ""


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
        (Sequence[int], "list of integer"),
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
    [
        ("a path\n  of two lines", "A path of two lines"),
        ("auto: goes on", "auto: goes on"),
        ("sub-experts are many", "Sub-experts are many"),
        ("ema = decay ema", "ema = decay ema"),
        ("`auto` goes on", "`auto` goes on"),
    ],
)
def test_a_meaning_is_one_line(text, line):
    assert describe.sentence(text) == line


# -- what the pages say


def faults(cell: str) -> list[str]:
    """What is wrong with the text of a cell."""
    page = prose.measure(cell)
    found = [*page.long, *page.crowded]
    outside = re.sub(r"`[^`]*`", "", cell)
    wrong = FRAGMENT.match(cell) or re.search(r'"\w*"', outside) or re.match(r"[a-z]", cell)
    return found + [cell] * (wrong is not None or not cell.endswith((".", "!", "?")))


@pytest.mark.parametrize("name", PAGES)
def test_every_meaning_is_in_sentences(name):
    assert not [fault for cell in prose.cells(PAGES[name]) for fault in faults(cell)]


def test_meanings_are_found_and_measured():
    page = """| Key | Meaning |
| --- | --- |
| `a` | Of the noise. |
| `b` | A \\| sign. |

| File | Of |
| --- | --- |
| `c` | none |
"""
    assert prose.cells(page) == ["Of the noise.", r"A \| sign."]
    wrong = ["Of the noise.", "The teacher's.", 'One of "a" and "b".', "auto goes.", "No stop"]
    assert all(map(faults, [*wrong, "Word " * 26 + "."]))
    assert not any(map(faults, ["Seed of the noise.", "`auto` goes.", "The teacher's solver."]))
    assert sum(len(prose.cells(text)) for text in PAGES.values()) > 700


def test_each_command_has_one_table_with_each_option_once():
    sections = re.split(r"^## ", PAGES["commands.md"], flags=re.MULTILINE)[1:]
    assert len(sections) > 15
    for section in sections:
        rows = re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)
        options = [option.replace("_", "-") for option in rows]
        assert len(re.findall(r"^\| --- ", section, re.MULTILINE)) == 1, section[:20]
        assert options and len(set(options)) == len(options)


def test_every_system_has_a_section():
    names = {system.__name__ for system in reference.systems_of(systems, nano)}
    assert {"FFDNet", "Spandrel", "FewStep", "NanoVAE"} <= names
    assert not {"RestorationSystem", "PixelSystem", "LatentSystem"} & names
    assert names <= set(re.findall(r"^## (\w+)", PAGES["systems.md"], re.MULTILINE))


def keys_below(values: Any, name: str) -> Iterator[str]:
    """Keys of all mappings of a name in a YAML."""
    if isinstance(values, dict):
        yield from values[name] if isinstance(values.get(name), dict) else ()
        for value in values.values():
            yield from keys_below(value, name)


def test_every_key_of_the_experiments_outside_system_and_data_is_explained():
    files = [*(reference.ROOT / "experiments").rglob("*.yaml")]
    texts = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in files]
    trainer = {key for values in texts for key in keys_below(values, "trainer")}
    assert len(trainer) > 20 and trainer <= run_keys.TRAINER.keys()
    run = {key for values in texts if "trainer" in values for key in values}
    section = PAGES["settings.md"].split("## Run")[1].split("## Trainer")[0]
    explained = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    assert {"seed_everything", "resume", "model"} <= run <= explained


# -- environment variables


def test_variables_that_code_reads_are_found():
    source = """
NAME = "LIT_A"
os.environ.get(NAME), os.environ["LIT_B"], os.getenv("LIT_C", ""), "LIT_D" in environ
os.environ["LIT_E"] = "1"
values.get("LIT_F")
for name in names:
    os.environ.get(name)
"""
    assert variables.read_in(source) == {"LIT_A", "LIT_B", "LIT_C", "LIT_D"}


def test_a_variable_that_is_not_explained_is_named(tmp_path):
    known = [f'os.environ.get("{name}")' for name in (*variables.OWN, *variables.LAUNCHERS)]
    (tmp_path / "a.py").write_text("\n".join(known))
    assert "LIT_MIMDIT_CACHE" in variables.section(tmp_path)
    (tmp_path / "b.py").write_text('os.environ["LIT_MIMDIT_MOON"]')
    with pytest.raises(ValueError, match="environment variables LIT_MIMDIT_MOON: "):
        variables.section(tmp_path)


def test_every_own_variable_that_the_package_names_is_explained():
    """Also where a message or a comment tells a reader to set it."""
    text = "".join(p.read_text("utf-8") for p in (reference.ROOT / "lit_mimdit").rglob("*.py"))
    assert set(re.findall(r"LIT_MIMDIT_[A-Z_]+", text)) == variables.OWN.keys()
