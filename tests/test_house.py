"""Rooms of the package and the arrows between them: nothing imports upwards or in a circle."""

import ast
import re
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import lit_mimdit

ROOT = Path(lit_mimdit.__path__[0])
FILES = {
    ".".join(("lit_mimdit", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in ROOT.rglob("*.py")
}
# every room with what it may import, from the ground up; "" is the package itself (its version)
ROOMS: dict[str, set[str]] = {
    "deferred": set(),
    "files": set(),
    "settings": set(),
    "renamed": set(),
    "console": set(),
    "quiet": set(),
    "hushed": {"quiet"},
    "escaping": set(),
    "csv_file": {"escaping"},
    "data": {"files", "console", "csv_file", "escaping"},
    "models": {"files", "csv_file"},
    "inference": {"files", "console", "settings", "data", "models"},
    "evaluation": {"", "files", "csv_file", "escaping", "data", "inference"},
    "sharing": {"files", "models", "inference", "evaluation"},
    "latent_shards": {"data", "models", "inference"},
    "teacher_shards": {"data", "models", "inference", "latent_shards"},
    "systems": {"data", "models", "inference", "evaluation", "latent_shards", "teacher_shards"},
    "estimate": {"systems"},
    "routing": {"files", "csv_file", "data", "models", "inference", "evaluation"},
    "training": {
        "renamed",
        "files",
        "settings",
        "data",
        "models",
        "inference",
        "evaluation",
        "systems",
        "estimate",
        "routing",
    },
    "demo_page": {
        "files",
        "escaping",
        "data",
        "models",
        "inference",
        "evaluation",
        "systems",
        "routing",
    },
    "nano": {"data", "models", "inference", "evaluation", "systems"},
    "signatures": set(),
    "function_command": {"signatures"},
    "completion": {"signatures"},
    "trainer_help": set(),
    "cli": {
        "",
        "console",
        "quiet",
        "training",
        "function_command",
        "completion",
        "trainer_help",
    },
    "ablation": {
        "files",
        "renamed",
        "settings",
        "csv_file",
        "escaping",
        "data",
        "inference",
        "evaluation",
        "systems",
        "training",
        "cli",
    },
    "__main__": {"cli"},
}


@cache
def nodes(name: str) -> list[ast.AST]:
    """Everything in the syntax tree of a file."""
    return list(ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))))


@cache
def imports(name: str) -> set[str]:
    """Files of the package that a file imports, inside functions too."""
    found = set()
    for node in nodes(name):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lit_mimdit"):
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {one if one in FILES else node.module for one in full}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("lit_mimdit.")}
    return found - {name}


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def test_no_file_imports_in_a_circle():
    order = TopologicalSorter({name: imports(name) for name in FILES}).static_order()
    assert len(list(order)) >= len(FILES) > 50


def test_the_rooms_themselves_form_no_circle():
    assert len(list(TopologicalSorter(ROOMS).static_order())) >= len(ROOMS)


def test_every_room_is_listed():
    assert {room(name) for name in FILES} - {""} == ROOMS.keys()


@pytest.mark.parametrize("name", sorted(ROOMS))
def test_a_room_imports_only_what_it_may(name):
    found = {
        (file, other)
        for file in FILES
        if room(file) == name
        for other in imports(file)
        if room(other) not in ROOMS[name] | {name}
    }
    assert not found, sorted(found)


def test_every_allowed_arrow_is_used():
    used = {(room(file), room(other)) for file in FILES for other in imports(file)}
    idle = [(name, other) for name in ROOMS for other in ROOMS[name] if (name, other) not in used]
    assert not idle, sorted(idle)


def test_the_architecture_page_shows_these_arrows():
    page = Path(__file__).parents[1] / "docs" / "explanation" / "architecture.md"
    page = page.read_text(encoding="utf-8")
    page = page.split("\n## ")[0]  # its first table
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| (.*?) \|", page, re.MULTILINE))
    shown = {name: set(re.findall(r"`([a-z_]+)`", allowed)) for name, allowed in rows.items()}
    assert shown == {name: allowed - {""} for name, allowed in ROOMS.items()}


# -- one job a file

LINES = 400
LONG: set[str] = set()  # files that are longer


def test_no_file_is_longer_than_a_reader_takes_in():
    lengths = {name: len(path.read_text("utf-8").splitlines()) for name, path in FILES.items()}
    assert {name for name, length in lengths.items() if length > LINES} == LONG


