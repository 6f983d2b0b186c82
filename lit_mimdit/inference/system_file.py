"""Keeps a restoration system in a file: its class, arguments, trained tensors and backbone.

Two forms hold the same facts. A Lightning checkpoint, `.ckpt`, resumes a run. An exported file,
`.safetensors`, restores and starts other runs. Neither holds the frozen weights.
"""

import json
import pickle
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lit_mimdit.files import write_bytes
from lit_mimdit.inference.hub import MODEL, fetched, hub_name, shown
from lit_mimdit.models.backbone import Identity, nano_folder

FORMAT = "lit_mimdit.system.1"
KEY = "lit_mimdit"  # metadata key of an exported file, and entry of a Lightning checkpoint
HOME = "lit_mimdit.systems."  # classes below it are built from a file without --trust
FOREIGN = ".pth"  # released by others; spandrel knows what it is
PACKAGE = "package"  # names the weights that come with the package

BRANCH_FORMAT = "lit_mimdit.branch.1"  # of earlier versions: a branch on a backbone
BRANCH_PREFIX = "network.branch."
BRANCH_CLASSES = {"mim": f"{HOME}mimdit.MiMDiT", "controlnet": f"{HOME}controlnet.ControlNet"}


@dataclass
class SystemFile:
    """A trained system without its frozen weights.

    Args:
        class_path: class of the system, such as `lit_mimdit.systems.mimdit.MiMDiT`.
        arguments: arguments of its constructor, as plain values. Those that only training needs are
            left out.
        tensors: parameters and buffers, named within `trained`. Parameters are averaged if the run
            had an EMA.
        backbone: identity of the frozen backbone; `null` for a system without.
        sampling: sampling defaults of the system as plain values; `null` for a system without.
        prompt: text that the backbone was told in training.
        official: names of the authors' files that the weights were imported from. It is empty for
            what was trained here.
    """

    class_path: str
    arguments: dict[str, Any]
    tensors: dict[str, Tensor] = field(repr=False)
    backbone: Identity | None = None
    sampling: dict[str, Any] | None = None
    prompt: str = ""
    official: list[str] = field(default_factory=list)

    def description(self) -> dict[str, Any]:
        """Returns everything but the tensors, as plain values."""
        return {
            "format": FORMAT,
            "class_path": self.class_path,
            "arguments": self.arguments,
            "backbone": None if self.backbone is None else self.backbone.plain(),
            "sampling": self.sampling,
            "prompt": self.prompt,
            **({"official": self.official} if self.official else {}),
        }


def _of_branch(values: dict[str, Any], tensors: dict[str, Tensor]) -> SystemFile:
    """A file of the format lit_mimdit.branch.1; KeyError or TypeError if it is damaged."""
    class_path = BRANCH_CLASSES[values.get("network", "mim")]  # the oldest files do not say
    backbone, prompt = Identity(**values["backbone"]), values.get("prompt", "")
    arguments = {"branch": values["branch"]}
    return SystemFile(class_path, arguments, tensors, backbone, values["sampling"], prompt)


def _of_system(values: dict[str, Any], tensors: dict[str, Tensor]) -> SystemFile:
    identity = values["backbone"]
    return SystemFile(
        values["class_path"],
        dict(values["arguments"]),
        tensors,
        None if identity is None else Identity(**identity),
        values["sampling"],
        values["prompt"],
        list(values.get("official", [])),
    )


def undescribe(values: dict[str, Any], tensors: dict[str, Tensor], where: str) -> SystemFile:
    """Returns the system that a description and its tensors stand for.

    Raises ValueError, with `where` and the remedy, if the format is unknown, newer or damaged.
    """
    kind = values.get("format") if isinstance(values, dict) else None
    readers = {FORMAT: _of_system, BRANCH_FORMAT: _of_branch}
    if kind not in readers:
        newer = str(kind).startswith("lit_mimdit.")
        remedy = "install a newer version of lit_mimdit" if newer else "give an exported system"
        raise ValueError(
            f"{where}: its format is {kind!r}, and this version reads {' and '.join(readers)};"
            f" {remedy}"
        )
    try:
        return readers[kind](values, tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{where}: its description is damaged or of another version ({error}); export the"
            " system again"
        ) from error


