"""`python -m lit_mimdit import-weights`: a file that authors released, in this project's format."""

import json
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, Literal

import torch

import lit_mimdit.systems
from lit_mimdit.inference.system_file import save_system
from lit_mimdit.systems.official import read


def importable() -> list[str]:
    """Returns names of the systems that read official files, and spandrel, which reads many."""
    root = lit_mimdit.systems
    names = [
        info.name
        for info in iter_modules(root.__path__)
        if info.ispkg and find_spec(f"{root.__name__}.{info.name}.official") is not None
    ]
    return sorted([*names, "spandrel"])


def official_class(name: str) -> Any:
    """Returns the class of a system that reads official files; ValueError lists the names there
    are.
    """
    names = importable()
    if name not in names:
        raise ValueError(f"system is {name!r}: choose among {', '.join(names)}")
    module = import_module(f"{lit_mimdit.systems.__name__}.{name}")
    return next(
        kind for kind in map(module.__dict__.get, module.__all__) if hasattr(kind, "from_official")
    )


def import_weights(
    system: str,
    files: list[Path],
    *,
    output: Path,
    override: str = "{}",
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
) -> None:
    """Turn weights that the authors of a system released into a file for restore and evaluation.

    Sizes are read from the tensors. The result is restored with as the authors' test script does:
    python -m lit_mimdit restore PHOTOS -o FOLDER --checkpoint OUTPUT. Files that need code to be
    read are refused.

    Args:
        system: Name of the system: `airnet`, `autodir`, `daclip`, `dgunet`, `diffir`, `diffuir`,
            `dit4sr`, `ffdnet`, `foundir`, `promptir` or `transweather`. `spandrel` stands for a
            network of any architecture that this library knows.
        files: The released file (.pth, .pt, .ckpt or .safetensors), or several where the system has
            several. docs/systems/NAME.md says which.
        output: File to write, ending in .safetensors.
        override: Arguments of the official constructor that the tensors do not tell, as JSON, such
            as `'{"sampling_timesteps": 4}'`.
        dtype: Precision of the written weights.
    """
    if output.suffix != ".safetensors":
        raise ValueError(f"output is {str(output)!r}: a system is written as .safetensors")
    try:
        overrides = json.loads(override)
    except json.JSONDecodeError as error:
        raise ValueError(f"override is {override!r}: not JSON ({error})") from error
    if not isinstance(overrides, dict):
        raise ValueError(f"override is {override!r}: give names and values, as {{...}}")
    kind = official_class(system)
    contents = [read(path) for path in files]
    try:
        made = kind.from_official(*contents, **overrides)
    except (TypeError, ZeroDivisionError) as error:
        if not overrides:
            raise
        raise ValueError(
            f"override is {override!r}: {system} cannot be built with these values ({error}); give"
            " each as the official constructor takes it"
        ) from error
    file = made.system_file()
    file.official = [path.name for path in files]
    save_system(output, file, getattr(torch, dtype))
    million = sum(tensor.numel() for tensor in file.tensors.values()) / 1e6
    print(f"{output}: {kind.__name__}, {million:.2f} M values; restore with --checkpoint {output}")
    if (note := made.import_note()) is not None:
        print(f"note: {note}")