def test_no_name_of_a_file_is_given_twice():
    """The second constant of a name would take the place of the first without a word."""
    twice = []
    for module, path in FILES.items():
        names = []
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.Assign):
                names += [target.id for target in node.targets if isinstance(target, ast.Name)]
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.append(node.name)
        twice += [f"{module}.{name}" for name in set(names) if names.count(name) > 1]
    assert not twice


# -- idioms that read badly, and that no rule of ruff holds off

COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
# functions that pass what they do not name to a base class or a library; this list only shrinks
PASS_ON = {
    "lit_mimdit.data.degraded.DegradedPhotos",
    "lit_mimdit.data.order.ResumableLoader",
    "lit_mimdit.systems.diffir.network.FirstStage",
    "lit_mimdit.systems.diffir.network.SecondStage",
    "lit_mimdit.training.strategies.ZeRO",
    "lit_mimdit.training.trainer.Trainer",
}


def says_yes_or_no(node: ast.expr) -> bool:
    return isinstance(node, (ast.Compare, ast.BoolOp)) or (
        isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
    )


def is_text_or_list(node: ast.expr) -> bool:
    return isinstance(node, (ast.List, ast.JoinedStr)) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def multiplies_a_truth_value(node: ast.AST) -> bool:
    """`["data set"] * (len(sets) > 1)` is an if in disguise."""
    if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult)):
        return False
    sides = (node.left, node.right)
    return any(map(says_yes_or_no, sides)) and any(map(is_text_or_list, sides))


def assigns_many_at_once(node: ast.AST) -> bool:
    """`a, b, c = x, y, z` are three assignments."""
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Tuple)
        and isinstance(node.value, ast.Tuple)
        and len(node.value.elts) > 2
    )


def nests_comprehensions_over_lines(node: ast.AST) -> bool:
    """Two loops in one comprehension need a glance: they stand on one line, or are named steps."""
    if not isinstance(node, COMPREHENSIONS) or node.lineno == node.end_lineno:
        return False
    inner = [child for child in ast.walk(node) if isinstance(child, COMPREHENSIONS)]
    return len(node.generators) > 1 or len(inner) > 1


def is_called_found(node: ast.AST) -> bool:
    """An answer is called by what it is."""
    is_name = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    return (is_name and node.id == "found") or (isinstance(node, ast.arg) and node.arg == "found")


IDIOMS = (
    (multiplies_a_truth_value, 'flags = ["a"] * (n > 1)'),
    (assigns_many_at_once, "a, b, c = 1, 2, 3"),
    (nests_comprehensions_over_lines, "x = [\n    b for a in c\n    for b in a]"),
    (is_called_found, "found = search()"),
)


@pytest.mark.parametrize(("idiom", "example"), IDIOMS, ids=[idiom.__name__ for idiom, _ in IDIOMS])
def test_no_file_has_an_idiom_that_reads_badly(idiom, example):
    assert any(map(idiom, ast.walk(ast.parse(example))))
    places = []
    for name in FILES:
        places += [f"{name}:{node.lineno}" for node in nodes(name) if idiom(node)]
    assert not places, places


def test_constructors_name_their_arguments():
    open_ended = set()
    for name in FILES:
        for node in nodes(name):
            if isinstance(node, ast.ClassDef):
                own = [part for part in node.body if isinstance(part, ast.FunctionDef)]
                if any(part.name == "__init__" and part.args.kwarg for part in own):
                    open_ended.add(f"{name}.{node.name}")
    assert open_ended == PASS_ON


def test_the_drawing_of_systems_has_all_of_them():
    page = (ROOT.parent / "docs/explanation/architecture.md").read_text(encoding="utf-8")
    drawn = set(re.findall(r"^    (\w+) <\|-- (\w+)$", page, re.MULTILINE))
    derived = {
        (base.id, node.name)
        for name in FILES
        if name.startswith("lit_mimdit.systems.")
        for node in nodes(name)
        if isinstance(node, ast.ClassDef)
        for base in node.bases
        if isinstance(base, ast.Name)
    }
    systems = {"RestorationSystem"}
    while more := {own for base, own in derived if base in systems} - systems:
        systems |= more
    assert drawn == {(base, own) for base, own in derived if {base, own} <= systems}
