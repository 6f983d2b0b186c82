"""`python -m lit_mimdit export` writes what a checkpoint has learned.

It writes the trained branch as one safetensors file, or a whole diffusers pipeline.
"""

from pathlib import Path
from typing import Literal

import torch

from lit_mimdit.inference.corrector import choose_fidelity
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.system_file import PACKAGE, load_system, save_system, system_path


def export(
    checkpoint: Path,
    *,
    output: Path,
    dtype: Literal["float32", "float16", "bfloat16"] | None = None,
    pipeline: bool = False,
    backbone: str | None = None,
    fidelity: str = "auto",
    fidelity_weight: float = 1.0,
) -> None:
    """Write the branch of a training checkpoint (averaged, if the run had an EMA) with its
    configuration and its backbone's identity.

    With --pipeline it writes a folder that holds the backbone too, which
    MiMDiTPipeline.from_pretrained loads without anything else.

    Args:
        checkpoint: Training checkpoint (.ckpt) or exported branch; package is the one that comes
            with the package.
        output: File to write, ending in .safetensors; with --pipeline a folder.
        dtype: Precision of the written branch; float16 (the default) halves the file and changes no
            picture visibly. A pipeline keeps float32.
        pipeline: Write a diffusers pipeline: backbone, VAE, scheduler, branch and model card.
        backbone: Folder or hub id of the backbone that the pipeline holds, if it is not where it
            was in training.
        fidelity: Network that the pipeline corrects its results with: a file
            (experiments/nano/fidelity.yaml), package, or none; auto is package behind the package's
            branch, none behind others.
        fidelity_weight: Of its correction, from 0 to 1.
    """
    source = None if str(checkpoint) == PACKAGE else checkpoint
    if pipeline:
        behind = choose_fidelity(fidelity, own_branch=source is None)
        return export_pipeline(source, output, backbone, dtype, behind, fidelity_weight)
    for key, value, default in (
        ("backbone", backbone, None),
        ("fidelity", fidelity, "auto"),
        ("fidelity_weight", fidelity_weight, 1.0),
    ):
        if value != default:
            raise ValueError(
                f"{key} is {value!r}: a branch is written without one; it is for --pipeline"
            )
    if output.suffix != ".safetensors":
        raise ValueError(f"output is {str(output)!r}: a branch is written as .safetensors")
    file = load_system(system_path(source))
    save_system(output, file, getattr(torch, dtype or "float16"))
    print(
        f"{output}: {sum(t.numel() for t in file.tensors.values()) / 1e6:.2f} M parameters,"
        f" {output.stat().st_size / 2**20:.1f} MiB"
    )


def export_pipeline(
    checkpoint: Path | None,
    output: Path,
    backbone: str | None,
    dtype: str | None,
    fidelity: str | None,
    fidelity_weight: float,
) -> None:
    """Write the folder of MiMDiTPipeline.

    ValueError if `output` is a file or not empty, or for a precision.
    """
    from lit_mimdit.inference.pipeline import MiMDiTPipeline

    if dtype not in (None, "float32"):
        raise ValueError(
            f"dtype is {dtype}: a pipeline keeps the branch in float32, and the backbone as it was"
            " in training"
        )
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise ValueError(f"output {output}: a pipeline is written into a new or empty folder")
    restorer = load_restorer(
        checkpoint,
        backbone,
        torch.device("cpu"),
        fidelity=fidelity,
        fidelity_weight=fidelity_weight,
    )
    MiMDiTPipeline.of(restorer).save_pretrained(output, safe_serialization=True)
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(f"{output}: a pipeline of {size / 2**20:.1f} MiB; see its README.md")
