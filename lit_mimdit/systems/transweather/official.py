"""TransWeather's official checkpoints."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lit_mimdit.systems.official import choose, load_strictly, shape_of, unwrap
from lit_mimdit.systems.recognition import demand, seems_to_be
from lit_mimdit.systems.transweather.network import TransWeatherNetwork

SYSTEM = "TransWeather"
BASE = "TransWeather without decoder"
# The official class has no arguments; these are the sizes that it has hard-coded.
PUBLISHED: dict[str, Any] = {
    "embed_dims": (64, 128, 320, 512),
    "tail": (16, 8),
    "enc_heads": (1, 2, 4, 4),
    "dec_heads": 8,
    "queries": 48,
    "which": "Transweather",
}
_DEAD = re.compile(r"Tenc\.mini_patch_embed4\.|(convtail|convproj)\.conv_output\.")


def dead(name: str) -> bool:
    """Says whether an official name acts on nothing."""
    return _DEAD.match(name) is not None


def official_name(ours: str, decoder: bool = True) -> str:
    """Returns the official name of a parameter or module of ours.

    decoder: whether the network has one; the tail's name depends on it.
    """
    tail = "convtail" if decoder else "convproj"
    level = re.match(r"encoder\.(levels|small)\.(\d)\.", ours)
    if level:
        number, small = int(level[2]) + 1, level[1] == "small"
        rest = ours[level.end() :]
        rest = re.sub(r"^embed\b", f"{'mini_' if small else ''}patch_embed{number}", rest)
        rest = re.sub(r"^blocks\b", f"{'patch_' if small else ''}block{number}", rest)
        rest = re.sub(r"^norm\b", f"{'p' if small else ''}norm{number}", rest)
        ours = f"Tenc.{rest}"
    for pattern, replacement in (
        (r"^decoder\.embed\b", "Tdec.patch_embed1"),
        (r"^decoder\.blocks\b", "Tdec.block1"),
        (r"^decoder\.norm\b", "Tdec.norm1"),
        (r"\.mlp\.dwconv\b", ".mlp.dwconv.dwconv"),
        (r"^tail\.up(\d+)\.", rf"{tail}.convd\1x.conv2d."),
        (r"^tail\.up(\d+)$", rf"{tail}.convd\1x"),
        (r"^tail\.dense(\d)\.conv([12])\b", rf"{tail}.dense_\1.0.conv\2.conv2d"),
        (r"^tail\.dense(\d)$", rf"{tail}.dense_\1"),
        (r"^clean\.", "clean.conv2d."),
    ):
        ours = re.sub(pattern, replacement, ours)
    return ours


def arguments(state: Mapping[str, Tensor], **overrides: Any) -> dict[str, Any]:
    """Returns the sizes of these tensors, under the names of PUBLISHED.

    state: unwrapped official tensors. overrides: enc_heads and dec_heads, which shapes do not tell.
    Raises ValueError if the file is another system's, or an override contradicts a shape.
    """
    decoder = seems_to_be(state) != BASE
    demand(state, SYSTEM if decoder else BASE)
    tail = "convtail" if decoder else "convproj"
    read: dict[str, Any] = {
        "embed_dims": tuple(
            shape_of(state, f"Tenc.patch_embed{level}.proj.weight", SYSTEM)[0]
            for level in (1, 2, 3, 4)
        ),
        "tail": tuple(
            shape_of(state, f"{tail}.convd{scale}x.conv2d.weight", SYSTEM)[1] for scale in (2, 1)
        ),
        "which": "Transweather" if decoder else "Transweather_base",
    }
    if decoder:
        read["queries"] = shape_of(state, "Tdec.block1.0.attn.task_query", SYSTEM)[1]
    sizes = choose(SYSTEM, PUBLISHED, read, overrides)
    heads = (*sizes["enc_heads"], sizes["dec_heads"])
    widths = (*sizes["embed_dims"], sizes["embed_dims"][3])
    for channels, number in zip(widths, heads):
        if channels % number:
            raise ValueError(
                f"{SYSTEM}: {number} heads do not divide {channels} channels; give enc_heads and"
                " dec_heads of this checkpoint"
            )
    return sizes


def from_official(state_dict: Mapping[str, Any], **overrides: Any) -> TransWeatherNetwork:
    """Builds TransWeather, with or without decoder, from an official checkpoint.

    state_dict: the content of the file, with or without the prefix `module.`.
    overrides: sizes under the names of PUBLISHED.

    Raises ValueError if the file is another system's or incomplete; missing and unexpected names
    are listed.
    """
    state = unwrap(state_dict)
    sizes = arguments(state, **overrides)
    decoder = sizes.pop("which") == "Transweather"
    network = TransWeatherNetwork(**sizes, decoder=decoder)
    load_strictly(
        network,
        state,
        SYSTEM if decoder else BASE,
        lambda name: official_name(name, decoder),
        dead,
    )
    return network
