"""AutoDIR's four networks: CLIP names what is wrong, an SD1.5 U-Net in a VAE's latent space removes
it, and a NAFNet puts structure back.

Source: Jiang et al., arXiv 2310.10123; NAFNet: Chen et al., arXiv 2204.04676. CLIP comes from
transformers, U-Net and VAE from diffusers.

B = batch, C = channels, H x W = pixels, T = 77 text tokens, S = sentences.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPModel

SCALE = 0.18215  # of SD1's latents
CATEGORIES = (
    "noise",
    "blur",
    "rain",
    "underexposure",
    "haze",
    "low resolution",
    "raindrop",
    "no",
)
# CLIP's token ids of "A photo needs {} artifact reduction", the words of the category apart.
BEFORE = (320, 1125, 2536)
AFTER = (37718, 12219)
START = 49406
END = 49407
CATEGORY_TOKENS = {
    "noise": (9307,),
    "blur": (27976,),
    "rain": (2443,),
    "underexposure": (21675, 87, 35539),
    "haze": (22785,),
    "low resolution": (1042, 9977),
    "raindrop": (3128, 3387),
    "no": (871,),
}
TEXT_LENGTH = 77
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's


def tokens(category: str | None) -> tuple[Tensor, Tensor]:
    """Returns token ids and mask, (77,) each, of a category's sentence; None is the empty one.

    The mask is 0 at the padding, which repeats the end token.
    """
    words = () if category is None else (*BEFORE, *CATEGORY_TOKENS[category], *AFTER)
    ids = [START, *words, END]
    padding = TEXT_LENGTH - len(ids)
    return torch.tensor(ids + [END] * padding), torch.tensor([1] * len(ids) + [0] * padding)


class PixelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel, with gain and bias."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def gate(x: Tensor) -> Tensor:
    """Multiplies the two halves of the channels."""
    first, second = x.chunk(2, dim=1)
    return first * second


# g = gate(dw3x3(conv(LN x)));  y = x + beta conv(g (W mean(g) + b))
# out = y + gamma conv(gate(conv(LN y)))       (arXiv 2204.04676, figure 3)
class NAFBlock(nn.Module):
    """A block of NAFNet; it has no activation but the product of channel halves."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, 2 * width, 1)
        self.conv2 = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, width, 1))
        self.conv3 = nn.Conv2d(width, width, 1)
        self.conv4 = nn.Conv2d(width, 2 * width, 1)
        self.conv5 = nn.Conv2d(width, width, 1)
        self.norm1, self.norm2 = PixelNorm(width), PixelNorm(width)
        self.beta = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        mixed = gate(self.conv2(self.conv1(self.norm1(x))))
        y = x + self.beta * self.conv3(mixed * self.sca(mixed))
        return y + self.gamma * self.conv5(gate(self.conv4(self.norm2(y))))


@dataclass(frozen=True)
class CorrectionConfig:
    """The sizes of the structural correction, under the names of the official constructor.

    Args:
        img_channel: channels of the degraded and the decoded image together.
        width: channels at full resolution.
        enc_blk_nums: blocks of each level on the way down.
        middle_blk_num: blocks at the lowest resolution.
        dec_blk_nums: blocks of each level on the way up.
    """

    img_channel: int = 6
    width: int = 64
    enc_blk_nums: Sequence[int] = (2, 2, 4, 8)
    middle_blk_num: int = 12
    dec_blk_nums: Sequence[int] = (2, 2, 2, 2)


class Correction(nn.Module):
    """NAFNet that turns the degraded and the decoded image into what the decoded one lacks."""

    def __init__(self, config: CorrectionConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.intro = nn.Conv2d(config.img_channel, width, 3, padding=1)
        self.encoders, self.downs = nn.ModuleList(), nn.ModuleList()
        for blocks in config.enc_blk_nums:
            self.encoders.append(nn.Sequential(*(NAFBlock(width) for _ in range(blocks))))
            self.downs.append(nn.Conv2d(width, 2 * width, 2, 2))
            width *= 2
        self.middle_blks = nn.Sequential(*(NAFBlock(width) for _ in range(config.middle_blk_num)))
        self.decoders, self.ups = nn.ModuleList(), nn.ModuleList()
        for blocks in config.dec_blk_nums:
            self.ups.append(
                nn.Sequential(nn.Conv2d(width, 2 * width, 1, bias=False), nn.PixelShuffle(2))
            )
            width //= 2
            self.decoders.append(nn.Sequential(*(NAFBlock(width) for _ in range(blocks))))
        self.ending = nn.Conv2d(width, 3, 3, padding=1)

    # R = f([I ; X]) + X
    def forward(self, image: Tensor, decoded: Tensor) -> Tensor:
        """Returns the corrected image (B, 3, H, W) in [-1, 1], not clamped, for any H and W."""
        height, width = image.shape[-2:]
        multiple = 2 ** len(self.downs)
        x = torch.cat([image, decoded], dim=1)
        x = self.intro(F.pad(x, (0, -width % multiple, 0, -height % multiple)))
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)
        x = self.middle_blks(x)
        for decoder, up in zip(self.decoders, self.ups, strict=True):
            x = decoder(up(x) + skips.pop())
        return self.ending(x)[..., :height, :width] + decoded


