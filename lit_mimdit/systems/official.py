"""Checkpoints as the authors of the compared systems publish them.

A file is opened without running code, unwrapped, and loaded strictly; recognition.py tells whose it
is.
"""

import pickle
import pickletools
import warnings
import zipfile
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

State = dict[str, Tensor]

# Layers around a state dict, and prefixes of its names, in the files of all ten systems.
WRAPPERS = ("params_ema", "params", "state_dict", "ema", "model")
AVERAGED = "ema_model."  # ema_pytorch keeps averaged and online weights side by side
PREFIXES = ("module.", "net.", "ema_model.", "restoration_network.")


def read(path: str | Path) -> dict[str, Any]:
    """Opens a published file (`.pth`, `.pt`, `.ckpt`, `.safetensors`, or no ending) on the CPU.

    Returns what it holds, with its wrapping. Pickles are read as tensors and plain values only.
    Raises ValueError if the file cannot be opened, is cut off, or needs code to be read.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        with warnings.catch_warnings():  # of pickles of another protocol, which are read or refused
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ValueError(f"{path}: cannot be opened ({error.strerror or error})") from error
    except MemoryError:
        raise
    except Exception as error:  # torch raises many types for a file that is not whole
        if isinstance(error, pickle.UnpicklingError) and not _cut_off(path):
            raise ValueError(
                f"{path}: this pickle needs code or is no checkpoint ({_first_line(error)}); only"
                " files that hold tensors and plain values are read"
            ) from error
        raise ValueError(
            f"{path}: cut off or no checkpoint ({_first_line(error)}); fetch it again"
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{path}: holds a {type(content).__name__} instead of named tensors; give a checkpoint"
        )
    return dict(content)


def _cut_off(path: Path) -> bool:
    """Returns whether a file ends before its zip archive does, or before its pickles do.

    In torch's format before 1.6 the fourth pickle is the checkpoint; raw numbers follow.
    """
    with path.open("rb") as file:
        if file.read(2) == b"PK":
            return not zipfile.is_zipfile(path)
        file.seek(0)
        try:
            for _ in range(4):
                if file.peek(1):
                    deque(pickletools.genops(file), maxlen=0)  # reads and runs nothing
        except (ValueError, UnicodeError):
            return True
    return False


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def unwrap(
    file: Mapping[str, Any],
    wrappers: Iterable[str] = WRAPPERS,
    prefixes: Iterable[str] = PREFIXES,
) -> State:
    """Returns the named tensors inside a file, without wrapping and prefixes.

    file: a state dict, or mappings around one.
    wrappers: names of such mappings, the preferred one first; they are opened until none is left.
    prefixes: each is cut from the names as long as all of them begin with it.

    Where some names begin with AVERAGED, only these are kept. Raises ValueError if no tensor is
    inside.
    """
    wrappers, prefixes = tuple(wrappers), tuple(prefixes)
    inner: Mapping[str, Any] = file
    while name := next((w for w in wrappers if isinstance(inner.get(w), Mapping)), None):
        inner = inner[name]
    state = {str(name): value for name, value in inner.items() if isinstance(value, Tensor)}
    if not state:
        held = ", ".join(map(str, list(inner)[:8])) or "nothing"
        raise ValueError(f"no tensors in this file (it holds {held}); give a checkpoint of weights")
    if averaged := {name: value for name, value in state.items() if name.startswith(AVERAGED)}:
        state = averaged
    while prefix := next((p for p in prefixes if all(name.startswith(p) for name in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def listed(names: Collection[str], most: int = 20) -> str:
    """Returns the names separated by commas; above `most` the rest is counted."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def shape_of(state: Mapping[str, Tensor], name: str, system: str) -> tuple[int, ...]:
    """Returns the shape of a tensor from which sizes are read. ValueError if it is missing."""
    if name not in state:
        raise ValueError(
            f"{system}: the checkpoint has no tensor {name}, from which sizes are read; the file"
            " seems cut off, so fetch it again"
        )
    return tuple(state[name].shape)


def count(state: Mapping[str, Any], before: str, after: str = "") -> int:
    """Returns how many of `before + "0" + after`, `before + "1" + after`, ... begin a name."""
    number = 0
    while any(name.startswith(f"{before}{number}{after}") for name in state):
        number += 1
    return number


def choose(
    system: str, published: Mapping[str, Any], read: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the arguments of a network: what shapes say, then overrides, then the publication.

    published: the official constructor's arguments with the published values.
    read: those that shapes tell.
    given: overrides.

    Raises ValueError for an override that the official constructor lacks, that is of another kind
    than the published value, or that contradicts a shape.
    """
    known = {**published, **read}
    for name, value in given.items():
        if name not in known:
            raise ValueError(
                f"{system}: no argument {name}; the official constructor has {listed(known)}"
            )
        usual = published.get(name)
        if usual is not None and not _alike(value, usual):
            raise ValueError(f"{system}: {name}={value!r} is no value such as {usual!r}; give one")
        same = value if not isinstance(value, list | tuple) else tuple(value)
        if name in read and same != read[name]:
            raise ValueError(
                f"{system}: {name}={value} contradicts the checkpoint, whose tensors say"
                f" {read[name]}; leave the override out"
            )
    return {**published, **given, **read}


def _alike(value: Any, usual: Any) -> bool:
    """Returns whether two values are of one kind: truth, number, text, list or mapping."""
    for kind in (bool, int | float, str, list | tuple, Mapping):
        if isinstance(usual, kind):
            return isinstance(value, kind) and isinstance(value, bool) == isinstance(usual, bool)
    return True


def only(files: Sequence[Mapping[str, Any]], what: str, remedy: str = "give that one") -> Any:
    """Returns the only file; `what` is published as one.

    Raises ValueError with the remedy for none or several files.
    """
    if len(files) != 1:
        raise ValueError(f"{what} is published as one file, and {len(files)} are given; {remedy}")
    return files[0]


def switch(overrides: dict[str, Any], name: str, system: str, purpose: str) -> bool:
    """Takes an override that is true or false out of `overrides`; false where it is not there.

    purpose: what true is for, behind "give true to".

    Raises ValueError for another value.
    """
    value = overrides.pop(name, False)
    if not isinstance(value, bool):
        raise ValueError(f"{system}: {name} is {value!r}; give true to {purpose}, or false")
    return value


def load_strictly(
    network: nn.Module,
    state: Mapping[str, Tensor],
    system: str,
    official_name: Callable[[str], str] = str,
    dead: Callable[[str], bool] = lambda name: False,
) -> None:
    """Copies official tensors into a network; every name must be there, once, in its shape.

    network: every entry of its state dict is filled.
    state: unwrapped official tensors.
    system: its name, for messages.
    official_name: the official name of an entry of ours.
    dead: whether an official name acts on nothing and stays unloaded.

    Raises ValueError with missing and unexpected names and wrong shapes, in one line. Nothing is
    copied then.
    """
    own = {official_name(name): value for name, value in network.state_dict().items()}
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own and not dead(name)]
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(value.shape)}"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    faults = [
        *([f"{len(missing)} names are missing: {listed(missing)}"] if missing else []),
        *([f"{len(unexpected)} names are unexpected: {listed(unexpected)}"] if unexpected else []),
        *([f"{len(shapes)} shapes differ: {listed(shapes)}"] if shapes else []),
    ]
    if faults:
        why = (
            "the file seems cut off, so fetch it again"
            if missing and not unexpected and not shapes
            else "the file is of another version or configuration, so give another"
        )
        raise ValueError(f"{system}: {'; '.join(faults)}; {why}")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(state[name])
