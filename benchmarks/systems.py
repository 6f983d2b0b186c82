"""Time and memory of every compared system at its published size, beside a bare SD3.5-medium step.

    python benchmarks/systems.py --memory 14                  # 512 px; an hour of a quiet core
    python benchmarks/systems.py --only PromptIR DiffUIR      # these rows alone
    python benchmarks/systems.py --small --size 64            # small versions, to try it
    python benchmarks/systems.py --device cuda

All weights are random. Sizes, objectives and precisions are those of
experiments/systems/NAME.yaml. The unit of all times is one evaluation of the bare transformer,
which is timed first and last, in the same run. Every part runs in a process of its own, so what
does not fit costs one cell, and a peak is one part's: on a CPU the most resident memory of the
process, on a GPU what PyTorch had allocated.

A restoration is that of one whole image. Samplers take `--steps` steps, and the other published
steps are added at the median of those that were timed. AutoDIR's is one iteration, for one
degradation. A training step is one pair, with its optimizer's step, as Lightning does it.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning as L
import torch
import yaml
from clock import name as name_of
from clock import peak, timed, unit
from full_size import random_backbone
from torch import nn
from torch.utils.data import DataLoader

from lit_mimdit.data.pairs import collate
from lit_mimdit.estimate import meta_system, simulate, sizes_of
from lit_mimdit.models.backbone import load_backbone
from lit_mimdit.systems.airnet import AirNet
from lit_mimdit.systems.autodir import AutoDIR, sampler
from lit_mimdit.systems.base import RestorationSystem
from lit_mimdit.systems.daclip import DACLIP
from lit_mimdit.systems.diffir import DiffIR
from lit_mimdit.systems.dit4sr import DiT4SR
from lit_mimdit.systems.latent import LatentSystem
from lit_mimdit.systems.residual import ResidualSystem
from lit_mimdit.systems.transweather import TransWeather
from lit_mimdit.systems.vgg import VGGFeatures
from lit_mimdit.training.dry_run import typed
from lit_mimdit.training.strategy_memory import static

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
MEDIUM = "stabilityai/stable-diffusion-3.5-medium"
BARE = "bare SD3.5-medium"  # with --small, nano
GIB = 2**30
PROCESS = 1.0  # GiB of Python and its libraries, which no estimate knows
# name: (recipe of the published size, of a small one), below experiments/
RECIPES = {
    "MiM-DiT": ("foundir_sd35_medium.yaml", "quickstart.yaml"),
    "ControlNet": ("foundir_sd35_medium.yaml", "nano/controlnet.yaml"),
    **{
        name: (f"systems/{file}.yaml", f"systems/nano/{file}.yaml")
        for name in ("AirNet", "DGUNet", "TransWeather", "PromptIR", "DiffIR", "DiffUIR", "DA-CLIP")
        for file in [name.lower().replace("-", "")]
    },
    "AutoDIR": ("systems/autodir.yaml", "systems/autodir.yaml"),
    "FoundIR": ("systems/foundir.yaml", "systems/nano/foundir.yaml"),
    "DiT4SR": ("systems/dit4sr.yaml", "systems/nano/dit4sr.yaml"),
}
NAMES = [BARE, *RECIPES]
LAYERS = 12  # of the published ControlNet for SD3.5-medium with half of the blocks
SMALL_AUTODIR = {  # its recipe is of the authors' file, which has one size
    "unet": {"widths": [32, 64], "attended": [True, False], "layers": 1, "context": 8},
    "vae": {"widths": [32, 64], "layers": 1},
    "text": {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
    | {"num_attention_heads": 1, "projection_dim": 8},
    "vision": {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
    | {"num_attention_heads": 1, "projection_dim": 8, "image_size": 16, "patch_size": 8},
    "correction": {"width": 4, "enc_blk_nums": [1, 1], "middle_blk_num": 1, "dec_blk_nums": [1, 1]},
}


@dataclass(frozen=True)
class Recipe:
    """A system as its YAML says it, for one image of `size` pixels a step.

    kind, arguments: the system. precision: of training. steps: published evaluations of the network
    in one restoration, or 0 where it has no steps. crop: side of the images that training takes.
    """

    kind: type[RestorationSystem]
    arguments: dict[str, Any]
    precision: str
    steps: int
    crop: int


def recipe_of(name: str, size: int, steps: int, small: bool) -> Recipe:
    """Returns what a row runs: the recipe, with whole images and `steps` steps of sampling."""
    config = yaml.safe_load((EXPERIMENTS / RECIPES[name][small]).read_text())
    model, given = config["model"], config["model"]["init_args"]
    if name == "ControlNet" and not small:
        model["class_path"] = "lit_mimdit.systems.controlnet.ControlNet"
        given["branch"] = {"layers": LAYERS}
        del given["balance"]
    if name == "AutoDIR" and small:
        given["sizes"] = SMALL_AUTODIR
    if "prompt" in given:
        given["prompt"] = None  # random numbers stand for the text
    guided = (given.get("sampling") or {}).get("guidance", 1.0) != 1.0
    if "sampling" in given:
        given["sampling"] |= {"guidance": 1.0, "overview": 0}
    kind, arguments = typed(model)
    published = 0
    if issubclass(kind, LatentSystem):
        sampling = arguments["sampling"]
        published = sampling.steps * (2 if guided else 1)
        arguments["sampling"] = replace(sampling, steps=steps, tile=size, overlap=0)
        arguments["fidelity"] = None
    elif "steps" in arguments:
        published = arguments["steps"] or arguments["train_steps"]
        arguments["steps"] = steps
    if "tile" in arguments:
        arguments["tile"] = 0
    if arguments.get("optimizer") is not None:  # published rates count epochs
        arguments["optimizer"] = replace(arguments["optimizer"], schedule="constant")
    if kind is AirNet:  # two crops of `size`; the second stage is the longer one
        arguments |= {"patch": size, "encoder_epochs": 0}
    if kind is DiffIR:
        arguments |= {"progressive": False, "first_stage": "random"}
    if kind is DACLIP:
        arguments["controller"] = "random"
    crop = 2 * size if kind is AirNet else size  # it needs room for two different crops
    return Recipe(kind, arguments, str(config["trainer"]["precision"]), published, crop)


def build(recipe: Recipe) -> RestorationSystem:
    """Returns the system with random weights."""
    torch.manual_seed(0)
    system = recipe.kind(**recipe.arguments)
    if isinstance(system, LatentSystem):
        source = system.backbone_name
        small = source == "nano"
        system.assemble(load_backbone(source) if small else random_backbone(source))
    for taken in ("_first_stage_taken", "_clip_read"):  # of DiffIR and DA-CLIP: no file is read
        if hasattr(system, taken):
            setattr(system, taken, True)
    if isinstance(system, DiT4SR):  # random numbers stand for its captions, too
        system._training_prompts = system.prompts
    if isinstance(system, TransWeather):
        system.features = VGGFeatures()
    return system


def stepped(system: RestorationSystem) -> nn.Module | None:
    """The network that a sampler evaluates at every step; None for what has no steps."""
    if isinstance(system, LatentSystem):
        return system.network
    if isinstance(system, ResidualSystem):
        return system.process.unet
    return system.network.unet if isinstance(system, DACLIP | AutoDIR) else None


def now(device: torch.device) -> float:
    """Seconds of the process, or on a GPU those of the clock once it is idle."""
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


class Evaluations:
    """Times every evaluation of a network; `seconds` has one number for each."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.seconds: list[float] = []
        self.device = device
        network.register_forward_pre_hook(self._start)
        network.register_forward_hook(self._end)

    def _start(self, *_: Any) -> None:
        self.started = now(self.device)

    def _end(self, *_: Any) -> None:
        self.seconds.append(now(self.device) - self.started)