class AutoDIRNetwork(nn.Module):
    """The networks together. Images are (B, 3, H, W) in [-1, 1], RGB; latents have a side of 1/8.

    Args:
        unet: SD1.5's, with 8 input channels.
        vae: SD1's.
        clip: ViT-L/14, quick GELU.
        correction: the structural correction.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        clip: CLIPModel,
        correction: Correction,
    ) -> None:
        super().__init__()
        self.unet = unet
        self.vae = vae
        self.clip = clip
        self.correction = correction

    @property
    def down(self) -> int:
        """Pixels a latent element covers along one axis."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def multiple(self) -> int:
        """Returns what both sides of an image must be divisible by."""
        return self.down * 2 ** (len(self.unet.config.block_out_channels) - 1)

    def pixels(self, image: Tensor) -> Tensor:
        """Returns what CLIP sees: the centre 224 x 224 at native resolution, (B, 3, 224, 224).

        Smaller images are padded with black, the larger half on top and left.
        """
        side = self.clip.vision_model.config.image_size
        height, width = image.shape[-2:]
        down, right = max(side - height, 0), max(side - width, 0)
        image = F.pad(
            (image + 1) / 2, (right - right // 2, right // 2, down - down // 2, down // 2)
        )
        top, left = (image.shape[-2] - side) // 2, (image.shape[-1] - side) // 2
        image = image[..., top : top + side, left : left + side]
        mean, std = (image.new_tensor(v)[:, None, None] for v in (MEAN, STD))
        return (image - mean) / std

    # l = exp(logit scale) cos(image, text);  p = softmax over sentences
    def assess(self, image: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores sentences for images.

        Args:
            ids: token ids of the sentences (S, 77).
            mask: 0 at their padding (S, 77).

        Returns:
            Probabilities (B, S), logits (S, B), and the sentences' hidden states (S, 77, D) behind
            the last norm, in which padding reads real tokens only.
        """
        scores = self.clip(
            input_ids=ids, attention_mask=mask, pixel_values=self.pixels(image).to(self.clip.dtype)
        )
        hidden = scores.text_model_output.last_hidden_state
        return scores.logits_per_text.T.softmax(dim=1), scores.logits_per_text, hidden

    def hidden(self, ids: Tensor) -> Tensor:
        """Returns hidden states (S, 77, D) without a mask: of the empty or of a user's sentence.

        The published code masks the eight sentences only; at padding the two differ.
        """
        return self.clip.text_model(input_ids=ids).last_hidden_state

    def encode(self, image: Tensor) -> Tensor:
        """Returns the mean of the VAE's posterior (B, 4, H/8, W/8), not scaled.

        Raises ValueError if a side is no multiple of 64, which the U-Net needs.
        """
        multiple = self.multiple
        if image.shape[-2] % multiple or image.shape[-1] % multiple:
            raise ValueError(
                f"the image is {image.shape[-2]} x {image.shape[-1]} pixels; AutoDIR takes sides"
                f" that are multiples of {multiple}: pad or crop it"
            )
        return self.vae.encode(image).latent_dist.mode()

    def decode(self, latent: Tensor) -> Tensor:
        """Returns the image of a scaled latent, about [-1, 1], not clamped."""
        return self.vae.decode(latent / SCALE).sample

    def noise(self, x: Tensor, z: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """Returns the noise in `x` (B, 4, h, w).

        Args:
            z: latent of the degraded image, of the same shape.
            t: network time (B,), fractional, 0 to 999.
            context: text features (B, 77, D).
        """
        return self.unet(torch.cat([x, z], dim=1), t, encoder_hidden_states=context).sample
