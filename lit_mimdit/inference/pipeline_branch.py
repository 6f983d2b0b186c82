"""A pipeline from a branch alone: a repository or folder that names its backbone and lacks it."""

from pathlib import Path
from typing import Any

import torch

from lit_mimdit.inference.hub import MODEL, HubName, fetched, hub_name
from lit_mimdit.inference.loading import load_restorer

INDEX = "model_index.json"  # of a whole pipeline
OWN = ("backbone", "backbone_quantize", "fidelity", "fidelity_weight")  # of load_restorer
HUB = ("token", "cache_dir", "local_files_only", "force_download")  # of hf_hub_download
DTYPES = ("dtype", "torch_dtype")  # diffusers' new and old name
BRANCH_OPTIONS = (*OWN, *HUB, *DTYPES, "revision", "use_safetensors")


def branch_restorer(source: str | Path, options: dict[str, Any]) -> Any:
    """Returns what restores with a branch on the CPU, or None for a whole pipeline.

    Args:
        source: folder, or OWNER/NAME[@REVISION] on the hub.
        options: keywords of from_pretrained. The frozen weights have the dtype of training unless
            one is given.

    Raises:
        ValueError: the repository cannot be read, or an option means nothing for a branch.
    """
    path = branch_file(Path(source), options)
    if path is None:
        return None
    unknown = sorted(options.keys() - {*BRANCH_OPTIONS})
    if unknown:
        raise ValueError(
            f"{unknown[0]} is given, and {source} holds a branch without its backbone: choose among"
            f" {', '.join(BRANCH_OPTIONS)}"
        )
    given = {name: options[name] for name in OWN if name in options}
    wanted = wanted_dtype(options)
    if wanted in (torch.float32, torch.bfloat16):  # others are converted when it is loaded
        given["dtype"] = str(wanted).removeprefix("torch.")
    return load_restorer(path, device=torch.device("cpu"), **given)


def wanted_dtype(options: dict[str, Any]) -> torch.dtype | None:
    """Returns the dtype that keywords of from_pretrained ask for, or None."""
    return next((options[name] for name in DTYPES if options.get(name) is not None), None)


def branch_file(source: Path, options: dict[str, Any]) -> Path | None:
    """Returns the file of a branch that a folder or a repository of the hub holds.

    None where diffusers is to look: a whole pipeline, or nothing of ours.
    """
    if source.is_dir():
        return None if (source / INDEX).exists() else _file(source / MODEL)
    name = None if source.exists() else hub_name(source.as_posix())
    if name is None:
        return _file(source)
    if options.get("revision") is not None:
        name = name._replace(revision=options["revision"])
    given = {key: options[key] for key in HUB if key in options}
    try:
        return fetched(name, str(name), **given)
    except ValueError as error:
        if _is_whole(name, error.__cause__, given):
            return None
        raise


def _file(path: Path) -> Path | None:
    return path if path.is_file() else None


def _is_whole(name: HubName, missed: BaseException | None, given: dict[str, Any]) -> bool:
    """Returns whether a repository without a branch's file holds a whole pipeline.

    Args:
        name: repository and revision.
        missed: why the branch's file was not found; where the hub is out of reach, its cache tells.
        given: arguments of hf_hub_download.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    if not isinstance(missed, EntryNotFoundError):
        return False
    if isinstance(missed, LocalEntryNotFoundError):
        given = given | {"local_files_only": True}
    try:
        hf_hub_download(name.repository, INDEX, revision=name.revision, **given)
    except EntryNotFoundError:
        return False
    return True
