"""What a run keeps: the trained branch and the identity of its backbone, never the frozen weights.

Two forms: Lightning checkpoints (resume a run) and exported branches (safetensors, to restore with
and to start from).
"""

import io
import json
import pickle
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from lit_mimdit.baselines.networks import NETWORKS, AnyBranch, kind_of
from lit_mimdit.data.image_io import ImageError, write_bytes
from lit_mimdit.inference.sampler import SamplingConfig
from lit_mimdit.models.backbone import Identity
from lit_mimdit.training.settings import build

FORMAT = "lit_mimdit.branch.1"
BRANCH = "network.branch."  # prefix of the trained parameters in a run's state
KEY = "lit_mimdit"  # entry of a Lightning checkpoint that holds the BranchFile fields


@dataclass
class BranchFile:
    """An exported branch:

    its weights (EMA if the run had one), configuration, backbone, sampling defaults, and the prompt
    it knows.
    """

    tensors: dict[str, Tensor]
    branch: AnyBranch
    sampling: SamplingConfig
    backbone: Identity
    prompt: str = ""


def trained_state(module: nn.Module) -> dict[str, Tensor]:
    """State of the parameters that train, by name."""
    return {
        name: parameter.detach()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def describe(
    branch: AnyBranch, sampling: SamplingConfig, backbone: Identity, prompt: str
) -> dict[str, Any]:
    """Plain dict of everything but the weights."""
    parts = {
        "network": kind_of(branch),
        "branch": asdict(branch),
        "sampling": asdict(sampling),
        "backbone": asdict(backbone),
    }
    return {"format": FORMAT, **parts, "prompt": prompt}


def undescribe(values: dict[str, Any], tensors: dict[str, Tensor], where: str) -> BranchFile:
    """The inverse of `describe`; ValueError if `values` is something else."""
    if values.get("format") != FORMAT:
        raise ValueError(
            f"{where}: not a branch of this version ({values.get('format')!r} instead of"
            f" {FORMAT!r})"
        )
    try:
        kind, _ = NETWORKS[
            values.get("network", "mim")
        ]  # files of before there were others do not say
        parts = (
            build(kind, values["branch"]),
            build(SamplingConfig, values["sampling"]),
            Identity(**values["backbone"]),
        )
        prompt = values.get("prompt", "")  # files of earlier versions know the empty one only
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{where}: its description is damaged or of another version ({error}); export the"
            " branch again"
        ) from error
    return BranchFile(tensors, *parts, prompt)


def save_branch(path: Path, file: BranchFile, dtype: torch.dtype = torch.float32) -> None:
    """Write an exported branch as one safetensors file, whole or not at all."""
    tensors = {
        name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in file.tensors.items()
    }
    metadata = {
        KEY: json.dumps(
            describe(file.branch, file.sampling, file.backbone, file.prompt), sort_keys=True
        )
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, save(tensors, metadata))


def load_branch(path: str | Path) -> BranchFile:
    """Read an exported branch (.safetensors) or the branch inside a Lightning checkpoint (.ckpt;
    its EMA if it has one).
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"checkpoint {path}: no such file")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as handle:
                values = json.loads((handle.metadata() or {}).get(KEY, "{}"))
                tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
        except (SafetensorError, json.JSONDecodeError) as error:
            raise ValueError(
                f"checkpoint {path}: not a readable safetensors file ({error})"
            ) from error
        return undescribe(values, tensors, f"checkpoint {path}")
    return branch_of_checkpoint(read_checkpoint(path), f"checkpoint {path}")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A Lightning checkpoint, read with weights_only: code in it is refused."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"checkpoint {path}: refused: no checkpoint, or one of more than tensors and plain"
            " values"
        ) from error
    except Exception as error:  # torch raises many types for a file that is not its own
        raise ValueError(
            f"checkpoint {path}: cannot be read ({type(error).__name__}); it is damaged or no"
            " checkpoint"
        ) from error


class WholeFiles(TorchCheckpointIO):
    """Trainer plugin: a checkpoint appears whole or not at all, and one that holds code is refused
    in a line.

    Lightning writes to the temporary folder and copies from there: a disk that is full leaves half
    of the new file in place of the old. Here the old one stays, the run goes on with a warning, and
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
        except (ImageError, OSError) as error:
            self.failure = str(error)
            step, size = checkpoint.get("global_step", "unknown"), len(buffer.getvalue()) / 2**20
            print(
                f"\nWARNING: NO CHECKPOINT of step {step} ({size:.1f} MiB): {error}. The run goes on; older checkpoints are intact and "
                "none is removed until one can be written again. Make room now.",
                file=sys.stderr, flush=True,
            )  # fmt: skip

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


def branch_of_checkpoint(checkpoint: dict[str, Any], where: str) -> BranchFile:
    """The branch of a Lightning checkpoint, averaged if the run had an EMA."""
    if KEY not in checkpoint:
        raise ValueError(f"{where}: not a checkpoint of a MiM-DiT run")
    tensors = dict(checkpoint["state_dict"])
    for name, state in checkpoint.get("callbacks", {}).items():
        if name.startswith("EMA"):
            tensors |= state["average"]
    return undescribe(
        checkpoint[KEY],
        {name.removeprefix(BRANCH): t for name, t in tensors.items() if name.startswith(BRANCH)},
        where,
    )


def load_into(module: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Copy `tensors` into the branch; ValueError naming the keys if any is missing, unexpected or
    of another shape.
    """
    own = dict(
        module.named_parameters()
    )  # shared ones once, as `trained_state` has them; a branch has no persistent buffers
    missing, extra = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    shapes = [
        name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape
    ]
    if missing or extra or shapes:
        parts = [
            f"{len(names)} {what} (such as {names[0]})"
            for names, what in (
                (missing, "missing"),
                (extra, "unknown"),
                (shapes, "of another shape"),
            )
            if names
        ]
        raise ValueError(
            f"{where}: does not fit model.branch: parameters {', '.join(parts)}; use the branch"
            " configuration it was trained with"
        )
    module.load_state_dict(
        tensors, strict=False
    )  # the second names of shared parameters are not in the file
