"""Sizes of AutoDIR's four networks as plain values, and the networks of these sizes.

The defaults are the published ones: Stable Diffusion 1.5 with 8 input channels, its VAE, and CLIP
ViT-L/14.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPConfig, CLIPModel

from lit_mimdit.systems.autodir.network import (
    SCALE,
    AutoDIRNetwork,
    Correction,
    CorrectionConfig,
)


@dataclass(frozen=True)
class UNetSizes:
    """The sizes of the U-Net.

    Args:
        in_channels: channels of the noisy latent and the degraded image's, together.
        out_channels: channels of the predicted noise.
        widths: channels of each level.
        attended: which levels have cross-attention.
        layers: residual blocks of a level.
        context: width of the text features.
        heads: heads of each attention.
        sample_size: side of the latents that it was trained on.
    """

    in_channels: int = 8
    out_channels: int = 4
    widths: Sequence[int] = (320, 640, 1280, 1280)
    attended: Sequence[bool] = (True, True, True, False)
    layers: int = 2
    context: int = 768
    heads: int = 8
    sample_size: int = 32

    def build(self) -> UNet2DConditionModel:
        down = ["CrossAttnDownBlock2D" if has else "DownBlock2D" for has in self.attended]
        up = ["CrossAttnUpBlock2D" if has else "UpBlock2D" for has in reversed(self.attended)]
        return UNet2DConditionModel(
            sample_size=self.sample_size,
            in_channels=self.in_channels,
            out_channels=self.out_channels,
            block_out_channels=tuple(self.widths),
            down_block_types=tuple(down),
            up_block_types=tuple(up),
            layers_per_block=self.layers,
            cross_attention_dim=self.context,
            attention_head_dim=self.heads,
        )


@dataclass(frozen=True)
class VAESizes:
    """The sizes of the VAE.

    Args:
        in_channels: channels of an image.
        out_channels: channels of a decoded image.
        widths: channels of each level.
        layers: residual blocks of a level of the encoder.
        latent_channels: channels of a latent.
        sample_size: side of the images that it was trained on.
    """

    in_channels: int = 3
    out_channels: int = 3
    widths: Sequence[int] = (128, 256, 512, 512)
    layers: int = 2
    latent_channels: int = 4
    sample_size: int = 256

    def build(self) -> AutoencoderKL:
        levels = len(self.widths)
        return AutoencoderKL(
            in_channels=self.in_channels,
            out_channels=self.out_channels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=tuple(self.widths),
            layers_per_block=self.layers,
            latent_channels=self.latent_channels,
            sample_size=self.sample_size,
            scaling_factor=SCALE,
        )


@dataclass(frozen=True)
class TextSizes:
    """The sizes of CLIP's text tower, under transformers' names.

    Args:
        hidden_size: width of the tokens.
        intermediate_size: width inside the feed-forward layers.
        num_hidden_layers: number of transformer layers.
        num_attention_heads: heads of each attention.
        max_position_embeddings: tokens that a text may have.
        vocab_size: tokens that the tokenizer knows.
        bos_token_id: token that begins a text.
        eos_token_id: token that ends a text.
        pad_token_id: token that fills a text up.
        projection_dim: width of the embedding that is compared with an image's.
    """

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    max_position_embeddings: int = 77
    vocab_size: int = 49408
    bos_token_id: int = 49406
    eos_token_id: int = 49407
    pad_token_id: int = 49407
    projection_dim: int = 768


@dataclass(frozen=True)
class VisionSizes:
    """The sizes of CLIP's image tower, under transformers' names.

    Args:
        hidden_size: width of the tokens.
        intermediate_size: width inside the feed-forward layers.
        num_hidden_layers: number of transformer layers.
        num_attention_heads: heads of each attention.
        patch_size: side of a token's patch, pixels.
        image_size: side of the image, pixels.
        projection_dim: width of the embedding that is compared with a text's.
    """

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    patch_size: int = 14
    image_size: int = 224
    projection_dim: int = 768


@dataclass(frozen=True)
class Sizes:
    """The sizes of all four networks.

    Args:
        unet: sizes of the U-Net.
        vae: sizes of the VAE.
        text: sizes of CLIP's text tower.
        vision: sizes of CLIP's image tower.
        correction: sizes of the structural correction.
    """

    unet: UNetSizes = field(default_factory=UNetSizes)
    vae: VAESizes = field(default_factory=VAESizes)
    text: TextSizes = field(default_factory=TextSizes)
    vision: VisionSizes = field(default_factory=VisionSizes)
    correction: CorrectionConfig = field(default_factory=CorrectionConfig)

    def build(self) -> AutoDIRNetwork:
        """Returns the networks with random weights."""
        clip = CLIPConfig(
            text_config=asdict(self.text),
            vision_config=asdict(self.vision),
            projection_dim=self.text.projection_dim,
        )
        return AutoDIRNetwork(
            self.unet.build(), self.vae.build(), CLIPModel(clip), Correction(self.correction)
        )
