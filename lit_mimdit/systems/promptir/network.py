"""PromptIR's network: Restormer's U-shape with learned prompts in the decoder.

Source: "PromptIR: Prompting for All-in-One Blind Image Restoration" (NeurIPS 2023).
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_mimdit.models.restormer import Downsample, RestormerBlock, Upsample
from lit_mimdit.systems.sizes import demand_multiple


class Prompt(nn.Module):
    """Mixes learned maps by what the features look like.

        w = softmax(Linear(mean over pixels of u))
        P = conv3x3(resize(sum_i w_i P_i))

    The resize is bilinear, to the size of u, without aligned corners and without antialiasing.

    features: channels of u. channels: of the maps P_i. length: how many. size: their side.
    """

    def __init__(self, features: int, channels: int, length: int, size: int):
        super().__init__()
        self.maps = nn.Parameter(torch.rand(length, channels, size, size))
        self.linear = nn.Linear(features, length)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, u: Tensor) -> Tensor:
        weights = self.linear(u.mean(dim=(-2, -1))).softmax(dim=1)
        prompt = torch.einsum("bl,lchw->bchw", weights, self.maps)
        prompt = F.interpolate(prompt, u.shape[-2:], mode="bilinear", align_corners=False)
        return self.conv(prompt)


class Fusion(nn.Module):
    """Concatenates features and prompt, lets one block mix them, and reduces the channels.

    features: channels of u. prompt: channels of the prompt. out: channels of the result. heads,
    expansion, norm_bias: of the block.
    """

    def __init__(
        self, features: int, prompt: int, out: int, heads: int, expansion: float, norm_bias: bool
    ):
        super().__init__()
        both = features + prompt
        self.block = RestormerBlock(both, heads, expansion, norm_bias=norm_bias)
        self.reduce = nn.Conv2d(both, out, 1, bias=False)

    def forward(self, u: Tensor, prompt: Tensor) -> Tensor:
        return self.reduce(self.block(torch.cat((u, prompt), dim=1)))


class PromptIRNetwork(nn.Module):
    """Restores an image with one network for all degradations.

    dim: channels at full resolution, C.
    num_blocks: blocks of levels 1, 2, 3 and of the bottom.
    num_refinement_blocks: blocks after the decoder.
    heads: those of the attention at each level; the fusion blocks use the third.
    ffn_expansion_factor: that of the feed-forward parts.
    norm_bias: form of the norms.
    prompt_dims, prompt_sizes: channels and side of the prompts of levels 1, 2, 3.
    prompt_len: maps a prompt has.

    The defaults are the published configuration, with 35,376,967 parameters.
    """

    def __init__(
        self,
        dim: int = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        num_refinement_blocks: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        norm_bias: bool = True,
        prompt_dims: Sequence[int] = (64, 128, 320),
        prompt_len: int = 5,
        prompt_sizes: Sequence[int] = (64, 32, 16),
    ):
        super().__init__()
        self.sizes: dict[str, Any] = {  # what builds it again
            "dim": dim,
            "num_blocks": tuple(num_blocks),
            "num_refinement_blocks": num_refinement_blocks,
            "heads": tuple(heads),
            "ffn_expansion_factor": ffn_expansion_factor,
            "norm_bias": norm_bias,
            "prompt_dims": tuple(prompt_dims),
            "prompt_len": prompt_len,
            "prompt_sizes": tuple(prompt_sizes),
        }

        def level(channels: int, blocks: int, heads: int) -> nn.Sequential:
            return nn.Sequential(
                *(
                    RestormerBlock(channels, heads, ffn_expansion_factor, norm_bias=norm_bias)
                    for _ in range(blocks)
                )
            )

        def prompt(level: int, features: int) -> Prompt:
            return Prompt(features, prompt_dims[level], prompt_len, prompt_sizes[level])

        def fusion(level: int, features: int, out: int) -> Fusion:
            return Fusion(
                features, prompt_dims[level], out, heads[2], ffn_expansion_factor, norm_bias
            )

        one, two, four, eight = (dim * 2**i for i in range(4))
        self.patch_embed = nn.Conv2d(3, one, 3, padding=1, bias=False)
        self.encoder1 = level(one, num_blocks[0], heads[0])
        self.down1 = Downsample(one)
        self.encoder2 = level(two, num_blocks[1], heads[1])
        self.down2 = Downsample(two)
        self.encoder3 = level(four, num_blocks[2], heads[2])
        self.down3 = Downsample(four)
        self.latent = level(eight, num_blocks[3], heads[3])
        self.prompt3 = prompt(2, eight)
        self.fusion3 = fusion(2, eight, four)
        self.up3 = Upsample(four)
        self.skip3 = nn.Conv2d(two + four, four, 1, bias=False)
        self.decoder3 = level(four, num_blocks[2], heads[2])
        self.prompt2 = prompt(1, four)
        self.fusion2 = fusion(1, four, four)
        self.up2 = Upsample(four)
        self.skip2 = nn.Conv2d(two + two, two, 1, bias=False)
        self.decoder2 = level(two, num_blocks[1], heads[1])
        self.prompt1 = prompt(0, two)
        self.fusion1 = fusion(0, two, two)
        self.up1 = Upsample(two)
        self.decoder1 = level(two, num_blocks[0], heads[0])
        self.refinement = level(two, num_refinement_blocks, heads[0])
        self.output = nn.Conv2d(two, 3, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the restored image, (B, 3, H, W), not clamped.

        x: (B, 3, H, W), RGB in [0, 1]. ValueError unless H and W are multiples of 8.
        """
        demand_multiple(x, 8, "PromptIR")
        e1 = self.encoder1(self.patch_embed(x))
        e2 = self.encoder2(self.down1(e1))
        e3 = self.encoder3(self.down2(e2))
        u = self.latent(self.down3(e3))
        u = self.fusion3(u, self.prompt3(u))
        u = self.decoder3(self.skip3(torch.cat((self.up3(u), e3), dim=1)))
        u = self.fusion2(u, self.prompt2(u))
        u = self.decoder2(self.skip2(torch.cat((self.up2(u), e2), dim=1)))
        u = self.fusion1(u, self.prompt1(u))
        u = self.refinement(self.decoder1(torch.cat((self.up1(u), e1), dim=1)))
        return self.output(u) + x
