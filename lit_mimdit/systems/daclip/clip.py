"""The CLIP of DA-CLIP: two frozen towers and a trainable copy of the image tower that steers it.

Source: Luo et al., arXiv 2310.01018, section 3. The towers are transformers' CLIP with exact GELU.

B = batch, P = patches + 1 tokens, D = width, E = embedding.
"""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

WORDS = (
    "motion-blurry",
    "hazy",
    "jpeg-compressed",
    "low-light",
    "noisy",
    "raindrop",
    "rainy",
    "shadowed",
    "snowy",
    "uncompleted",
)  # the degradations that the published controller names, in its order


@dataclass(frozen=True)
class VisionConfig:
    """The sizes of the image tower, under open_clip's names; the default is ViT-B/32.

    Args:
        image_size: side of the image, pixels.
        layers: number of transformer layers.
        width: width of the tokens.
        head_width: width of one attention head.
        patch_size: side of a token's patch, pixels.
    """

    image_size: int = 224
    layers: int = 12
    width: int = 768
    head_width: int = 64
    patch_size: int = 32


@dataclass(frozen=True)
class TextConfig:
    """The sizes of the text tower, under open_clip's names.

    Args:
        context_length: tokens that a text may have.
        vocab_size: tokens that the tokenizer knows.
        width: width of the tokens.
        heads: heads of each attention.
        layers: number of transformer layers.
    """

    context_length: int = 77
    vocab_size: int = 49408
    width: int = 512
    heads: int = 8
    layers: int = 12


def clip_model(embed_dim: int, vision: VisionConfig, text: TextConfig) -> CLIPModel:
    """Builds transformers' CLIP of these sizes with random weights."""
    common = {"hidden_act": "gelu", "layer_norm_eps": 1e-5, "projection_dim": embed_dim}
    return CLIPModel(
        CLIPConfig(
            text_config=common
            | {
                "vocab_size": text.vocab_size,
                "hidden_size": text.width,
                "intermediate_size": 4 * text.width,
                "num_hidden_layers": text.layers,
                "num_attention_heads": text.heads,
                "max_position_embeddings": text.context_length,
                "pad_token_id": 0,
                "bos_token_id": text.vocab_size - 2,
                "eos_token_id": text.vocab_size - 1,
            },
            vision_config=common
            | {
                "hidden_size": vision.width,
                "intermediate_size": 4 * vision.width,
                "num_hidden_layers": vision.layers,
                "num_attention_heads": vision.width // vision.head_width,
                "image_size": vision.image_size,
                "patch_size": vision.patch_size,
            },
            projection_dim=embed_dim,
        )
    )


class Controller(nn.Module):
    """The trainable copy of the image tower with a linear behind each block, zero at the start.

    The copy is exact, its last norm and projection included. The official constructor pairs
    parameters by position and misplaces that norm; released weights are not affected.
    """

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.tower = copy.deepcopy(clip.vision_model)
        self.projection = copy.deepcopy(clip.visual_projection)
        width = clip.vision_model.config.hidden_size
        self.zero = nn.ModuleList(nn.Linear(width, width) for _ in self.tower.encoder.layers)
        for parameter in self.zero.parameters():
            nn.init.zeros_(parameter)

    # c_i = Z_i h_i + b_i, where h_i are the tokens behind block i
    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Returns the degradation embedding (B, E) and a control (B, P, D) for each block."""
        controls = []
        x = self.tower.pre_layrnorm(self.tower.embeddings(image))
        for block, zero in zip(self.tower.encoder.layers, self.zero, strict=True):
            x = block(x, attention_mask=None)
            controls.append(zero(x))
        return self.projection(self.tower.post_layernorm(x[:, 0])), controls


class DegradationCLIP(nn.Module):
    """CLIP that sees a degraded image as content and as degradation.

    Images (B, 3, S, S) are normalised with CLIP's mean and deviation; see `sampler.clip_pixels`.
    """

    def __init__(self, embed_dim: int, vision: VisionConfig, text: TextConfig) -> None:
        super().__init__()
        self.sizes = embed_dim, vision, text
        self.clip = clip_model(embed_dim, vision, text).requires_grad_(False)
        self.control = Controller(self.clip).requires_grad_(True)
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())

    # x <- x + c_{L-1-i} behind block i: the controller's last block steers the tower's first.
    # The published weights were trained in this order, so it stays.
    def content(self, image: Tensor, controls: list[Tensor] | None = None) -> Tensor:
        """Returns the content embedding (B, E), not normalised; without `controls` it is CLIP's."""
        tower = self.clip.vision_model
        x = tower.pre_layrnorm(tower.embeddings(image))
        added = [None] * len(tower.encoder.layers) if controls is None else controls[::-1]
        for block, control in zip(tower.encoder.layers, added, strict=True):
            x = block(x, attention_mask=None)
            if control is not None:
                x = x + control
        return self.clip.visual_projection(tower.post_layernorm(x[:, 0]))

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Returns content and degradation embedding, (B, E) each, not normalised."""
        degradation, controls = self.control(image)
        return self.content(image, controls), degradation

    def text(self, tokens: Tensor) -> Tensor:
        """Returns the embedding (B, E) of `tokens` (B, 77), padded with 0, not normalised."""
        states = self.clip.text_model(input_ids=tokens).last_hidden_state
        ends = states[torch.arange(len(tokens), device=tokens.device), tokens.argmax(dim=1)]
        return self.clip.text_projection(ends)

    # p = softmax_w(100 cos(e_deg, text(w)))
    def classify(self, image: Tensor, words: Tensor) -> Tensor:
        """Returns the probability of each degradation, (B, W), for the tokens of W words."""
        _, degradation = self.encode(image)
        cosines = F.normalize(degradation, dim=1) @ F.normalize(self.text(words), dim=1).T
        return (100.0 * cosines).softmax(dim=1)
