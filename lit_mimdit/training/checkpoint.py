"""Checkpoints of a run that appear whole or not at all."""

import io
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from lit_mimdit.files import FileError, write_bytes
from lit_mimdit.inference.system_file import read_checkpoint


class WholeFiles(TorchCheckpointIO):
    """Trainer plugin: a checkpoint appears whole or not at all, and one that holds code is refused
    in a line.

    Lightning writes to the temporary folder and copies from there. A full disk then leaves half of
    the new file in place of the old. Here the old one stays, the run goes on with a warning, and
    `failure` says why until a checkpoint is written again.
    """

    def __init__(self) -> None:
        self.failure: str | None = None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, buffer.getvalue())
            self.failure = None
        except (FileError, OSError) as error:
            self.failure = str(error)
            step, size = checkpoint.get("global_step", "unknown"), len(buffer.getvalue()) / 2**20
            print(
                f"\nWARNING: NO CHECKPOINT of step {step} ({size:.1f} MiB): {error}. The run goes"
                " on; older checkpoints are intact and none is removed until one can be written"
                " again. Make room now.",
                file=sys.stderr,
                flush=True,
            )

    def remove_checkpoint(self, path: str | Path) -> None:
        if self.failure is None:
            super().remove_checkpoint(path)

    def load_checkpoint(
        self,
        checkpoint_path: str | Path,
        map_location: Any = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        if not Path(checkpoint_path).is_file():
            raise ValueError(f"checkpoint {checkpoint_path}: no such file")
        return read_checkpoint(Path(checkpoint_path))
