"""Builds the system that a file describes: its class, its arguments and its tensors."""

import inspect
import sys
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from lit_mimdit.console import printable
from lit_mimdit.inference.system_file import HOME, SystemFile
from lit_mimdit.models.quantize import lacks_file
from lit_mimdit.settings import UnfitValues, build

CONTRACT = ("losses", "restorer", "trained")  # what a system's class says (systems/base.py)


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Returns parameters and persistent buffers of a module by name; a shared parameter stands
    once.
    """
    once = dict(module.named_parameters())
    every = dict(module.named_parameters(remove_duplicate=False))
    state = module.state_dict(keep_vars=True)
    return {name: t.detach() for name, t in state.items() if name in once or name not in every}


def load_into(
    module: nn.Module, tensors: dict[str, Tensor], where: str, configured: bool = True
) -> None:
    """Copy `tensors` into a module, which a configuration or, if not, their own file describes.

    Raises ValueError with the names of the tensors that are missing, unknown or of another shape.
    """
    own = state_of(module)
    wrong = {
        "missing": sorted(own.keys() - tensors.keys()),
        "unknown": sorted(tensors.keys() - own.keys()),
        "of another shape": sorted(
            name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape
        ),
    }
    parts = [f"{len(names)} {what} (such as {names[0]})" for what, names in wrong.items() if names]
    if parts:
        network = "the configured network" if configured else "the network that it describes"
        remedy = (
            "use the configuration it was trained with"
            if configured
            else "it is damaged or of another version; export the system again"
        )
        raise ValueError(
            f"{where}: does not fit {network}: parameters {', '.join(parts)}; {remedy}"
        )
    # the second names of shared parameters are not in the file
    module.load_state_dict(tensors, strict=False)


def class_path_of(kind: type) -> str:
    """Returns the class path of a system; one in NAME/system.py is named by its folder, NAME."""
    return f"{kind.__module__.removesuffix('.system')}.{kind.__qualname__}"


def system_class(class_path: str, where: str, trust: bool = False) -> type:
    """Returns the class of a system.

    Raises ValueError if it lies outside lit_mimdit.systems and is not trusted, cannot be imported,
    or lacks one of `losses`, `restorer` and `trained`.
    """
    if not class_path.startswith(HOME) and not trust:
        raise ValueError(
            f"{where}: its class {class_path!r} is not one of {HOME}*: give --trust if you trust"
            " whoever wrote it, since building it runs its code"
        )
    module, _, name = class_path.rpartition(".")
    try:
        system_class = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{where}: its class {class_path!r} cannot be imported ({error}); install what has it,"
            " or a newer version of lit_mimdit"
        ) from error
    lacks = [f"has no {part}" for part in CONTRACT if not hasattr(system_class, part)]
    if not isinstance(system_class, type):
        lacks = ["is no class"]
    if lacks:
        raise ValueError(
            f"{where}: {class_path} is no restoration system: it {lacks[0]}; derive it from"
            " lit_mimdit.systems.base.RestorationSystem"
        )
    return system_class


def build_system(file: SystemFile, where: str, trust: bool = False, **overrides: Any) -> nn.Module:
    """Returns the system of a file, with its weights, in evaluation mode on the CPU.

    Args:
        file: what was kept.
        where: names the file in errors.
        trust: also build classes outside lit_mimdit.systems.
        overrides: constructor arguments that replace the file's; those of `sampling` replace its
            single values.
    """
    kind = system_class(file.class_path, where, trust)
    arguments = dict(file.arguments)
    if file.backbone is not None:
        arguments |= {"backbone": file.backbone.name, "backbone_dtype": file.backbone.dtype}
        kept = file.backbone.quantize
        if kept is not None and not lacks_file(kept):
            arguments["backbone_quantize"] = kept
    if file.sampling is not None:
        arguments["sampling"] = file.sampling
    if file.prompt:
        arguments["prompt"] = {"text": file.prompt}
    known = inspect.signature(kind).parameters
    for name, value in overrides.items():
        if name not in known:
            raise ValueError(
                f"{where}: {name} is given, but {kind.__name__} has no {name}; leave it out"
            )
        nested = name in ("sampling", "prompt") and isinstance(arguments.get(name), dict)
        arguments[name] = {**arguments[name], **value} if nested else value
    try:
        system: Any = build(kind, arguments)  # of a room above this one
    except UnfitValues as error:
        raise ValueError(
            f"{where}: its arguments are damaged or of another version ({error}); export the system"
            " again"
        ) from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error
    system.configure_model()
    if file.backbone is not None:
        system.identity.require(file.backbone, where)
        if (line := system.identity.change(file.backbone, where)) is not None:
            print(printable(f"note: {line}"), file=sys.stderr)
    load_into(system.trained, file.tensors, where, configured=False)
    return system.eval()