def bare(size: int, rounds: int, small: bool, device: torch.device) -> dict[str, Any]:
    """One evaluation of the frozen transformer alone: the unit of the table."""
    loaded = load_backbone("nano") if small else random_backbone(MEDIUM)
    model, prompt = loaded.transformer.to(device).eval(), loaded.prompt.to(device)
    side = size // 2 ** (len(loaded.vae.config.block_out_channels) - 1)

    @torch.no_grad()
    def step(side: int) -> None:
        x = torch.randn(1, 16, side, side, dtype=model.dtype, device=device)
        t = torch.full((1,), 500.0, dtype=model.dtype, device=device)
        model(x, prompt.embeds.to(model.dtype), prompt.pooled.to(model.dtype), t)

    step(8)
    seconds = [timed(device, lambda: step(side))[0] for _ in range(rounds)]
    return {"evaluation": statistics.median(seconds), "peak": peak(device)}


@patch.object(sampler, "ITERATIONS", 1)  # of AutoDIR
def restoration(recipe: Recipe, size: int, rounds: int, device: torch.device) -> dict[str, Any]:
    """One restored image: the whole, one evaluation, and the peak."""
    system = build(recipe).to(device).eval()
    image = torch.rand(1, 3, size, size)
    system.restorer()(image[..., :64, :64], torch.tensor([0]))  # touches all weights
    network = stepped(system)
    clock = None if network is None else Evaluations(network, device)
    seconds, evaluations, others = [], [], []
    for _ in range(rounds):
        whole, _ = timed(device, lambda: system.restorer()(image, torch.tensor([0])))
        if clock is not None:
            if not clock.seconds:
                raise ValueError("nothing was sampled: with these weights CLIP finds no fault")
            others.append(whole - sum(clock.seconds))
            evaluations += clock.seconds
            clock.seconds = []
        seconds.append(whole)
    found: dict[str, Any] = {"peak": peak(device), "whole": statistics.median(seconds)}
    if evaluations:
        found["evaluation"] = statistics.median(evaluations)
        found["whole"] = statistics.median(others) + recipe.steps * found["evaluation"]
    return found


