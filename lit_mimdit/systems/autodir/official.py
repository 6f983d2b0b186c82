"""AutoDIR from the checkpoint that its authors publish (`autodir.ckpt`)."""

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lit_mimdit.systems.autodir.network import AutoDIRNetwork, CorrectionConfig
from lit_mimdit.systems.autodir.sizes import (
    Sizes,
    TextSizes,
    UNetSizes,
    VAESizes,
    VisionSizes,
)
from lit_mimdit.systems.official import State, choose, count, load_strictly, shape_of, unwrap
from lit_mimdit.systems.recognition import demand

SYSTEM = "AutoDIR"
UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP, CORRECTION = "model_assessment.clipmodel.", "NAFNet."
PARTS = ("unet_args", "vae_args", "clip_args", "scm_args")
# Computed here from their equations: the twelve tables of the schedule, and two counters of older
# transformers.
SCHEDULE = re.compile(
    r"(betas|alphas_cumprod(_prev)?|(sqrt|log)_(one_minus_)?alphas_cumprod|"
    r"sqrt_recip(m1)?_alphas_cumprod|posterior_(variance|log_variance_clipped|mean_coef[12]))$"
)
RESNET = (
    ("norm1.", "in_layers.0."),
    ("conv1.", "in_layers.2."),
    ("time_emb_proj.", "emb_layers.1."),
    ("norm2.", "out_layers.0."),
    ("conv2.", "out_layers.3."),
    ("conv_shortcut.", "skip_connection."),
)
ENDS = (
    ("time_embedding.linear_1.", "time_embed.0."),
    ("time_embedding.linear_2.", "time_embed.2."),
    ("conv_in.", "input_blocks.0.0."),
    ("conv_norm_out.", "out.0."),
    ("conv_out.", "out.2."),
)


