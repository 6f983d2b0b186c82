"""`python -m lit_mimdit export`: the trained branch of a checkpoint as one safetensors file."""

from pathlib import Path
from typing import Literal

import torch

from lit_mimdit.training.checkpoint import load_branch, save_branch


def export(checkpoint: Path, *, output: Path, dtype: Literal["float32", "float16", "bfloat16"] = "float16") -> None:
    """Write the branch of a training checkpoint (averaged, if the run had an EMA) with its configuration and its backbone's identity.

    Args:
        checkpoint: Training checkpoint (.ckpt) or exported branch.
        output: File to write, ending in .safetensors.
        dtype: Precision of the written weights; float16 halves the file and changes no picture visibly.
    """
    if output.suffix != ".safetensors":
        raise ValueError(f"output is {str(output)!r}: a branch is written as .safetensors")
    file = load_branch(checkpoint)
    save_branch(output, file, getattr(torch, dtype))
    print(f"{output}: {sum(t.numel() for t in file.tensors.values()) / 1e6:.2f} M parameters, {output.stat().st_size / 2**20:.1f} MiB")
