"""A repository of one trained system on the hub: tensors, configuration and model card.

The frozen backbone is never in it. The file names it by its hub id, and whoever restores takes it
from there, under its own licence.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lit_mimdit.evaluation.report import read_run
from lit_mimdit.files import write_bytes
from lit_mimdit.inference.hub import LOG_IN, MODEL, failures, hub_name, said
from lit_mimdit.inference.run_record import file_hash
from lit_mimdit.inference.system_file import SystemFile, load_system, save_system
from lit_mimdit.models.folder import NANO
from lit_mimdit.sharing.card import write_card
from lit_mimdit.sharing.licences import licence_of
from lit_mimdit.sharing.results import require_of

CONFIG, CARD = "config.json", "README.md"


@dataclass(frozen=True)
class Facts:
    """The statements of a user about a system that is shared.

    Args:
        repository: OWNER/NAME.
        license: identifier of the hub; None: that of the backbone.
        datasets: that it was trained on, hub ids or names.
        results: folder of a finished evaluation.
        backbone: hub id of the backbone, if the file names a folder.
    """

    repository: str
    license: str | None = None
    datasets: tuple[str, ...] = ()
    results: Path | None = None
    backbone: str | None = None


def require_name(repository: str) -> None:
    """Raises ValueError if a repository cannot be called so."""
    name = hub_name(repository)
    if name is None or name.revision is not None:
        raise ValueError(
            f"push_to_hub is {repository!r}: name the repository as OWNER/NAME, as in its address"
        )


def shared(file: SystemFile, backbone: str | None) -> SystemFile:
    """Returns a system as others can load it: its backbone has a name that means something to them.

    Raises:
        ValueError: the backbone or an argument is a path of this machine.
    """
    for name, value in plain_paths(file.arguments):
        raise ValueError(
            f"checkpoint: its argument {name} is {value!r}, a path of this machine, so others could"
            " not load it; train with what they can have"
        )
    if file.backbone is None:
        if backbone is not None:
            raise ValueError(f"backbone is {backbone!r}: the system has none; leave it out")
        return file
    name = backbone or file.backbone.name
    on_hub = hub_name(name)
    if name != NANO and (on_hub is None or on_hub.revision is not None or Path(name).exists()):
        raise ValueError(
            f"backbone is {name!r}, which is no hub id or a folder of this machine: a repository"
            " names it by its hub id; add it, such as --backbone"
            " stabilityai/stable-diffusion-3.5-medium"
        )
    shown = file.backbone.shown_quantize()
    return replace(file, backbone=replace(file.backbone, name=name, quantize=shown))


def plain_paths(values: Any, name: str = "") -> list[tuple[str, str]]:
    """Returns (name, value) of the texts among plain values that are paths of this machine."""
    if isinstance(values, dict):
        return [hit for key, one in values.items() for hit in plain_paths(one, f"{name}.{key}")]
    if isinstance(values, list | tuple):
        return [hit for i, one in enumerate(values) for hit in plain_paths(one, f"{name}.{i}")]
    if not isinstance(values, str) or "/" not in values:
        return []
    path = Path(values).expanduser()
    return [(name.removeprefix("."), values)] if path.is_absolute() or path.exists() else []


def write_repository(
    folder: Path, source: Path, facts: Facts, dtype: torch.dtype = torch.float16
) -> SystemFile:
    """Write the files of a repository into a folder.

    Args:
        folder: new or empty.
        source: exported system or checkpoint.
        facts: what the user states.
        dtype: of the written tensors.

    Returns:
        What was written.

    Raises:
        ValueError: others could not load it, its licence is unknown, or the results are not its.
    """
    file = shared(load_system(source), facts.backbone)
    backbone = None if file.backbone is None else file.backbone.name
    licence = licence_of(backbone, facts.license)
    save_system(folder / MODEL, file, dtype)
    description = json.dumps(file.description(), indent=2, sort_keys=True) + "\n"
    write_bytes(folder / CONFIG, description.encode())
    summary = None
    if facts.results is not None:
        summary = read_run(facts.results).summary
        hashes = {file_hash(source), file_hash(folder / MODEL)}
        require_of(summary, hashes, f"results {facts.results}")
    card = write_card(file, facts.repository, licence, facts.datasets, summary)
    write_bytes(folder / CARD, card.encode())
    return file


def push(folder: Path, repository: str, private: bool) -> str:
    """Upload a folder as one commit, into a new repository or on top of an old one.

    Args:
        folder: of `write_repository`.
        repository: OWNER/NAME.
        private: make the repository private; one that exists has to be private already.

    Returns:
        The address of the commit.

    Raises:
        ValueError: the hub refuses, or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    import lit_mimdit

    hub = HfApi(library_name="lit_mimdit", library_version=lit_mimdit.__version__)
    try:
        # None: as the owner's settings say
        hub.create_repo(repository, private=private or None, exist_ok=True)
        if private and not hub.model_info(repository).private:
            raise ValueError(
                "--private is given, and the repository is there already and public; make it"
                f" private in its settings, {hub.endpoint}/{repository}/settings"
            )
        operations = [
            CommitOperationAdd(name, folder / name) for name in sorted((MODEL, CONFIG, CARD))
        ]
        message = f"Exported by lit_mimdit {lit_mimdit.__version__}"
        return hub.create_commit(repository, operations, commit_message=message).commit_url
    except failures() as error:
        raise ValueError(f"push_to_hub {repository}: {refusal(error)}") from error


def refusal(error: BaseException) -> str:
    """Returns why the hub did not take a repository, and what to do, in one line."""
    from huggingface_hub import constants

    response = getattr(error, "response", None)
    if response is not None and response.status_code == 401:
        return f"you are not logged in (401); {LOG_IN} and a token that may write"
    if response is not None and response.status_code == 403:
        return (
            "your token may not write there (403); name a repository of your own, or"
            f" {LOG_IN} and a token that may"
        )
    if response is not None:
        return f"the hub answered {response.status_code} ({said(error)}); try again"
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set; unset it to upload"
    if isinstance(error, ValueError):
        return " ".join(str(error).split())
    return f"the hub cannot be reached at {constants.ENDPOINT} ({said(error)}); check the network"
