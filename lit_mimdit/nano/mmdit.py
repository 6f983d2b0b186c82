"""The nano MM-DiT is a small SD3Transformer2DModel of diffusers.

It is trained as a prior on latents of photographs.
"""

import copy
from pathlib import Path
from typing import Any

import lightning as L
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lit_mimdit.models.flow import (
    FlowConfig,
    gaussian_baseline,
    interpolate,
    loss_per_sample,
    sample_noise,
    sample_times,
    velocity,
)
from lit_mimdit.models.injection import BlockCondition, hidden_states, install, project_condition
from lit_mimdit.models.latents import downsampling, encode
from lit_mimdit.nano.hints import WIDTH, hints
from lit_mimdit.nano.references import kept_tokens, reference_latents
from lit_mimdit.systems.latent import EVERY_KERNEL
from lit_mimdit.systems.optim import OptimizerConfig, configure_for

CONTEXTS = ("empty", "hints", "reference")  # what a training batch is told


class NanoMMDiT(L.LightningModule):
    """Rectified flow on latents of photograph crops: with an empty prompt, with colour hints for a
    caption, or with a reference image.

    Args:
        vae: folder of the trained VAE.
        optimizer: settings of the optimizer and its schedule.
        flow: settings of the times and of the loss.
        output: folder into which the backbone is written, in SD3.5's format: transformer, vae,
            scheduler and `null` prompt.
        layers: transformer blocks.
        heads: attention heads.
        head_dim: channels of a head.
        dual_layers: number of the first blocks that have SD3.5's second, image-only attention.
        sample_size: side of the latents the positions are scaled for.
        positions: largest token grid side.
        text_tokens: length of the (empty) prompt.
        hint_share: share of an image's tokens that its caption tells of.
        context: probabilities of a training batch with the empty prompt, with hints, and with a
            reference. They sum to 1.
        sampling_shift: shift of the scheduler that is written beside the transformer.
    """

    ENDS_AVERAGED = True  # the EMA callback leaves its average for the folder that is written

    def __init__(
        self,
        vae: str,
        optimizer: OptimizerConfig,
        output: str,
        flow: FlowConfig | None = None,
        layers: int = 6,
        heads: int = 6,
        head_dim: int = 32,
        dual_layers: int = 3,
        sample_size: int = 16,
        positions: int = 32,
        text_tokens: int = 4,
        hint_share: float = 0.25,
        context: tuple[float, float, float] = (0.25, 0.15, 0.6),
        sampling_shift: float = 1.0,
    ) -> None:
        super().__init__()
        if not (Path(vae) / "config.json").is_file():
            raise ValueError(
                f"model.vae: no VAE in {vae!r}; train one first: python -m lit_mimdit fit -c"
                " experiments/nano/vae.yaml"
            )
        self.flow = flow or FlowConfig()
        self.optimizer_config = optimizer
        self.output = output
        self.sampling_shift = sampling_shift
        self.vae = AutoencoderKL.from_pretrained(vae).requires_grad_(False).eval()
        self.transformer = SD3Transformer2DModel(
            sample_size=sample_size,
            in_channels=self.vae.config.latent_channels,
            out_channels=self.vae.config.latent_channels,
            num_layers=layers,
            attention_head_dim=head_dim,
            num_attention_heads=heads,
            joint_attention_dim=WIDTH,
            caption_projection_dim=heads * head_dim,
            pooled_projection_dim=WIDTH,
            pos_embed_max_size=positions,
            dual_attention_layers=tuple(range(dual_layers)),
            qk_norm="rms_norm",
        )
        self.initialise()
        install(self.transformer)
        if min(context) < 0 or abs(sum(context) - 1) > 1e-6:
            raise ValueError(
                f"model.context is {context}: give probabilities of {', '.join(CONTEXTS)} that sum"
                " to 1"
            )
        self.text_tokens = text_tokens
        self.hint_share = hint_share
        self.context = context

    @torch.no_grad()
    def initialise(self) -> None:
        """Every block starts as the identity and the output at 0 (adaLN-Zero, Peebles and Xie,
        arXiv 2212.09748).
        """
        for block in self.transformer.transformer_blocks:
            for norm in (block.norm1, block.norm1_context):
                norm.linear.weight.zero_()
                norm.linear.bias.zero_()
        self.transformer.norm_out.linear.weight.zero_()
        self.transformer.norm_out.linear.bias.zero_()
        self.transformer.proj_out.weight.zero_()
        self.transformer.proj_out.bias.zero_()

    def train(self, mode: bool = True) -> "NanoMMDiT":
        super().train(mode)
        self.vae.eval()
        return self

    def empty_prompt(self, batch: int) -> Tensor:
        """Returns embeddings (B, text_tokens, 64) of the empty prompt: zeros."""
        return torch.zeros(batch, self.text_tokens, WIDTH, device=self.device)

    def predict_velocity(
        self,
        x_t: Tensor,
        t: Tensor,
        embeds: Tensor,
        condition: tuple[BlockCondition, ...] | None = None,
    ) -> Tensor:
        """Returns the velocity of latents.

        Args:
            x_t: noisy latents (B, C, h, w).
            t: their times (B,) in [0, 1].
            embeds: text embeddings (B, text_tokens, 64).
            condition: keys and values of a reference, for each block; None: of nothing.

        Returns:
            (B, C, h, w).
        """
        pooled = torch.zeros_like(embeds[:, 0])
        kwargs = None if condition is None else {"condition": condition}
        return self.transformer(
            x_t,
            encoder_hidden_states=embeds,
            pooled_projections=pooled,
            timestep=1000.0 * t,
            joint_attention_kwargs=kwargs,
            return_dict=False,
        )[0]

    def reference(self, images: Tensor, draw: torch.Generator) -> tuple[BlockCondition, ...]:
        """Returns keys and values of a reference for images (B, 3, S, S) in [0, 1], as the branch's
        `base: reference` makes them.

        Its hidden states have no gradient, its keys and values do.
        """
        embeds = self.empty_prompt(len(images))
        clean = torch.zeros(len(images), device=self.device)
        latents = reference_latents(self.vae, images, draw)
        states = hidden_states(
            self.transformer, latents, clean, embeds, torch.zeros_like(embeds[:, 0])
        )
        kept = kept_tokens(states[0].shape[1], draw).to(self.device)
        blocks = self.transformer.transformer_blocks
        return tuple(
            project_condition(block.attn, state[:, kept])
            for block, state in zip(blocks, states, strict=True)
        )

    def losses(
        self, images: Tensor, seed: int, context: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns the loss (B,) and time (B,) of images (B, 3, S, S) in [-1, 1]; `context` is one
        of CONTEXTS, None draws one.
        """
        draw = torch.Generator().manual_seed(seed)
        drawn = CONTEXTS[int(torch.multinomial(torch.tensor(self.context), 1, generator=draw))]
        context = context or drawn
        condition = None
        embeds = self.empty_prompt(len(images))
        if context == "hints":
            token = downsampling(self.vae) * self.transformer.config.patch_size
            embeds = hints(images, token, self.hint_share, draw)
        elif context == "reference":
            condition = self.reference(images * 0.5 + 0.5, draw)
        x0 = encode(self.vae, images * 0.5 + 0.5)
        seeds = torch.arange(len(x0)) + seed * 1_000_003
        noise, normal = sample_noise(seeds, tuple(x0.shape[1:]))
        noise, t = noise.to(x0), sample_times(normal, self.flow).to(x0.device)
        predicted = self.predict_velocity(interpolate(x0, noise, t), t, embeds, condition)
        return loss_per_sample(predicted, velocity(x0, noise), t, self.flow.weighting), t

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        kernels = [SDPBackend.MATH] if self.device.type == "cpu" else EVERY_KERNEL
        with sdpa_kernel(kernels):
            loss, _ = self.losses(batch, self.global_step)
        self.log("train/loss", loss.mean(), prog_bar=True)
        return loss.mean()

    def validation_step(self, batch: Tensor, index: int) -> None:
        for context in CONTEXTS:
            loss, t = self.losses(batch, 10**9 + index, context)
            self.log(f"val/loss_{context}", loss.mean(), prog_bar=True, batch_size=len(batch))
            for low in range(0, 10, 2):
                rows = (t * 10 >= low) & (t * 10 < low + 2)
                if rows.any():
                    self.log(
                        f"val/loss_{context}_t{low / 10:.1f}-{(low + 2) / 10:.1f}",
                        loss[rows].mean(),
                        batch_size=int(rows.sum()),
                    )
        self.log("val/loss_of_gaussian", gaussian_baseline(t).mean(), batch_size=len(batch))

    def configure_optimizers(self) -> dict[str, Any]:
        return configure_for(self.trainer, self.named_parameters(), self.optimizer_config)

    def on_fit_end(self) -> None:
        if not self.trainer.is_global_zero or self.trainer.fast_dev_run:
            return
        folder = Path(self.output)
        copy.deepcopy(self.transformer).half().save_pretrained(folder / "transformer")
        copy.deepcopy(self.vae).half().save_pretrained(folder / "vae")
        FlowMatchEulerDiscreteScheduler(shift=self.sampling_shift).save_pretrained(
            folder / "scheduler"
        )
        empty = self.empty_prompt(1).cpu()
        save_file(
            {"embeds": empty, "pooled": torch.zeros_like(empty[:, 0])},
            folder / "null_prompt.safetensors",
        )
