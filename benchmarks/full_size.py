"""One optimizer step and one restoration at Stable Diffusion 3.5's full size, with random weights:
time and peak memory.

    python benchmarks/full_size.py                              # SD3.5-medium, 512 x 512, batch 1,
    2 sampling steps; 10 GiB
    python benchmarks/full_size.py --backbone nano --size 128   # a minute, to try it
    python benchmarks/full_size.py --accelerator gpu            # peaks are then those of PyTorch's
    allocator on the GPU

Backbone and VAE have the released models' sizes (lit_mimdit/models/geometries) and random bfloat16
values; the branch is that of the YAML. The backbone is built on the meta device and filled in
place, so it is in memory once.
"""

import argparse
import time
from pathlib import Path

import lightning as L
import torch
import yaml
from diffusers.models.embeddings import PatchEmbed
from torch import nn
from torch.utils.data import DataLoader

from lit_mimdit.data.pairs import collate
from lit_mimdit.models.backbone import Backbone, identify
from lit_mimdit.models.condition import Prompt
from lit_mimdit.models.geometry import meta_backbone, read_geometry
from lit_mimdit.settings import build
from lit_mimdit.systems.mimdit import MiMDiT

GIB = 2**30
# random numbers that fill all weights over and over; a prime, so that no two rows are alike
BLOCK = 1048573


def status(key: str) -> float:
    """A line of /proc/self/status in GiB.

    VmHWM is the peak of the resident memory, VmRSS what it is now.
    """
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{key}:")[1].split()[0]) * 1024 / GIB


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak() -> float:
    """GiB since `reset_peak`, of the GPU if it is used."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() / GIB
    return status("VmHWM")


@torch.no_grad()
def fill(model: nn.Module) -> None:
    """Random values of variance 1 / fan-in in place of the meta device's nothing; norms 1, biases
    0.
    """
    model.to_empty(device="cpu")
    block = torch.randn(BLOCK, generator=torch.Generator().manual_seed(0))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
            continue
        values = (block * parameter[0].numel() ** -0.5).to(parameter.dtype)
        for part in parameter.view(-1).split(BLOCK):
            part.copy_(values[: len(part)])


def random_backbone(source: str) -> Backbone:
    """`source` with random weights in bfloat16 and its own table of positions."""
    loaded = meta_backbone(source, read_geometry(source), torch.bfloat16)
    fill(loaded.transformer)
    fill(loaded.vae)
    sizes = loaded.transformer.config
    width = sizes.num_attention_heads * sizes.attention_head_dim
    table = PatchEmbed(
        sizes.sample_size,
        sizes.sample_size,
        sizes.patch_size,
        sizes.in_channels,
        width,
        pos_embed_max_size=sizes.pos_embed_max_size,
    )
    loaded.transformer.pos_embed.pos_embed.copy_(table.pos_embed)
    loaded.prompt = Prompt(
        *(torch.randn(tensor.shape, dtype=torch.bfloat16) for tensor in loaded.prompt)
    )
    loaded.identity = identify(source, loaded.transformer)
    return loaded


class Clock(L.Callback):
    """Prints when forward, backward and optimizer step are done."""

    def on_train_batch_start(self, *_) -> None:
        self.started = time.perf_counter()

    def on_before_backward(self, *_) -> None:
        report("  VAE and forward", self.started)
        self.started = time.perf_counter()

    def on_after_backward(self, *_) -> None:
        report("  backward", self.started)
        self.started = time.perf_counter()

    def on_train_batch_end(self, *_) -> None:
        report("  optimizer step", self.started)


def report(what: str, started: float) -> None:
    used = peak()  # waits for a GPU
    print(f"{what:24} {time.perf_counter() - started:8.2f} s   peak {used:6.2f} GiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="experiments/foundir_sd35_medium.yaml")
    parser.add_argument("--backbone", default="stabilityai/stable-diffusion-3.5-medium")
    parser.add_argument("--accelerator", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--size", type=int, default=512, help="pixels")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2, help="of sampling")
    args = parser.parse_args()
    with open(args.config) as file:
        settings = yaml.safe_load(file)["model"]["init_args"]
    settings |= {
        "backbone": args.backbone,
        "backbone_dtype": "bfloat16",
        "gradient_checkpointing": True,
    }
    settings["sampling"] |= {"steps": args.steps, "tile": args.size, "overlap": 0}
    torch.manual_seed(0)
    print(
        f"{args.backbone}, {args.size} px, batch {args.batch}, {torch.get_num_threads()} threads;"
        f" before: {status('VmRSS'):.2f} GiB"
    )

    started = time.perf_counter()
    module = build(MiMDiT, settings)
    module.assemble(random_backbone(args.backbone))
    parts = {
        "backbone": module.network.backbone,
        "VAE": module.vae,
        "branch (trained)": module.network.branch,
    }
    sizes = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in parts.items()}
    print(", ".join(f"{name} {size:,.2f} M" for name, size in sizes.items()))
    report("build and fill", started)

    images = torch.rand(args.batch, 2, 3, args.size, args.size)
    about = {"degradation": "01Blur", "dataset": "", "id": "0001"}
    samples = [{"lq": lq, "gt": gt, "seed": 7 + row} | about for row, (lq, gt) in enumerate(images)]
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = L.Trainer(
        accelerator=args.accelerator,
        devices=1,
        max_steps=1,
        precision="bf16-mixed",
        gradient_clip_val=1.0,
        callbacks=[Clock()],
        **quiet,
    )
    before = {
        name: p.detach().clone() for name, p in module.network.branch.mims[0].named_parameters()
    }
    reset_peak()
    started = time.perf_counter()
    trainer.fit(module, DataLoader(samples, batch_size=args.batch, collate_fn=collate))
    report("one optimizer step", started)
    moved = [
        name
        for name, p in module.network.branch.mims[0].named_parameters()
        if not torch.equal(p, before[name])
    ]
    print(
        f"loss {float(trainer.callback_metrics['train/loss']):.4f}; of the first MiM's"
        f" {len(before)} parameters {len(moved)} moved"
    )

    trainer.strategy.teardown()
    module.network.branch.zero_grad()
    del trainer
    reset_peak()
    started = time.perf_counter()
    module.to("cuda" if args.accelerator == "gpu" else "cpu")
    restored, _ = module.eval().restorer(images[:1, 0], torch.tensor([1]))
    report(f"restoration, {args.steps} steps", started)
    print(f"restored {tuple(restored.shape)}, all finite: {bool(restored.isfinite().all())}")


if __name__ == "__main__":
    main()
