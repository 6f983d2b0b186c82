"""Finds a backbone: the embedded nano, a local folder in diffusers' format, or the hub."""

import socket
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

NANO = "nano"
PARTS = (
    "transformer",
    "vae",
    "scheduler",
)  # of a folder; its text encoders are asked for only where a prompt is to be embedded

# what lies behind an error if the hub gave no answer; OfflineModeIsEnabled is a ConnectionError
UNREACHED = (LocalEntryNotFoundError, ConnectionError, TimeoutError, socket.gaierror)


def nano_folder() -> Path:
    """Returns where the installed package keeps the nano backbone and its branch."""
    return Path(str(files("lit_mimdit") / "weights" / NANO))


def locate(source: str) -> str:
    """Returns what diffusers' `from_pretrained` takes for `source`: a folder, or the hub id itself.
    Raises ValueError if it can be neither.

    With HF_HUB_OFFLINE=1 a hub id is the folder of the hub's own cache.
    """
    if source == NANO:
        if not nano_folder().is_dir():
            raise ValueError(
                f"the package was installed without its weights: {nano_folder()} is missing;"
                " reinstall lit_mimdit"
            )
        return str(nano_folder())
    folder = Path(source).expanduser()
    if folder.is_dir():
        missing = [part for part in PARTS if not (folder / part).is_dir()]
        if missing:
            raise ValueError(
                f"model.backbone: {source!r} has no folder {', '.join(missing)}: it is no complete"
                " folder of Stable Diffusion 3.5; download it whole with"
                f" {download('stabilityai/stable-diffusion-3.5-medium')}"
            )
        return str(folder)
    if not is_hub_id(source):
        raise ValueError(
            f"model.backbone: there is no folder {source!r}; give a diffusers folder of SD3.5, a"
            " hub id (owner/name) or nano"
        )
    if not constants.HF_HUB_OFFLINE:
        return source
    # diffusers asks the hub for the list of a sharded model's files, even if its cache has them all
    try:
        return snapshot_download(source, local_files_only=True)
    except (OSError, ValueError) as error:
        raise unavailable(source, error) from error


def is_hub_id(source: str) -> bool:
    """Returns whether a text may be OWNER/NAME on the hub; it may be a folder as well."""
    return source.count("/") == 1 and not source.startswith((".", "/", "~"))


def download(source: str) -> str:
    """Returns the command that fetches a backbone from the hub, without the files of other
    frameworks and single-file formats.
    """
    return (
        f"`hf download {source} --exclude '*.bin' '*fp16*' 'sd3*' --local-dir"
        f" {source.split('/')[-1]}`"
    )


def not_from_hub(source: str, error: BaseException) -> str | None:
    """Returns why the hub gave no file of `source`, and what to do.

    None if `error` comes from something else, as it does where `source` is a folder here.

    diffusers says of a hub that it cannot reach that a file is not there. What happened is in the
    exceptions before.
    """
    chain = list(_causes(error))
    here = Path(source).expanduser().is_dir()
    if here or not any(isinstance(one, UNREACHED) for one in chain):
        return None
    remedy = (
        f"bring the folder that {download(source)} writes on a machine with a network, and give"
        " its path"
    )
    if constants.HF_HUB_OFFLINE:
        return (
            "HF_HUB_OFFLINE is set, and the hub's cache does not have it: unset it once to"
            f" download, or {remedy}"
        )
    answers = [getattr(one, "response", None) for one in chain]
    status = next((answer.status_code for answer in answers if answer is not None), None)
    if status is not None:
        return f"the hub at {constants.ENDPOINT} answers with status {status}: {remedy}"
    return f"the hub cannot be reached at {constants.ENDPOINT} ({first_line(chain[-1])}): {remedy}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and those that led to it, the last one first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's text, or its class if it has none."""
    return " ".join((str(error).strip() or type(error).__name__).splitlines()[0].split())


def unavailable(source: str, error: Exception) -> ValueError:
    """Returns what to do when `source` could not be loaded.

    The text says how to get it from the hub, or what is wrong with the local folder.
    """
    reason = first_line(error)
    if Path(source).expanduser().is_dir() or source == NANO:
        return ValueError(
            f"model.backbone: {source!r} could not be loaded ({reason}): a file is missing, damaged"
            " or no safetensors; download it again"
        )
    gated = (
        f"Stable Diffusion 3.5 is gated: accept its licence on https://huggingface.co/{source} and"
        " log in with `hf auth login`"
    )
    missed = not_from_hub(source, error)
    if missed is not None:
        return ValueError(f"model.backbone: {source!r} is no folder here; {missed}. {gated}")
    return ValueError(
        f"model.backbone: {source!r} could not be loaded ({reason}). {gated}, and start again; or,"
        f" where there is no network, bring the folder that {download(source)} writes and give its"
        " path"
    )
