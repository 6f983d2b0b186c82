"""The licence of a trained branch, which follows that of its backbone."""

from typing import Any

from lit_mimdit.models.folder import NANO

STABILITY = "stabilityai/stable-diffusion-3"


def licence_of(backbone: str | None, given: str | None) -> dict[str, Any]:
    """Returns the licence entries of a model card's metadata.

    Args:
        backbone: "nano" or a hub id; None for a system without one.
        given: what the user states, an identifier of the hub such as cc-by-nc-4.0.

    Raises:
        ValueError: nothing is stated, and the backbone does not tell.
    """
    if given is not None:
        return {"license": given}
    if backbone == NANO:
        return {"license": "apache-2.0"}
    if backbone is not None and backbone.startswith(STABILITY):
        return {
            "license": "other",
            "license_name": "stabilityai-ai-community",
            "license_link": f"https://huggingface.co/{backbone}/blob/main/LICENSE.md",
        }
    why = "the system has no backbone" if backbone is None else f"that of {backbone} is unknown"
    raise ValueError(
        f"license is not given, and {why}: state the licence that whoever trained the weights gave"
        " them, such as --license apache-2.0"
    )
