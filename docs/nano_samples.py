"""Draws docs/nano_samples.png: 64 unconditional samples of the nano prior, 64 x 64 pixels each.

python docs/nano_samples.py --steps 40 --seed 0
"""

import argparse
from pathlib import Path

import torch
from PIL import Image

from lit_mimdit.inference.sampler import SamplingConfig, sample
from lit_mimdit.models.backbone import load_backbone
from lit_mimdit.models.branch_config import BranchConfig
from lit_mimdit.models.flow import sample_noise
from lit_mimdit.models.latents import decode, downsampling
from lit_mimdit.models.network import MiMDiTNetwork


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument(
        "--seed", type=int, default=0, help="of the first sample; the others follow"
    )
    parser.add_argument("--output", type=Path, default=Path("docs/nano_samples.png"))
    args = parser.parse_args()
    loaded = load_backbone("nano")
    network = MiMDiTNetwork(
        loaded.transformer, BranchConfig(width=16, heads=2), loaded.prompt
    ).eval()  # its branch is not asked
    side = 64 // downsampling(loaded.vae)
    noise, _ = sample_noise(
        torch.arange(args.seed, args.seed + 64), (loaded.vae.config.latent_channels, side, side)
    )
    config = SamplingConfig(steps=args.steps)
    latent = sample(
        lambda x, t: network(x, torch.full((64,), t), None), noise, noise, loaded.scheduler, config
    )
    images = (decode(loaded.vae, latent) * 255).round().byte()  # (64, 3, 64, 64)
    sheet = images.view(8, 8, 3, 64, 64).permute(0, 3, 1, 4, 2).reshape(512, 512, 3)
    Image.fromarray(sheet.numpy()).save(args.output, optimize=True)


if __name__ == "__main__":
    main()
