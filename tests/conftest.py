"""Small real diffusers models with random weights: every residual branch, gate and norm of them does something."""

import pytest
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from torch import nn


def _randomise(model: nn.Module, seed: int) -> nn.Module:
    """Non-zero weights everywhere: adaLN gates that a fresh model leaves near zero would hide what happens inside its blocks."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(0.3 * noise + (1.0 if name.endswith("weight") else 0.0))  # scales of norms, and biases
    return model.eval()


@pytest.fixture
def make_transformer():
    """Builds an SD3.5-like transformer: width 16, 2 heads, 3 blocks, the first with dual attention; always the same weights."""

    def make(**changes) -> SD3Transformer2DModel:
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
        return _randomise(SD3Transformer2DModel(**(sizes | changes)), seed=0)

    return make


@pytest.fixture
def transformer(make_transformer) -> SD3Transformer2DModel:
    return make_transformer()


@pytest.fixture
def vae() -> AutoencoderKL:
    """An SD3.5-like autoencoder: 16 latent channels, 3 levels (factor 4), a scaling and a shift factor, no quantisation convolutions."""
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
    return _randomise(model, seed=1)
