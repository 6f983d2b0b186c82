"""DA-CLIP's networks from the files that its authors publish.

There are two files: the controller with its CLIP (`daclip_ViT-B-32.pt`), and the U-Net
(`universal-ir.pth`, `wild-ir.pth`).
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lit_mimdit.systems.daclip.clip import DegradationCLIP, TextConfig, VisionConfig
from lit_mimdit.systems.daclip.network import UNet, UNetConfig
from lit_mimdit.systems.official import State, choose, count, load_strictly, shape_of, unwrap
from lit_mimdit.systems.recognition import demand, seems_to_be

CONTROLLER, UNET = "DA-CLIP's controller", "DA-CLIP's U-Net"  # keys of SIGNATURES
VARIANTS = {512: "universal variant with ViT-B/32", 768: "wild variant with ViT-L/14"}
CLIP_ARGUMENTS = ("embed_dim", "vision_cfg", "text_cfg")

# our names -> open_clip's, in this order
RENAMED = (
    (r"^clip\.text_model\.", "clip."),
    (r"^clip\.vision_model\.", "clip.visual."),
    (r"^control\.tower\.encoder\.", "visual_control.transformer.encoder."),
    (r"^control\.tower\.", "visual_control."),
    (r"^control\.zero\.", "visual_control.transformer.zero_modules."),
    (r"^control\.projection\.weight$", "visual_control.proj"),
    (r"^clip\.visual_projection\.weight$", "clip.visual.proj"),
    (r"^clip\.text_projection\.weight$", "clip.text_projection"),
    (r"embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"embeddings\.patch_embedding\.", "conv1."),
    (r"embeddings\.(token|class)_embedding", r"\1_embedding"),
    (r"\bpre_layrnorm\.", "ln_pre."),
    (r"\bpost_layernorm\.", "ln_post."),
    (r"\bfinal_layer_norm\.", "ln_final."),
    (r"encoder\.layers\.", "transformer.resblocks."),
    (r"self_attn\.([qkv])_proj\.(weight|bias)$", r"attn.in_proj_\2[\1]"),
    (r"self_attn\.", "attn."),
    (r"layer_norm([12])\.", r"ln_\1."),
    (r"mlp\.fc1\.", "mlp.c_fc."),
    (r"mlp\.fc2\.", "mlp.c_proj."),
)
TRANSPOSED = ("visual_control.proj", "clip.visual.proj", "clip.text_projection")


class DACLIPNetwork(nn.Module):
    """Both networks of DA-CLIP: `clip` embeds the degraded image, `unet` removes the noise.

    The first stage has no U-Net.
    """

    unet: UNet

    def __init__(self, clip: DegradationCLIP, unet: UNet | None = None) -> None:
        super().__init__()
        self.clip = clip
        if unet is not None:
            self.unet = unet


def official_name(name: str) -> str:
    """Returns the official name of a tensor of `DegradationCLIP`.

    open_clip keeps queries, keys and values in one tensor; their parts are marked [q], [k], [v].
    """
    for pattern, replacement in RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def _parted(state: Mapping[str, Tensor]) -> State:
    parts: State = {}
    for name, value in state.items():
        if name.rpartition(".")[2] in ("in_proj_weight", "in_proj_bias") and len(value) % 3 == 0:
            parts |= {f"{name}[{k}]": v for k, v in zip("qkv", value.chunk(3), strict=True)}
        else:
            parts[name] = value.T if name in TRANSPOSED and value.ndim == 2 else value
    return parts


def clip_from_official(file: Mapping[str, Any], **overrides: Any) -> DegradationCLIP:
    """Builds controller and CLIP from an official controller file.

    Args:
        file: the published mapping, wrapped or not.
        overrides: `embed_dim`, `vision_cfg`, `text_cfg` as in open_clip's configuration. Shapes
            tell all but the width of a head, which is 64 if not given.
    """
    state = unwrap(file)
    demand(state, CONTROLLER)
    unknown = sorted(set(overrides) - set(CLIP_ARGUMENTS))
    if unknown:
        raise ValueError(f"{CONTROLLER}: no argument {unknown[0]}; there are {CLIP_ARGUMENTS}")
    width, _, patch, _ = shape_of(state, "clip.visual.conv1.weight", CONTROLLER)
    places, _ = shape_of(state, "clip.visual.positional_embedding", CONTROLLER)
    length, text_width = shape_of(state, "clip.positional_embedding", CONTROLLER)
    vocabulary, _ = shape_of(state, "clip.token_embedding.weight", CONTROLLER)
    _, embedding = shape_of(state, "clip.text_projection", CONTROLLER)
    vision = choose(
        CONTROLLER,
        {"head_width": 64},
        {
            "image_size": patch * math.isqrt(places - 1),
            "layers": count(state, "clip.visual.transformer.resblocks.", "."),
            "width": width,
            "patch_size": patch,
        },
        overrides.get("vision_cfg", {}),
    )
    text = choose(
        CONTROLLER,
        {"heads": max(1, text_width // 64)},
        {
            "context_length": length,
            "vocab_size": vocabulary,
            "width": text_width,
            "layers": count(state, "clip.transformer.resblocks.", "."),
        },
        overrides.get("text_cfg", {}),
    )
    sizes = choose(
        CONTROLLER,
        {},
        {"embed_dim": embedding},
        {k: v for k, v in overrides.items() if k == "embed_dim"},
    )
    for system_width, heads in (
        (width, width / vision["head_width"]),
        (text_width, text["heads"]),
    ):
        if heads < 1 or system_width % heads:
            raise ValueError(
                f"{CONTROLLER}: width {system_width} cannot be cut into {heads:g} heads; give "
                "vision_cfg.head_width or text_cfg.heads"
            )
    # The image tower is in the file twice; a training that changed only one would be lost.
    for name, value in state.items():
        twin = state.get(f"clip.{name}") if name.startswith("visual.") else None
        if twin is not None and not value.is_meta and not torch.equal(twin, value):
            raise ValueError(
                f"{CONTROLLER}: {name} and clip.{name} differ, but are one tensor in the official"
                " code; the file was changed, so fetch it again"
            )
    network = DegradationCLIP(sizes["embed_dim"], VisionConfig(**vision), TextConfig(**text))
    load_strictly(
        network,
        _parted(state),
        CONTROLLER,
        official_name,
        lambda name: name.startswith("visual."),
    )
    return network.eval()


def unet_from_official(file: Mapping[str, Any], **overrides: Any) -> UNet:
    """Builds the U-Net from an official file of either variant.

    Args:
        file: the published mapping, wrapped or not.
        overrides: arguments of the official constructor (`nf`, `ch_mult`, `context_dim`, ...).
            Shapes tell all of them, so an override can only confirm.
    """
    state = unwrap(file)
    demand(state, UNET)
    nf, inputs, _, _ = shape_of(state, "init_conv.weight", UNET)
    levels = count(state, "downs.", ".")
    values = "mid_attn.fn.fn.transformer_blocks.0.attn2.to_v.weight"
    read = {
        "in_nc": inputs // 2,
        "out_nc": shape_of(state, "final_conv.weight", UNET)[0],
        "nf": nf,
        "ch_mult": tuple(
            shape_of(state, f"downs.{level}.3.weight", UNET)[0] // nf for level in range(levels)
        ),
        "use_degra_context": "prompt" in state,
        "use_image_context": values in state,
        "scale": 0.5 if "downsample.weight" in state else 1.0,
    }
    if "text_mlp.0.weight" in state:
        read["context_dim"] = shape_of(state, "text_mlp.0.weight", UNET)[1]
    elif values in state:
        read["context_dim"] = shape_of(state, values, UNET)[1]
    network = UNet(UNetConfig(**choose(UNET, {"context_dim": 512}, read, overrides)))
    load_strictly(network, state, UNET)
    return network.eval()


def from_official(
    file: Mapping[str, Any], **overrides: Any
) -> DegradationCLIP | UNet | DACLIPNetwork:
    """Builds what an official file of DA-CLIP holds, ready to restore.

    Returns the U-Net, or controller and CLIP. A mapping whose names begin with `daclip.` and
    `unet.` gives both.

    Raises:
        ValueError: another system's file, a file that is cut off, or a contradicting override; in
            one line.
    """
    state = unwrap(file)
    parts: dict[str, dict[str, Tensor]] = {}
    for part in ("daclip.", "unet."):
        own = {name: value for name, value in state.items() if name.startswith(part)}
        parts[part] = {name.removeprefix(part): value for name, value in own.items()}
    if all(parts.values()) and sum(map(len, parts.values())) == len(state):
        clip = {k: v for k, v in overrides.items() if k in CLIP_ARGUMENTS}
        unet = {k: v for k, v in overrides.items() if k not in CLIP_ARGUMENTS}
        return DACLIPNetwork(
            clip_from_official(parts["daclip."], **clip), unet_from_official(parts["unet."], **unet)
        )
    if seems_to_be(state) == CONTROLLER:
        return clip_from_official(state, **overrides)
    return unet_from_official(state, **overrides)


def both_from_official(*files: Mapping[str, Any], **overrides: Any) -> DACLIPNetwork:
    """Builds both networks from the controller's and the U-Net's file, or from one with both.

    Args:
        files: their contents, in any order.
        overrides: see `from_official`.

    Raises:
        ValueError: see `from_official`; or one of the two is missing, or they are of two variants.
    """
    parts: dict[type, Any] = {}
    for file in files:
        state = unwrap(file)
        mine = overrides
        if len(files) > 1:
            controller = seems_to_be(state) == CONTROLLER
            mine = {k: v for k, v in overrides.items() if (k in CLIP_ARGUMENTS) == controller}
        network = from_official(state, **mine)
        parts[type(network)] = network
    if len(files) == 1 and DACLIPNetwork in parts:
        return parts[DACLIPNetwork]
    if len(files) != 2 or parts.keys() != {DegradationCLIP, UNet}:
        raise ValueError(
            "DA-CLIP is published as two files, the controller with its CLIP and the U-Net; give"
            " both, such as daclip_ViT-B-32.pt universal-ir.pth"
        )
    clip, unet = parts[DegradationCLIP], parts[UNet]
    _demand_one_variant(clip.sizes[0], unet.config)
    return DACLIPNetwork(clip, unet)


def _demand_one_variant(embedding: int, config: UNetConfig) -> None:
    """Raises ValueError if the U-Net reads embeddings of another width than the controller's."""
    reads = config.use_degra_context or config.use_image_context
    if reads and config.context_dim != embedding:
        has, wants = (
            f"{VARIANTS.get(width, 'unpublished variant')} (embeddings of {width})"
            for width in (embedding, config.context_dim)
        )
        raise ValueError(
            f"DA-CLIP: the files do not belong together: the controller seems to be of the {has}"
            f" and the U-Net of the {wants}; give daclip_ViT-B-32.pt with universal-ir.pth, or"
            " wild-ir.pth with its own controller"
        )