def _replace_start(name: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for ours, theirs in pairs:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def unet_name(name: str, config: Mapping[str, Any]) -> str:
    """Returns latent diffusion's name of a tensor of diffusers' U-Net."""
    layers = config["layers_per_block"] + 1
    match = re.match(r"(down|up|mid)_block(?:s\.(\d+))?\.(\w+)\.(\d+)\.(.+)", name)
    if not match:
        return _replace_start(name, ENDS)
    side = match[1]
    kind = match[3]
    rest = match[5]
    block, place = int(match[2] or 0), int(match[4])
    rest = _replace_start(rest, RESNET) if kind == "resnets" else rest
    if side == "mid":
        return f"middle_block.{2 * place if kind == 'resnets' else 1}.{rest}"
    start = 1 if side == "down" else 0
    where = "input_blocks" if side == "down" else "output_blocks"
    if kind == "downsamplers":
        return f"{where}.{(block + 1) * layers}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        second = 2 if "Attn" in config["up_block_types"][block] else 1
        return f"{where}.{block * layers + layers - 1}.{second}.{rest}"
    return f"{where}.{start + block * layers + place}.{0 if kind == 'resnets' else 1}.{rest}"


def vae_name(name: str, levels: int) -> str:
    """Returns latent diffusion's name of a tensor of diffusers' VAE."""
    name = name.replace("conv_shortcut.", "nin_shortcut.").replace("conv_norm_out.", "norm_out.")
    name = re.sub(r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block.", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0\.", r"down.\1.downsample.", name)
    name = re.sub(
        r"up_blocks\.(\d+)\.resnets\.", lambda m: f"up.{levels - 1 - int(m[1])}.block.", name
    )
    name = re.sub(
        r"up_blocks\.(\d+)\.upsamplers\.0\.",
        lambda m: f"up.{levels - 1 - int(m[1])}.upsample.",
        name,
    )
    name = re.sub(r"mid_block\.resnets\.(\d)\.", lambda m: f"mid.block_{int(m[1]) + 1}.", name)
    name = re.sub(r"mid_block\.attentions\.0\.", "mid.attn_1.", name)
    name = re.sub(r"attn_1\.group_norm\.", "attn_1.norm.", name)
    return re.sub(r"attn_1\.to_([qkv])\.", r"attn_1.\1.", name).replace("to_out.0.", "proj_out.")


def official_name(name: str, network: AutoDIRNetwork) -> str:
    """Returns the official name of a tensor of `network`."""
    part, _, rest = name.partition(".")
    if part == "unet":
        return UNET + unet_name(rest, network.unet.config)
    if part == "vae":
        return VAE + vae_name(rest, len(network.vae.config.block_out_channels))
    return (CLIP if part == "clip" else CORRECTION) + rest


def dead(name: str) -> bool:
    """Returns whether an official tensor is not loaded, since it is computed here or a mere
    counter.
    """
    return bool(SCHEDULE.match(name)) or name.endswith(".embeddings.position_ids")


def _unet(state: Mapping[str, Tensor], given: Mapping[str, Any]) -> UNetSizes:
    start, inputs, _, _ = shape_of(state, UNET + "input_blocks.0.0.weight", SYSTEM)
    blocks = count(state, UNET + "input_blocks.", ".")
    halvings = [i for i in range(blocks) if f"{UNET}input_blocks.{i}.0.op.weight" in state]
    residual = (halvings[0] if halvings else blocks) - 1
    levels = len(halvings) + 1
    first = [1 + level * (residual + 1) for level in range(levels)]
    widths = [
        shape_of(state, f"{UNET}input_blocks.{i}.0.out_layers.3.weight", SYSTEM)[0] for i in first
    ]
    attended = [f"{UNET}input_blocks.{i}.1.norm.weight" in state for i in first]
    context = shape_of(
        state, UNET + "middle_block.1.transformer_blocks.0.attn2.to_k.weight", SYSTEM
    )[1]
    given = dict(given)
    if "attention_resolutions" in given:
        given["attention_resolutions"] = sorted(given["attention_resolutions"])
    sizes = choose(
        SYSTEM,
        {"image_size": 32, "num_heads": 8, "use_checkpoint": True},
        {
            "in_channels": inputs,
            "out_channels": shape_of(state, UNET + "out.2.weight", SYSTEM)[0],
            "model_channels": start,
            "attention_resolutions": tuple(2**i for i, has in enumerate(attended) if has),
            "num_res_blocks": residual,
            "channel_mult": tuple(width // start for width in widths),
            "use_spatial_transformer": True,
            "transformer_depth": 1,
            "context_dim": context,
            "legacy": False,
        },
        given,
    )
    if any(width % sizes["num_heads"] for width in widths):
        raise ValueError(
            f"{SYSTEM}: widths {widths} cannot be cut into {sizes['num_heads']} heads; give "
            "unet_args.num_heads"
        )
    return UNetSizes(
        in_channels=sizes["in_channels"],
        out_channels=sizes["out_channels"],
        widths=tuple(widths),
        attended=tuple(attended),
        layers=residual,
        context=context,
        heads=sizes["num_heads"],
        sample_size=sizes["image_size"],
    )


def _vae(state: Mapping[str, Tensor], given: Mapping[str, Any]) -> VAESizes:
    ch, inputs, _, _ = shape_of(state, VAE + "encoder.conv_in.weight", SYSTEM)
    levels = count(state, VAE + "encoder.down.", ".")
    sizes = choose(
        SYSTEM,
        {"resolution": 256, "dropout": 0.0},
        {
            "double_z": True,
            "z_channels": shape_of(state, VAE + "decoder.conv_in.weight", SYSTEM)[1],
            "in_channels": inputs,
            "out_ch": shape_of(state, VAE + "decoder.conv_out.weight", SYSTEM)[0],
            "ch": ch,
            "ch_mult": tuple(
                shape_of(state, f"{VAE}encoder.down.{i}.block.0.conv2.weight", SYSTEM)[0] // ch
                for i in range(levels)
            ),
            "num_res_blocks": count(state, VAE + "encoder.down.0.block.", "."),
            "attn_resolutions": (),
        },
        given,
    )
    return VAESizes(
        in_channels=sizes["in_channels"],
        out_channels=sizes["out_ch"],
        widths=tuple(ch * factor for factor in sizes["ch_mult"]),
        layers=sizes["num_res_blocks"],
        latent_channels=sizes["z_channels"],
        sample_size=sizes["resolution"],
    )


def _clip(state: Mapping[str, Tensor], given: Mapping[str, Any]) -> tuple[TextSizes, VisionSizes]:
    parts = {}
    shared = {"projection_dim": shape_of(state, f"{CLIP}text_projection.weight", SYSTEM)[0]}
    choose(SYSTEM, {}, shared, {k: v for k, v in given.items() if k not in ("text", "vision")})
    for part in ("text", "vision"):
        at = f"{CLIP}{part}_model."
        mlp = shape_of(state, at + "encoder.layers.0.mlp.fc1.weight", SYSTEM)
        read = {
            "hidden_size": mlp[1],
            "intermediate_size": mlp[0],
            "num_hidden_layers": count(state, at + "encoder.layers.", "."),
        }
        places = shape_of(state, at + "embeddings.position_embedding.weight", SYSTEM)[0]
        published = {"num_attention_heads": max(1, mlp[1] // 64)}
        if part == "text":
            words = shape_of(state, at + "embeddings.token_embedding.weight", SYSTEM)[0]
            read |= {"max_position_embeddings": places, "vocab_size": words}
            published |= {
                "bos_token_id": words - 2,
                "eos_token_id": words - 1,
                "pad_token_id": words - 1,
            }
        else:
            patch = shape_of(state, at + "embeddings.patch_embedding.weight", SYSTEM)[-1]
            read |= {"patch_size": patch, "image_size": patch * math.isqrt(places - 1)}
        name = "text_projection" if part == "text" else "visual_projection"
        read["projection_dim"] = shape_of(state, f"{CLIP}{name}.weight", SYSTEM)[0]
        parts[part] = choose(SYSTEM, published, read, given.get(part, {}))
    return TextSizes(**parts["text"]), VisionSizes(**parts["vision"])


def _correction(state: Mapping[str, Tensor], given: Mapping[str, Any]) -> CorrectionConfig:
    width, channels, _, _ = shape_of(state, CORRECTION + "intro.weight", SYSTEM)

    def blocks(part: str) -> tuple[int, ...]:
        stages = count(state, f"{CORRECTION}{part}.", ".")
        return tuple(count(state, f"{CORRECTION}{part}.{i}.", ".") for i in range(stages))

    read = {
        "img_channel": channels,
        "width": width,
        "enc_blk_nums": blocks("encoders"),
        "middle_blk_num": count(state, CORRECTION + "middle_blks.", "."),
        "dec_blk_nums": blocks("decoders"),
    }
    return CorrectionConfig(**choose(SYSTEM, {}, read, given))


def sizes_of(state: Mapping[str, Tensor], **overrides: Any) -> Sizes:
    """Returns the sizes of the networks whose official tensors these are.

    Args:
        state: unwrapped official tensors.
        overrides: see `from_official`.

    Raises:
        ValueError: see `from_official`.
    """
    demand(state, SYSTEM)
    unknown = sorted(set(overrides) - set(PARTS))
    if unknown:
        raise ValueError(f"{SYSTEM}: no argument {unknown[0]}; there are {', '.join(PARTS)}")
    return Sizes(
        _unet(state, overrides.get("unet_args", {})),
        _vae(state, overrides.get("vae_args", {})),
        *_clip(state, overrides.get("clip_args", {})),
        _correction(state, overrides.get("scm_args", {})),
    )


def from_official(file: Mapping[str, Any], **overrides: Any) -> AutoDIRNetwork:
    """Builds AutoDIR from the tensors of an official checkpoint.

    Args:
        file: the published Lightning checkpoint, or the state dict in it.
        overrides: `unet_args`, `vae_args`, `clip_args` ("text", "vision", "projection_dim") and
            `scm_args`, mappings with the official constructors' arguments. Shapes tell all but the
            number of heads.

    Raises:
        ValueError: another system's file, a file that is cut off, or a contradicting override; in
            one line.
    """
    state: State = unwrap(file)
    network = sizes_of(state, **overrides).build()
    flat = {
        name: value.flatten(1) if ".attn_1." in name and value.ndim == 4 else value
        for name, value in state.items()
    }
    load_strictly(network, flat, SYSTEM, lambda name: official_name(name, network), dead)
    return network.eval()
