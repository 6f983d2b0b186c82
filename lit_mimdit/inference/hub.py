"""Trained systems on the Hugging Face Hub: OWNER/NAME[@REVISION] becomes a file of the hub's cache.

A repository holds the file that `export` writes, as `model.safetensors`. The frozen backbone is not
in it: the file names the backbone, which is taken from its own repository.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

MODEL = "model.safetensors"  # what a repository and a copy of it hold
FILES = (".safetensors", ".ckpt", ".pth")  # what ends so was meant as a file
NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*)(?:@(.+))?")
LOG_IN = "log in with `hf auth login`"


class HubName(NamedTuple):
    """A repository on the hub.

    Args:
        repository: OWNER/NAME.
        revision: branch, tag or commit; None for the main branch.
    """

    repository: str
    revision: str | None

    def __str__(self) -> str:
        return self.repository if self.revision is None else f"{self.repository}@{self.revision}"


def hub_name(text: str) -> HubName | None:
    """Returns the repository that a text names, or None if it can be none."""
    match = NAME.fullmatch(text)
    if match is None or match[1].endswith(FILES):
        return None
    return HubName(match[1], match[2])


def origin(path: Path) -> str | None:
    """Returns OWNER/NAME@COMMIT of a file in a cache of the hub, or None for any other file.

    A cache keeps it as models--OWNER--NAME/snapshots/COMMIT/FILE.
    """
    parts = path.absolute().parts
    if len(parts) < 4 or parts[-3] != "snapshots" or not re.match("models--.+--", parts[-4]):
        return None
    _, owner, name = parts[-4].split("--", 2)
    return f"{owner}/{name}@{parts[-2]}"


def title(path: Path) -> str:
    """Returns what a reader calls a file: its name, or OWNER/NAME and eight digits of the commit
    for one in a cache of the hub.
    """
    hub = origin(path)
    if hub is None:
        return path.name
    repository, _, commit = hub.partition("@")
    return f"{repository}@{commit[:8]}"


def shown(path: Path) -> str:
    """Returns what errors call a file: OWNER/NAME@COMMIT for one in a cache of the hub."""
    return origin(path) or str(path)


def fetched(name: HubName, where: str, **options: Any) -> Path:
    """Returns the trained system of a repository, downloaded into the hub's cache if it is not yet
    there.

    Args:
        name: repository and revision.
        where: names the repository in errors.
        options: token, cache_dir, local_files_only and force_download of hf_hub_download.

    Raises:
        ValueError: in one line, if it cannot be had.
    """
    from huggingface_hub import hf_hub_download

    try:
        path = hf_hub_download(name.repository, MODEL, revision=name.revision, **options)
    except failures() as error:
        raise ValueError(f"{where}: {reason(name, error)}") from error
    return Path(path)


def failures() -> tuple[type[BaseException], ...]:
    """Returns what the hub's client raises; what its own HTTP library does is a base of its
    error.
    """
    from huggingface_hub.errors import HfHubHTTPError

    return (*HfHubHTTPError.__bases__, OSError, ValueError)


def reason(name: HubName, error: BaseException) -> str:
    """Returns why a repository could not be read, and what to do, in one line."""
    from huggingface_hub import constants, errors

    # the client wraps what went wrong at the first request
    answers = [getattr(one, "response", None) for one in (error, error.__cause__)]
    status = next((answer.status_code for answer in answers if answer is not None), None)
    page = f"{constants.ENDPOINT}/{name.repository}"
    if isinstance(error, errors.GatedRepoError):
        return f"the repository is gated; accept its conditions on {page}, {LOG_IN}, and try again"
    if isinstance(error, errors.RevisionNotFoundError):
        return (
            f"the repository has no revision {name.revision!r}; give a branch, tag or commit of"
            f" {page}"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"there is no such file here, and no repository that you may read at {page}; mend the"
            f" name, or {LOG_IN} if it is private"
        )
    if isinstance(error, errors.EntryNotFoundError) and status == 404:
        return (
            f"the repository holds no {MODEL}, so it is none that `export --push_to_hub` wrote;"
            f" see the files on {page}"
        )
    if status in (401, 403):
        return (
            f"the hub refuses access ({status}): your token may not read {page}; {LOG_IN} and a"
            " token that may"
        )
    if isinstance(error, errors.LocalEntryNotFoundError) and status is None:
        if constants.HF_HUB_OFFLINE:
            return (
                "there is no such file here, HF_HUB_OFFLINE is set, and the hub's cache does not"
                f" have {MODEL} of {name}; unset it once to download, or give a file"
            )
        return (
            f"there is no such file here, and the hub cannot be reached at {constants.ENDPOINT}"
            f" ({said(error.__cause__ or error)}); check the network, or give a file"
        )
    return f"it could not be downloaded from {page} ({said(error)}); try again"


def said(error: BaseException) -> str:
    """Returns the first line of an error's text."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
