"""Dependencies point one way."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import lit_mimdit

ROOT = Path(lit_mimdit.__path__[0])
FILES = {
    ".".join(("lit_mimdit", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in ROOT.rglob("*.py")
}
LAYERS = {"data": {"data"}, "models": {"data", "models"}}  # what these may import


def imports(name: str) -> set[str]:
    """Files of the package that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lit_mimdit"):
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {one if one in FILES else node.module for one in full}
    return found - {name}


def test_no_file_imports_in_a_circle():
    assert (
        len(list(TopologicalSorter({name: imports(name) for name in FILES}).static_order()))
        >= len(FILES)
        > 50
    )


def test_the_lower_rooms_know_nothing_of_the_upper_ones():
    for name in FILES:
        room = name.split(".")[1] if "." in name else ""
        if room in LAYERS:
            assert {other.split(".")[1] for other in imports(name)} <= LAYERS[room], name
