"""Rooms of the package and the arrows between them: nothing imports upwards or in a circle."""

import ast
import re
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
    "inference": {"files", "settings", "data", "models"},
    "evaluation": {"", "files", "csv_file", "escaping", "data", "inference"},
    "latent_shards": {"data", "models", "inference"},
    "systems": {"data", "models", "inference", "evaluation", "latent_shards"},
    "estimate": {"systems"},
    "routing": {"files", "csv_file", "escaping", "data", "models", "inference", "evaluation"},
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
        "settings",
        "escaping",
        "inference",
        "evaluation",
        "routing",
        "systems",
        "training",
        "cli",
    },
    "__main__": {"cli"},
}


def imports(name: str) -> set[str]:
    """Files of the package that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
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
