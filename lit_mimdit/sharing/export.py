"""`python -m lit_mimdit export` writes what a checkpoint has learned.

It writes the trained branch as one safetensors file, a whole diffusers pipeline, or a repository of
the Hugging Face Hub.
"""

import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from lit_mimdit.inference.corrector import choose_fidelity
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.system_file import PACKAGE, load_system, save_system, system_path
from lit_mimdit.models.quantize import NONE

if TYPE_CHECKING:  # other exports must not wait for the metrics
    from lit_mimdit.sharing.repository import Facts


def export(
    checkpoint: Path,
    *,
    output: Path | None = None,
    dtype: Literal["float32", "float16", "bfloat16"] | None = None,
    pipeline: bool = False,
    push_to_hub: str | None = None,
    private: bool = False,
    license: str | None = None,
    datasets: list[str] | None = None,
    results: Path | None = None,
    backbone: str | None = None,
    fidelity: str = "auto",
    fidelity_weight: float = 1.0,
) -> None:
    """Write the branch of a training checkpoint (averaged, if the run had an EMA) with its
    configuration and its backbone's identity.

    With --pipeline it writes a folder that holds the backbone too, which
    MiMDiTPipeline.from_pretrained loads without anything else. With --push_to_hub it uploads the
    branch, its configuration and a model card. The backbone is never uploaded: the repository names
    it by its hub id.

    Args:
        checkpoint: Training checkpoint (.ckpt) or exported branch. `package` is the branch that
            comes with the package.
        output: File to write, ending in .safetensors; with --pipeline a folder. With --push_to_hub
            it is a folder that keeps what was uploaded, if given.
        dtype: Precision of the written branch. `float16`, which is taken unless given, halves the
            file and changes no picture visibly. A pipeline keeps `float32`.
        pipeline: Write a diffusers pipeline: backbone, VAE, scheduler, branch and model card.
        push_to_hub: Repository to upload to, as OWNER/NAME. It is made if there is none. Needs a
            token that may write (`hf auth login`).
        private: Make that repository private.
        license: Licence of the uploaded weights, such as `cc-by-nc-4.0`. Unless given it is the
            backbone's.
        datasets: Data sets that the branch was trained on, for the model card.
        results: Folder of a finished evaluation of what this checkpoint restored. Its means become
            the model card's results.
        backbone: Folder or hub id of the backbone, if it is not where it was in training. A
            pipeline holds this backbone; an uploaded branch names it, by its hub id.
        fidelity: Network that the pipeline corrects its results with: a file
            (experiments/nano/fidelity.yaml), `package`, or `none`. `auto` is `package` behind the
            package's branch, and `none` behind others.
        fidelity_weight: Strength of that network's correction, from 0 to 1.
    """
    source = None if str(checkpoint) == PACKAGE else checkpoint
    uploaded = {"private": private, "license": license, "datasets": datasets, "results": results}
    if push_to_hub is None:
        _require_unset(uploaded, "it is for --push_to_hub")
        if output is None:
            raise ValueError("output is not given: name a file with -o, or use --push_to_hub")
    if pipeline and push_to_hub is not None:
        raise ValueError(
            "--pipeline is given with --push_to_hub: a pipeline holds the backbone, which is not"
            " yours to share; leave --pipeline out, and the branch alone is uploaded"
        )
    if pipeline:
        assert output is not None
        behind = choose_fidelity(fidelity, own_branch=source is None)
        return export_pipeline(source, output, backbone, dtype, behind, fidelity_weight)
    corrected = {
        "fidelity": None if fidelity == "auto" else fidelity,
        "fidelity_weight": None if fidelity_weight == 1.0 else fidelity_weight,
    }
    _require_unset(corrected, "a branch is written without one; it is for --pipeline")
    path, kind = system_path(source), getattr(torch, dtype or "float16")
    if push_to_hub is not None:
        from lit_mimdit.sharing.repository import Facts

        facts = Facts(push_to_hub, license, tuple(datasets or ()), results, backbone)
        return export_repository(path, output, facts, kind, private)
    assert output is not None
    _require_unset({"backbone": backbone}, "a branch is written without one; it is for --pipeline")
    if output.suffix != ".safetensors":
        raise ValueError(f"output is {str(output)!r}: a branch is written as .safetensors")
    file = load_system(path)
    save_system(output, file, kind)
    print(
        f"{output}: {sum(t.numel() for t in file.tensors.values()) / 1e6:.2f} M parameters,"
        f" {output.stat().st_size / 2**20:.1f} MiB"
    )


def _require_unset(values: dict[str, Any], why: str) -> None:
    """Raises ValueError for the first value that is given."""
    for key, value in values.items():
        if value is not None and value is not False:
            raise ValueError(f"{key} is {value!r}: {why}")


def _require_empty(output: Path, what: str) -> None:
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise ValueError(f"output {output}: {what} is written into a new or empty folder")


def export_repository(
    source: Path, output: Path | None, facts: "Facts", dtype: torch.dtype, private: bool
) -> None:
    """Write the files of a repository, and upload them.

    Raises ValueError if they cannot be written or the hub refuses them.
    """
    from lit_mimdit.sharing.repository import push, require_name, write_repository

    require_name(facts.repository)
    if output is not None:
        _require_empty(output, "what is uploaded")
    with tempfile.TemporaryDirectory() if output is None else nullcontext(output) as place:
        folder = Path(place)
        write_repository(folder, source, facts, dtype)
        size = sum(path.stat().st_size for path in folder.iterdir())
        address = push(folder, facts.repository, private)
    print(
        f"{address}: {size / 2**20:.1f} MiB; restore with --checkpoint {facts.repository}, and read"
        " the model card before you share it"
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

    Raises ValueError if `output` is a file or not empty, or for a precision.
    """
    from lit_mimdit.inference.pipeline import MiMDiTPipeline

    if dtype not in (None, "float32"):
        raise ValueError(
            f"dtype is {dtype}: a pipeline keeps the branch in float32, and the backbone as it was"
            " in training"
        )
    _require_empty(output, "a pipeline")
    restorer = load_restorer(
        checkpoint,
        backbone,
        torch.device("cpu"),
        backbone_quantize=NONE,  # diffusers reads no quantized folder without a GPU
        fidelity=fidelity,
        fidelity_weight=fidelity_weight,
    )
    MiMDiTPipeline.of(restorer).save_pretrained(output, safe_serialization=True)
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(f"{output}: a pipeline of {size / 2**20:.1f} MiB; see its README.md")
