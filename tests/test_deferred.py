"""A library whose import is deferred is loaded by its first use, and by nothing before."""

import importlib
import importlib.util
import sys
from types import ModuleType

import pytest

from lit_mimdit.deferred import Deferred, Finder, defer


@pytest.fixture
def heavy(tmp_path, monkeypatch):
    """A deferred package, and the list of its parts that ran."""
    folder = tmp_path / "heavy_library"
    folder.mkdir()
    (folder / "__init__.py").write_text("import ran\nran.parts.append('all')\nanswer = 42\n")
    (folder / "part.py").write_text("import ran\nran.parts.append('part')\n")
    ran = ModuleType("ran")
    ran.parts = []
    monkeypatch.setitem(sys.modules, "ran", ran)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [Finder("heavy_library"), *sys.meta_path])
    yield ran.parts
    for name in ("heavy_library", "heavy_library.part"):
        sys.modules.pop(name, None)


def test_importing_it_runs_nothing_and_its_first_name_all(heavy):
    library = importlib.import_module("heavy_library")
    assert importlib.util.find_spec("heavy_library") is not None
    assert not hasattr(library, "__nothing__") and importlib.import_module(library.__name__)
    assert heavy == [] and isinstance(library, Deferred)
    assert library.answer == 42 and heavy == ["all"] and type(library) is ModuleType
    assert library.answer == 42 and heavy == ["all"], "once"
    with pytest.raises(AttributeError, match="no attribute 'question'"):
        _ = library.question


def test_a_part_of_it_loads_the_whole_first(heavy):
    importlib.import_module("heavy_library")
    importlib.import_module("heavy_library.part")
    assert heavy == ["all", "part"]


def test_a_part_alone_loads_the_whole_first(heavy):
    importlib.import_module("heavy_library.part")
    assert heavy == ["all", "part"]


def test_what_is_not_installed_cannot_be_imported(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    defer("not_installed_anywhere")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("not_installed_anywhere")


def test_what_was_imported_before_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    finders = list(sys.meta_path)
    defer("json")
    assert sys.meta_path == finders


@pytest.mark.skipif(
    importlib.util.find_spec("torchao") is not None,
    reason="diffusers imports torchao, if it is there",
)
def test_diffusers_alone_brings_in_no_compiler(processes):
    """bitsandbytes, which pyiqa installs, would."""
    code = (
        "import lit_mimdit, sys; from diffusers import SD3Transformer2DModel, AutoencoderKL;"
        "print('torch._inductor.compile_fx' in sys.modules, 'bitsandbytes' in sys.modules)"
    )
    done = processes.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["False", "True"] and "gemm_4bit" not in done.stderr, done
