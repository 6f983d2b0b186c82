"""The model card of a repository: metadata in the hub's own form, and what a user needs to know."""

from typing import Any

from huggingface_hub import ModelCardData

from lit_mimdit.evaluation.metrics import METRICS
from lit_mimdit.inference.hub import hub_name
from lit_mimdit.inference.system_file import BRANCH_CLASSES, SystemFile
from lit_mimdit.models.folder import NANO
from lit_mimdit.sharing.licences import STABILITY
from lit_mimdit.sharing.results import TASK, eval_results, results_text

MIM = BRANCH_CLASSES["mim"]


def write_card(
    file: SystemFile,
    repository: str,
    licence: dict[str, Any],
    datasets: tuple[str, ...],
    summary: dict[str, Any] | None,
) -> str:
    """Returns the text of README.md.

    Args:
        file: the system as it is written.
        repository: OWNER/NAME.
        licence: entries of the metadata, see licence_of.
        datasets: that it was trained on, hub ids or names.
        summary: of a finished evaluation, or None.
    """
    kind = file.class_path.rpartition(".")[2]
    data = metadata(file, repository, licence, datasets, summary)
    parts = [
        f"---\n{data.to_yaml()}\n---\n",
        f"# {repository.split('/')[1]}\n",
        about(file, kind),
        use(file, repository),
        f"## What it is\n\n{table(file, kind, licence, datasets)}\n",
    ]
    if summary is not None:
        parts.append(f"## Results\n\n{results_text(summary)}\n")
    parts.append("It may invent detail: not for evidence, medicine or identification.\n")
    return "\n".join(parts)


def metadata(
    file: SystemFile,
    repository: str,
    licence: dict[str, Any],
    datasets: tuple[str, ...],
    summary: dict[str, Any] | None,
) -> ModelCardData:
    """Returns the metadata that the hub searches and shows."""
    backbone = None if file.backbone is None else file.backbone.name
    tags = ["image-restoration", file.class_path.rpartition(".")[2].lower()]
    if file.class_path == MIM:
        tags += ["mim-dit", "mixture-of-experts", "arxiv:2603.02710"]
    results = None if summary is None else eval_results(summary)
    measured = {result.metric_type for result in results or []}
    return ModelCardData(
        base_model=None if backbone == NANO else backbone,
        # the branch is added to the backbone, whose weights stay as they are
        base_model_relation=None if backbone in (NANO, None) else "adapter",
        # the hub takes ids here; other names are in the text
        datasets=[name for name in datasets if hub_name(name)] or None,
        eval_results=results or None,
        library_name="lit_mimdit",
        metrics=[key for key in METRICS if key in measured] or None,
        model_name=repository.split("/")[1],
        pipeline_tag=TASK,
        tags=tags,
        **licence,
    )


def about(file: SystemFile, kind: str) -> str:
    """Returns what the repository is, and what it leaves out."""
    count = sum(tensor.numel() for tensor in file.tensors.values()) / 1e6
    text = "Restores photographs that are blurred, noisy, hazy, rainy or dark.\n"
    if file.backbone is None:
        return f"{text}The network is {kind}, with {count:.2f} M parameters.\n"
    name = file.backbone.name
    text += f"A frozen backbone, {name}, is conditioned by a trained {kind} branch of {count:.2f} M"
    text += " parameters.\n"
    if name == NANO:
        return text + "Only the branch is here; the backbone comes with the package lit_mimdit.\n"
    text += f"Only the branch is here. The backbone is taken from https://huggingface.co/{name}.\n"
    if name.startswith(STABILITY):
        text += (
            "That repository is gated: accept its licence there, and log in with `hf auth login`.\n"
            "\nPowered by Stability AI.\n"
        )
    return text


def use(file: SystemFile, repository: str) -> str:
    """Returns how to restore with it."""
    text = (
        "## Use\n\nThis needs `lit_mimdit` installed.\n\n```\n"
        f"python -m lit_mimdit restore photo.jpg -o restored.png --checkpoint {repository}\n```\n"
    )
    if file.class_path != MIM:
        return text
    return text + (
        "\n```python\nfrom PIL import Image\n\n"
        "from lit_mimdit.inference.pipeline import MiMDiTPipeline\n\n"
        f'pipeline = MiMDiTPipeline.from_pretrained("{repository}")\n'
        'pipeline(Image.open("photo.jpg")).images[0].save("restored.png")\n```\n'
    )


def table(file: SystemFile, kind: str, licence: dict[str, Any], datasets: tuple[str, ...]) -> str:
    """Returns the facts of a system as a Markdown table."""
    rows = {"system": f"{kind} (`{file.class_path}`)"}
    if file.backbone is not None:
        identity = file.backbone
        kept = identity.dtype if identity.quantize is None else identity.shown_quantize()
        rows["backbone"] = (
            f"{identity.name}, kept in {kept} in training; weights {identity.weights}"
        )
    branch = file.arguments.get("branch")
    if isinstance(branch, dict) and "groups" in branch:
        experts = branch.get("intra", {}).get("experts")
        rows["branch"] = (
            f"width {branch.get('width')}, {', '.join(branch['groups'])}, {experts} sub-experts"
            " each"
        )
    if file.sampling is not None:
        steps = file.sampling
        rows["sampling"] = (
            f"{steps['steps']} steps, {steps['solver']}, from {steps['start']}, tiles of"
            f" {steps['tile']} px"
        )
        rows["prompt"] = file.prompt or "empty"
    rows["trained on"] = ", ".join(datasets) or "not stated"
    rows["licence"] = licence.get("license_name", licence["license"])
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    return "\n".join(lines)
