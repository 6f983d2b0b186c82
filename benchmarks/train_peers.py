"""A training step of a MiM branch against one of a ControlNet on the same frozen backbone, 512 x
512 pixels: time and peak memory.

    python benchmarks/train_peers.py --size nano
    python benchmarks/train_peers.py --size mid --rounds 3
    python benchmarks/train_peers.py --size mid --checkpointing
    python benchmarks/train_peers.py --size mid --blocks 4 --rounds 1
    python benchmarks/train_peers.py --size medium --checkpointing --device cuda

A step is: condition, velocity, loss, backward, Adam, all on random latents, the trained weights in
float32 under bfloat16 autocast if the backbone is bfloat16. Every system runs in a process of its
own, so that its peak (VmHWM) is its own; what the bare process and the backbone need is in it; on a
GPU the peak is what PyTorch allocated. Times on a CPU are CPU seconds; medians after a first step
that is thrown away.
"""

import argparse
import json
import statistics
import subprocess
import sys

import torch
from clock import name as name_of
from clock import peak, timed, unit
from peers import SIZES, Size, cut, random_prompt, random_transformer
from torch import nn
from tqdm import tqdm

from lit_mimdit.models.flow import interpolate, velocity
from lit_mimdit.models.network import ConditionedBackbone, MiMDiTNetwork
from lit_mimdit.systems.controlnet import ControlNetConfig, ControlNetDiT


def build(name: str, size: Size, device: torch.device) -> ConditionedBackbone:
    torch.manual_seed(0)
    transformer, prompt = random_transformer(size, device), random_prompt(size).to(device)
    if name == "MiM-DiT":
        network: ConditionedBackbone = MiMDiTNetwork(transformer, size.branch, prompt)
        for block in network.branch.mims:
            nn.init.normal_(block.zero_linear.weight, std=0.02)
        return network
    network = ControlNetDiT(transformer, ControlNetConfig(int(name.split()[1])), prompt)
    network.branch.float()
    for layer in (*network.branch.net.controlnet_blocks, network.branch.net.pos_embed_input.proj):
        nn.init.normal_(layer.weight, std=0.02)
    return network


def one(name: str, size: Size, args: argparse.Namespace) -> dict:
    """Times and peak of one system, in this process."""
    device = args.device
    network = build(name, size, device).to(device)
    if args.checkpointing:
        network.enable_gradient_checkpointing()
    optimizer = torch.optim.Adam(network.branch.parameters(), lr=1e-5)
    generator = torch.Generator().manual_seed(2)
    z_gt, z_lq, noise = torch.randn(
        3, size.tiles, 16, size.side, size.side, generator=generator
    ).to(device)
    t = torch.full((size.tiles,), 0.5, device=device)
    seconds = []

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=size.dtype == torch.bfloat16):
            predicted = network(interpolate(z_gt, noise, t), t, network.condition(z_lq))
        (predicted - velocity(z_gt, noise)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(args.rounds + 1):
        seconds.append(timed(device, step)[0])
    trained = sum(p.numel() for p in network.branch.parameters()) / 1e6
    return {"seconds": statistics.median(seconds[1:]), "peak": peak(device), "trained": trained}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="mid")
    parser.add_argument("--blocks", type=int, help="of the backbone, if not all of the size's")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument(
        "--checkpointing", action="store_true", help="recompute activations in the backward pass"
    )
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    size = cut(SIZES[args.size], args.blocks)
    if args.alone:
        print(json.dumps(one(args.alone, size, args)))
        return
    blocks = size.transformer["num_layers"]
    names = ["MiM-DiT", f"ControlNet, {blocks // 2} layers", f"ControlNet, {blocks - 1} layers"]
    found = {}
    for name in tqdm(names, unit="system"):
        command = [sys.executable, *sys.argv, "--alone", name]
        found[name] = json.loads(
            subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True
            ).stdout.splitlines()[-1]
        )
    print(
        f"{args.size}, {blocks} blocks, {name_of(args.device)}, checkpointing:"
        f" {args.checkpointing}, median of {args.rounds}"
    )
    print(
        f"| system | trained | a step ({unit(args.device)}) | to MiM-DiT | peak (GiB)"
        " |\n|---|---:|---:|---:|---:|"
    )
    for name, row in found.items():
        share = row["seconds"] / found["MiM-DiT"]["seconds"]
        print(
            f"| {name} | {row['trained']:.1f} M | {row['seconds']:.2f} | {share:.2f} |"
            f" {row['peak']:.2f} |"
        )


if __name__ == "__main__":
    main()
