"""Small real diffusers models with random weights.

Every residual branch, gate and norm of them does something.
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from safetensors.torch import save_file
from torch import nn


def randomise(model: nn.Module, seed: int) -> nn.Module:
    """Non-zero weights everywhere.

    adaLN gates that a fresh model leaves near zero would hide what happens inside its blocks.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(
                    0.3 * noise + (1.0 if name.endswith("weight") else 0.0)
                )  # scales of norms, and biases
    return model.eval()


def small_transformer(**changes) -> SD3Transformer2DModel:
    sizes = {
        "sample_size": 16,
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 16,
        "num_layers": 3,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": 12,
        "caption_projection_dim": 16,
        "pooled_projection_dim": 10,
        "pos_embed_max_size": 8,
        "dual_attention_layers": (0,),
        "qk_norm": "rms_norm",
    }
    return randomise(SD3Transformer2DModel(**(sizes | changes)), seed=0)


def small_vae() -> AutoencoderKL:
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=4,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    return randomise(model, seed=1)


def write_backbone(folder: Path, **changes) -> Path:
    """The transformer and the VAE above as a folder in SD3.5's format.

    Images of at most 64 px, in multiples of 8.
    """
    small_transformer(**changes).save_pretrained(folder / "transformer")
    small_vae().save_pretrained(folder / "vae")
    FlowMatchEulerDiscreteScheduler(shift=1.0).save_pretrained(folder / "scheduler")
    generator = torch.Generator().manual_seed(2)
    prompt = {
        "embeds": torch.randn(1, 4, 12, generator=generator),
        "pooled": torch.randn(1, 10, generator=generator),
    }
    save_file(prompt, folder / "null_prompt.safetensors")
    return folder