def save_system(path: Path, file: SystemFile, dtype: torch.dtype = torch.float32) -> None:
    """Write a system as one safetensors file, whole or not at all; integers keep their type."""
    tensors = {name: tensor.detach().cpu() for name, tensor in file.tensors.items()}
    tensors = {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in tensors.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, save(tensors, {KEY: json.dumps(file.description(), sort_keys=True)}))


def load_system(path: str | Path) -> SystemFile:
    """Read an exported system (.safetensors), the system in a Lightning checkpoint (.ckpt), or a
    released network of another project (.pth).

    `path` is what `system_path` takes.
    """
    path = system_path(path)
    where = f"checkpoint {shown(path)}"
    if not path.is_file():
        raise ValueError(f"{where}: no such file")
    if path.suffix == FOREIGN:
        return import_module(f"{HOME}spandrel").read_file(path)
    if path.suffix != ".safetensors":
        return system_of_checkpoint(read_checkpoint(path), where)
    try:
        with safe_open(path, "pt") as handle:
            values = json.loads((handle.metadata() or {}).get(KEY, "{}"))
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{where}: not a readable safetensors file ({error}); export or fetch it again"
        ) from error
    if not values and (told := how_to_import(tensors)):
        raise ValueError(f"{where}: {told}")
    return undescribe(values, tensors, where)


def how_to_import(content: dict[str, Any]) -> str:
    """Returns what an author's file seems to be and the command that imports it, or ""."""
    return import_module(f"{HOME}recognition").how_to_import(content)  # of a room above this one


def is_own(path: Path) -> bool:
    """Returns whether a file is of this project: a Lightning checkpoint or an exported system."""
    if path.suffix != ".safetensors":
        return path.suffix == ".ckpt"
    with safe_open(path, "pt") as handle:
        return KEY in (handle.metadata() or {})


def official_files(path: Path) -> list[str]:
    """Returns the names of the authors' files that an exported file was imported from, if any."""
    if path.suffix != ".safetensors":
        return []
    with safe_open(path, "pt") as handle:
        return json.loads((handle.metadata() or {}).get(KEY, "{}")).get("official", [])


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Returns a Lightning checkpoint, read with weights_only: code in it is refused."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"checkpoint {path}: refused: no checkpoint, or one of more than tensors and plain"
            " values; give one that `fit` wrote"
        ) from error
    except Exception as error:  # torch raises many types for a file that is not its own
        raise ValueError(
            f"checkpoint {path}: cannot be read ({type(error).__name__}); it is damaged or no"
            " checkpoint, so give another"
        ) from error


def system_of_checkpoint(
    checkpoint: dict[str, Any], where: str, helpers: bool = False
) -> SystemFile:
    """Returns the system of a Lightning checkpoint, averaged if the run had an EMA.

    `helpers` keeps the tensors that only training needs, such as a fake score's; they are named
    below the checkpoint's entry `helpers`.
    """
    if KEY not in checkpoint:
        told = how_to_import(checkpoint) or "give one that `fit` has written"
        raise ValueError(f"{where}: not a checkpoint of a restoration system; {told}")
    tensors = dict(checkpoint["state_dict"])
    for name, state in checkpoint.get("callbacks", {}).items():
        if name.startswith("EMA"):
            tensors |= state["average"]
    prefix = checkpoint[KEY].get("prefix", BRANCH_PREFIX)
    own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    beside = checkpoint[KEY].get("helpers", "")
    if beside and not helpers:
        own = {name: tensor for name, tensor in own.items() if not name.startswith(beside)}
    return undescribe(checkpoint[KEY], own, where)


def system_path(checkpoint: str | Path | None) -> Path:
    """Returns the file of a system.

    What exists on this machine is taken before a repository of the hub.

    Args:
        checkpoint: a file; the folder of a repository; or OWNER/NAME or OWNER/NAME@REVISION on the
            hub. None or "package" is the one that comes with the package.

    Raises:
        ValueError: the repository cannot be read.
    """
    if checkpoint is None or str(checkpoint) == PACKAGE:
        return nano_folder() / "branch.safetensors"
    path = Path(checkpoint)
    if path.is_dir():
        return path / MODEL
    name = None if path.exists() else hub_name(path.as_posix())
    return path if name is None else fetched(name, f"checkpoint {name}")
