"""Tells whose a published file is, by the names of its tensors."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from lit_mimdit.systems.official import listed, unwrap


class Signature(NamedTuple):
    """Names that the files of a system are known by.

    fragments: each begins some name.
    imported_as: what import-weights is told for such a file; "" where it reads none.
    channels: a layer and its input channels, where other networks have the same names.
    """

    fragments: tuple[str, ...]
    imported_as: str = ""
    channels: tuple[str, tuple[int, ...]] = ("", ())


# A file is the first of these whose fragments are all there.
SIGNATURES = {
    "AirNet": Signature(("R.head.0.", "E.E.encoder_q.E_pre."), "airnet FILE"),
    "DGUNet": Signature(("phi_0.body.", "basic.phi_1."), "dgunet FILE"),
    "DGUNet+": Signature(("phi_0.body.", "phi_1.body."), "dgunet FILE"),
    "TransWeather": Signature(("Tenc.patch_embed1.", "Tdec."), "transweather FILE"),
    "TransWeather without decoder": Signature(("Tenc.patch_embed1.",), "transweather FILE"),
    "PromptIR": Signature(("prompt1.prompt_param", "encoder_level1.0."), "promptir FILE"),
    "DiffIR, stage 2": Signature(("G.patch_embed.", "denoise."), "diffir FILE"),
    "DiffIR, stage 1": Signature(("G.patch_embed.", "E.E."), "diffir FILE"),
    "FoundIR's specialist for low light": Signature(("ps_down1.",), "foundir GENERALIST FILE"),
    "Restormer or FoundIR's weather specialist": Signature(
        ("encoder_level1.0.", "refinement.0."), "foundir GENERALIST FILE"
    ),
    "DiffUIR or FoundIR's generalist": Signature(
        ("model.unet0.", "betas_cumsum"), "diffuir FILE (or foundir FILE)"
    ),
    # Stable Diffusion has all its names but those of the assessment
    "AutoDIR": Signature(("model_assessment.clipmodel.",), "autodir FILE"),
    "Stable Diffusion": Signature(("model.diffusion_model.",)),
    "DA-CLIP's controller": Signature(("visual_control.",), "daclip FILE UNET"),
    "DA-CLIP's U-Net": Signature(
        ("init_conv.", "time_mlp.", "final_conv."), "daclip CONTROLLER FILE"
    ),
    "DiT4SR": Signature(("transformer_blocks.0.attn.to_q_control.",), "dit4sr FILE"),
    # its first layer sees 4 pixels of grey or colour, and the noise
    "FFDNet": Signature(
        ("model.0.", "model.2.", "model.4."), "ffdnet FILE", ("model.0.weight", (5, 13))
    ),
    "Stable Diffusion 3": Signature(("transformer_blocks.0.attn.", "pos_embed.proj.")),
}


def seems_to_be(state: Mapping[str, Any]) -> str | None:
    """Returns the system whose names these are (a key of SIGNATURES), or None."""
    return next((system for system in SIGNATURES if not _lacks(state, system)), None)


def how_to_import(file: Mapping[str, Any]) -> str:
    """Returns what an author's file seems to be and the command that imports it; "" for another
    file.
    """
    try:
        system = seems_to_be(unwrap(file))
    except ValueError:  # without tensors
        return ""
    if system is None or not SIGNATURES[system].imported_as:
        return ""
    return (
        f"it seems to be {system} as its authors publish it; import it first, with `python -m"
        f" lit_mimdit import-weights {SIGNATURES[system].imported_as} -o OUTPUT.safetensors`"
    )


def _lacks(state: Mapping[str, Any], system: str) -> list[str]:
    """The system's fragments with which no name begins; all, if a layer has other channels."""
    fragments, _, (layer, channels) = SIGNATURES[system]
    shape = getattr(state.get(layer), "shape", None)  # names may come without tensors
    if shape is not None and (len(shape) < 2 or shape[1] not in channels):
        return list(fragments)
    return [part for part in fragments if not any(name.startswith(part) for name in state)]


def _nearest(state: Mapping[str, Any], system: str) -> str | None:
    """The system of which a part of the fragments is there; `system` itself before the others."""
    for other in (system, *SIGNATURES):
        if len(_lacks(state, other)) < len(SIGNATURES[other].fragments):
            return other
    return None


def demand(state: Mapping[str, Any], system: str) -> None:
    """Raises ValueError unless the names are those of this system (a key of SIGNATURES)."""
    other = seems_to_be(state)
    if other == system:
        return
    nearest = _nearest(state, system) if other is None else None
    if nearest is not None:
        lacks = listed(_lacks(state, nearest))
        raise ValueError(
            f"not a checkpoint of {system}: it seems to be {nearest}, cut off, since no name"
            f" begins with {lacks}; fetch the file again"
        )
    if other is None:
        raise ValueError(
            f"not a checkpoint of {system}: no known system has names such as {listed(state, 3)};"
            " the file belongs to another network or is cut off, so give another"
        )
    remedy = "import it as that" if SIGNATURES[other].imported_as else "give another file"
    raise ValueError(f"not a checkpoint of {system}: it seems to be {other}; {remedy}")
