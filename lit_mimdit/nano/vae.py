"""The nano VAE is diffusers' AutoencoderKL with SD3.5's 16 latent channels.

It is trained to reconstruct photographs.
"""

import copy
from pathlib import Path
from typing import Any

import lightning as L
import torch
from diffusers import AutoencoderKL

from lit_mimdit.evaluation.pixel import psnr
from lit_mimdit.systems.optim import OptimizerConfig, configure_for


def latent_statistics(latents: torch.Tensor) -> tuple[float, float]:
    """(scaling_factor, shift_factor) that make (z - shift) * scaling zero-mean and of unit variance
    over all of `latents`.
    """
    return (1.0 / latents.double().std()).item(), latents.double().mean().item()


class NanoVAE(L.LightningModule):
    """Reconstruction training: L1 on pixels and on their differences, plus a small KL term.

    Args:
        channels: width of each resolution level. Each level but the last halves the image.
        layers: residual blocks of a level.
        norm_groups: groups of the group norms.
        latent_channels: channels of a latent; SD3.5 has 16.
        kl_weight: weight of `KL(q(z|x) || N(0, 1))`, averaged over latent elements.
        gradient_weight: weight of the L1 on horizontal and vertical differences, which keeps edges
            sharp.
        optimizer: settings of the optimizer and its schedule.
        output: folder into which the finished VAE is written, in diffusers' format.
    """

    def __init__(
        self,
        optimizer: OptimizerConfig,
        output: str,
        channels: tuple[int, ...] = (32, 64, 128),
        layers: int = 1,
        norm_groups: int = 8,
        latent_channels: int = 16,
        kl_weight: float = 1e-6,
        gradient_weight: float = 0.5,
    ) -> None:
        super().__init__()
        self.optimizer_config, self.output = optimizer, output
        self.kl_weight, self.gradient_weight = kl_weight, gradient_weight
        self.vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * len(channels),
            up_block_types=("UpDecoderBlock2D",) * len(channels),
            block_out_channels=tuple(channels),
            layers_per_block=layers,
            norm_num_groups=norm_groups,
            latent_channels=latent_channels,
            mid_block_add_attention=False,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        posterior = self.vae.encode(batch).latent_dist
        output = self.vae.decode(posterior.sample()).sample
        difference = output - batch
        loss = difference.abs().mean()
        loss = loss + self.gradient_weight * (
            difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
        )
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1.0 - posterior.logvar).mean()
        self.log_dict({"train/l1": difference.abs().mean(), "train/kl": kl}, prog_bar=True)
        return loss + self.kl_weight * kl

    def validation_step(self, batch: torch.Tensor, index: int) -> None:
        mean = self.vae.encode(batch).latent_dist.mode()
        output = self.vae.decode(mean).sample.clamp(-1, 1)
        score = psnr((output + 1) / 2, (batch + 1) / 2)
        self.log("val/psnr_db", score.mean().float(), prog_bar=True, batch_size=len(batch))

    def configure_optimizers(self) -> dict[str, Any]:
        return configure_for(self.trainer, self.named_parameters(), self.optimizer_config)

    def on_fit_end(self) -> None:
        if self.trainer.is_global_zero and not self.trainer.fast_dev_run:
            with torch.no_grad():
                batches = self.trainer.datamodule.val_dataloader()
                latents = [
                    self.vae.encode(batch.to(self.device)).latent_dist.mode().float().cpu()
                    for batch in batches
                ]
            scaling, shift = latent_statistics(torch.cat(latents))
            self.vae.register_to_config(scaling_factor=scaling, shift_factor=shift)
            copy.deepcopy(self.vae).half().save_pretrained(
                Path(self.output)
            )  # float16: half the bytes, no visible difference
