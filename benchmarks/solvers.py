"""How near each solver comes to the end of the path, by network evaluations: the shipped nano on
degraded photographs, beside 1,000 steps of Euler's method from the same noise.

    python benchmarks/solvers.py --data data/sample --count 4

The error is the root mean square of the latents' difference; latents have about unit variance. The
last column is the PSNR of the decoded images against those of the 1,000 steps, in dB. Restoring
needs no such precision, and PSNR against the clean image may fall with it: see
benchmarks/sampling_quality.py.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from lit_mimdit.data.image_io import read_rgb, to_tensor
from lit_mimdit.data.layouts import read_layout, require_complete
from lit_mimdit.inference.guidance import conditioned
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.sampler import sample
from lit_mimdit.models.flow import sample_noise
from lit_mimdit.models.latents import decode, encode

EVALUATIONS = (4, 8, 12, 20)
SOLVERS = ("euler", "heun", "dpmpp_2m", "unipc")


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data/sample"))
    parser.add_argument("--count", type=int, default=4, help="photographs")
    parser.add_argument("--size", type=int, default=64, help="pixels a side, from the middle")
    parser.add_argument("--reference", type=int, default=1000, help="Euler steps")
    args = parser.parse_args()
    pairs = require_complete(read_layout("foundir", args.data, meta=args.data / "test.txt"))
    pairs = pairs[:: max(1, len(pairs) // args.count)][: args.count]
    images = [to_tensor(read_rgb(pair.lq)) for pair in pairs]
    corners = [[(side - args.size) // 2 for side in image.shape[-2:]] for image in images]
    lq = torch.stack(
        [
            image[:, top : top + args.size, left : left + args.size]
            for image, (top, left) in zip(images, corners, strict=True)
        ]
    )
    restorer = load_restorer(device="cpu")
    prompt = restorer.network.prompt
    z_lq = encode(restorer.vae, lq)
    velocity = conditioned(restorer.network, z_lq, prompt, 1.0).velocity
    noise = sample_noise(torch.arange(len(lq)), tuple(z_lq.shape[1:]))[0]

    def end(solver: str, steps: int) -> torch.Tensor:
        config = replace(restorer.config, solver=solver, steps=steps)
        return sample(velocity, z_lq, noise, restorer.scheduler, config)

    reference = end("euler", args.reference)
    shown = decode(restorer.vae, reference)
    print(f"{len(lq)} photographs of {args.size} px, error beside {args.reference} Euler steps")
    print("| evaluations | " + " | ".join(f"{name} | dB" for name in SOLVERS) + " |")
    print("|---:|" + "---:|---:|" * len(SOLVERS))
    for count in EVALUATIONS:
        cells = []
        for name in SOLVERS:
            latent = end(name, (count + 1) // 2 if name == "heun" else count)
            error = (latent - reference).square().mean().sqrt().item()
            mean = (decode(restorer.vae, latent) - shown).square().mean()
            cells += [f"{error:.3f}", f"{-10 * mean.log10().item():.1f}"]
        print(f"| {count} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