class StepClock(L.Callback):
    """Times each training step from its batch to the end of the optimizer's step."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self.started = now(self.device)

    def on_train_batch_end(self, *_: Any) -> None:
        self.seconds.append(now(self.device) - self.started)


def needed(recipe: Recipe, device: torch.device) -> float:
    """GiB that a training step is estimated to take, by the dry run's rules."""
    common = {"precision": recipe.precision}
    gpu = device.type == "cuda"
    step = simulate(recipe.kind, recipe.arguments, batch=1, crop=recipe.crop, gpu=gpu, **common)
    sizes = sizes_of(meta_system(recipe.kind, recipe.arguments))
    kept = static(sizes, stage=0, offload=False, world=1, average=False, **common)
    return (kept.total + step.activations) / GIB


def free(device: torch.device) -> float:
    """GiB of memory that nothing uses."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / GIB
    text = Path("/proc/meminfo").read_text()
    return int(text.split("MemAvailable:")[1].split()[0]) / 2**20


def training(recipe: Recipe, rounds: int, device: torch.device, memory: float) -> dict[str, Any]:
    """One training step and its peak, or the reason why there is none."""
    if not recipe.kind.TRAINABLE:
        return {"reason": "not trained"}
    estimate = needed(recipe, device)
    if estimate + PROCESS > min(memory, free(device)):
        return {"reason": "not run", "needed": estimate}
    system = build(recipe)
    images = torch.rand(rounds, 2, 3, recipe.crop, recipe.crop)
    about = {"degradation": "01Blur", "dataset": "", "id": "0001"}
    samples = [{"lq": lq, "gt": gt, "seed": 7 + row} | about for row, (lq, gt) in enumerate(images)]
    clock = StepClock(device)
    trainer = L.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        max_steps=rounds,
        precision=recipe.precision,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(system, DataLoader(samples, batch_size=1, collate_fn=collate))
    assert len(clock.seconds) == rounds
    seconds = clock.seconds[1:] if rounds > 1 else clock.seconds
    return {"seconds": statistics.median(seconds), "peak": peak(device), "needed": estimate}


def one(args: argparse.Namespace) -> dict[str, Any]:
    """A part of one row, in this process."""
    name, part = args.alone
    if name == BARE:
        return bare(args.size, args.rounds, args.small, args.device)
    recipe = recipe_of(name, args.size, args.steps, args.small)
    if part == "restoration":
        found = restoration(recipe, args.size, args.rounds, args.device)
        return found | {"steps": recipe.steps, "parameters": parameters(recipe)}
    return training(recipe, args.rounds, args.device, args.memory)


def parameters(recipe: Recipe) -> float:
    """Millions of all parameters, frozen ones included."""
    sizes = sizes_of(meta_system(recipe.kind, recipe.arguments))
    return (sizes.trained + sizes.frozen) / 1e6


def in_process(args: argparse.Namespace, name: str, part: str) -> dict[str, Any]:
    """A part of one row in a process of its own, or the reason why it gave none."""
    command = [sys.executable, __file__, "--alone", name, part]
    for key in ("size", "steps", "rounds", "threads", "memory", "device"):
        command += [f"--{key}", str(getattr(args, key))]
    try:
        done = subprocess.run(
            command + ["--small"] * args.small, capture_output=True, text=True, timeout=args.limit
        )
    except subprocess.TimeoutExpired:
        return {"reason": f"over {args.limit / 60:.0f} minutes"}
    if done.returncode in (-9, 137):
        return {"reason": "did not fit"}
    if done.returncode:
        return {"reason": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def cells(
    name: str, found: dict[str, dict[str, Any]], ratio: Callable[[float], str]
) -> list[str | None]:
    """Cells of a row of the table."""
    restored, trained = found["restoration"], found["training"]
    line: list[str | None] = [name]
    if "reason" in restored:
        line += [None, None, None, restored["reason"], None]
    else:
        steps = restored["steps"] or 1
        evaluation = restored.get("evaluation", restored["whole"])
        line += [f"{restored['parameters']:,.1f}", str(steps), ratio(evaluation)]
        line += [ratio(restored["whole"]), f"{restored['peak']:.1f}"]
    if "needed" in trained and "reason" in trained:
        return [*line, trained["reason"], f"about {trained['needed']:.0f}"]
    if "reason" in trained:
        return [*line, trained["reason"], None]
    return [*line, ratio(trained["seconds"]), f"{trained['peak']:.1f}"]


HEAD = ["system", "M parameters", "evaluations", "one evaluation", "restoration", "peak GiB"]
HEAD += ["training step", "peak GiB"]


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--small", action="store_true", help="small versions, to try it")
    parser.add_argument("--size", type=int, default=512, help="pixels, a multiple of 64")
    parser.add_argument("--steps", type=int, default=1, help="of sampling that are timed")
    parser.add_argument("--rounds", type=int, default=1, help="medians are taken over them")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--memory", type=float, default=1e9, help="GiB; no training step that needs more is run"
    )
    parser.add_argument("--limit", type=float, default=3600, help="seconds for each part")
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--parts", nargs="+", default=["restoration", "training"])
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args(given)
    torch.set_num_threads(args.threads)
    if args.alone:
        print(json.dumps(one(args)))
        return
    first = in_process(args, BARE, "restoration")
    if "reason" in first:
        raise SystemExit(f"{BARE}: {first['reason']}")
    base = first["evaluation"]
    print(
        f"{args.size} px, {name_of(args.device)}, {args.steps} sampling steps timed, median of"
        f" {args.rounds}; {BARE}: {base:.2f} {unit(args.device)}, {first['peak']:.1f} GiB",
        flush=True,
    )
    print(f"| {' | '.join(HEAD)} |\n|---{'|---:' * (len(HEAD) - 1)}|", flush=True)
    for name in args.only:
        found = {
            part: in_process(args, name, part) if part in args.parts else {"reason": "not asked"}
            for part in ("restoration", "training")
        }
        row = cells(name, found, lambda seconds: f"{seconds / base:.2f}")
        print(f"| {' | '.join(cell or '' for cell in row)} |", flush=True)
    last = in_process(args, BARE, "restoration")
    print(f"{BARE} once more: {last['evaluation'] / base:.2f} of the first", flush=True)


if __name__ == "__main__":
    main()
