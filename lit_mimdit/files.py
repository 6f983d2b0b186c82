"""Writing files whole or not at all."""

import os
import secrets
from pathlib import Path


class FileError(ValueError):
    """A file that cannot be read or written: one line with the path, the cause, and the remedy."""


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file under a temporary name in its own folder, then rename it.

    Nobody ever sees a part of the file. Raises FileError and leaves nothing behind if the disk is
    full, or if the folder is missing or not writable.
    """
    path = Path(path)
    # a hidden name: `list_images` does not see it
    temporary = path.parent / f".{secrets.token_hex(8)}.part"
    try:
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:  # Ctrl-C too
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        reason = error.strerror if path.parent.is_dir() else f"there is no folder {path.parent}"
        raise FileError(f"{path}: cannot be written: {reason}") from error
