"""Where a backbone lies: the embedded nano, a local folder in diffusers' format, or the hub."""

from importlib.resources import files
from pathlib import Path

from huggingface_hub import constants, snapshot_download

NANO = "nano"
PARTS = (
    "transformer",
    "vae",
    "scheduler",
)  # of a folder; its text encoders are asked for only where a prompt is to be embedded


def nano_folder() -> Path:
    """Returns where the installed package keeps the nano backbone and its branch."""
    return Path(str(files("lit_mimdit") / "weights" / NANO))


def locate(source: str) -> str:
    """Returns what diffusers' `from_pretrained` takes for `source`: a folder, or the hub id itself.
    ValueError if it can be neither.

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
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
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


def download(source: str) -> str:
    """Returns the command that fetches a backbone from the hub, without the files of other
    frameworks and single-file formats.
    """
    return (
        f"`hf download {source} --exclude '*.bin' '*fp16*' 'sd3*' --local-dir"
        f" {source.split('/')[-1]}`"
    )


def unavailable(source: str, error: Exception) -> ValueError:
    """Returns what to do when `source` could not be loaded.

    The text says how to get it from the hub, or what is wrong with the local folder.
    """
    reason = " ".join((str(error).strip() or type(error).__name__).splitlines()[0].split())
    if Path(source).expanduser().is_dir() or source == NANO:
        return ValueError(
            f"model.backbone: {source!r} could not be loaded ({reason}): a file is missing, damaged"
            " or no safetensors; download it again"
        )
    return ValueError(
        f"model.backbone: {source!r} could not be loaded ({reason}). Stable Diffusion 3.5 is gated:"
        f" accept its licence on https://huggingface.co/{source}, log in with `hf auth login`, and"
        f" start again; or, where there is no network, bring the folder that {download(source)}"
        " writes and give its path"
    )
