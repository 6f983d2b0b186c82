"""What is installed: versions that must not be, and packages that messages ask for."""

import ast
import configparser
import re
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
# package -> versions that must not be installed, and where that is said
KNOWN_BAD = {
    "lightning": ({"2.6.2", "2.6.3"}, "GHSA-w37p-236h-pfx3"),
    "pytorch-lightning": ({"2.6.2", "2.6.3"}, "GHSA-w37p-236h-pfx3"),
}
SUFFIXES = {".py", ".md", ".yaml", ".ipynb", ".sh"}
READ = ["README.md", "CONTRIBUTING.md", "data/README.md"]
READ += ["lit_mimdit", "docs", "experiments", "notebooks", "benchmarks"]


def config() -> configparser.ConfigParser:
    read = configparser.ConfigParser()
    read.read(ROOT / "setup.cfg", encoding="utf-8")
    return read


def requirements(*texts: str) -> dict[str, Requirement]:
    """Requirements of lists in setup.cfg by the name of their package."""
    found = [Requirement(line) for text in texts for line in text.splitlines() if line]
    return {one.name: one for one in found}


@pytest.mark.parametrize("package", KNOWN_BAD)
def test_versions_known_as_bad_are_neither_installed_nor_allowed(package):
    bad, where = KNOWN_BAD[package]
    allowed = requirements(config()["options"]["install_requires"])[package].specifier
    assert not any(Version(number) in allowed for number in bad), where
    assert Version("2.6.6") in allowed, "the range would be empty"
    assert version(package) not in bad, where


def test_the_program_and_its_types_are_installed():
    read = config()
    assert read["options.entry_points"]["console_scripts"].strip() == (
        "lit-mimdit = lit_mimdit.cli:main"
    )
    assert (ROOT / "lit_mimdit" / "py.typed").is_file()
    assert "py.typed" in read["options.package_data"]["lit_mimdit"]


def test_nothing_asks_for_this_project_from_the_package_index():
    """It is not there, so whoever takes the name could install anything."""
    files = [ROOT / "setup.cfg"]
    for place in (ROOT / name for name in READ):
        files += [place] if place.is_file() else place.rglob("*")
    wrong = re.compile(r"lit[_-]mimdit\[|pip install [\\\"'`]*lit[_-]mimdit")
    texts = {
        file: file.read_text(encoding="utf-8")
        for file in files
        if file.suffix in SUFFIXES | {".cfg"} and file.is_file()
    }
    assert len(texts) > 300
    assert [str(file) for file, text in texts.items() if wrong.search(text)] == []


def test_messages_ask_for_packages_as_setup_cfg_does():
    read = config()
    extras = [read["options.extras_require"][name] for name in read["options.extras_require"]]
    known = requirements(read["options"]["install_requires"], *extras)
    quoted: set[str] = set()
    texts = {file: file.read_text("utf-8") for file in (ROOT / "lit_mimdit").rglob("*.py")}
    for file, text in texts.items():
        for node in ast.walk(ast.parse(text)) if "pip install" in text else ():
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                quoted.update(re.findall(r'pip install "([^"]+)"', node.value))
                bare = re.findall(r"pip install ([a-z][\w-]*)", node.value)
                assert set(bare) <= set(known), file
    assert {Requirement(one).name for one in quoted} == {"boto3", "gradio", "spandrel"}
    for one in map(Requirement, quoted):
        assert one.specifier == known[one.name].specifier, one
