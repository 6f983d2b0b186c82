"""How near few-step students come to their teacher, and to the clean images: beside the teacher's
own solver and UniPC at as few steps.

    python benchmarks/few_steps.py --data data/few_test -o runs/few_steps \\
        --matching runs/distill_?/checkpoints/last.ckpt \\
        --dmd runs/distill_dmd_?/checkpoints/last.ckpt

Every system restores the same images from the same noise, in one piece and without overview. Each
result is scored twice: as decoded ("alone"), and behind the package's fidelity network
("fidelity"). scores.csv gets a row an image and result. What is there is not computed again, so
systems may come later. results.md has the means, and differences with their 95% intervals: for
other images where there is one seed, for other trainings and other images where there are several.
results.png draws the distances.
"""

import argparse
import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lit_mimdit.data.image_io import read_rgb, to_tensor
from lit_mimdit.data.layouts import Pair, read_layout, require_complete
from lit_mimdit.evaluation.intervals import bootstrap, crossed_interval
from lit_mimdit.evaluation.scorer import Scorer
from lit_mimdit.inference.corrector import load_corrector
from lit_mimdit.inference.guidance import conditioned
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.restorer import Restorer
from lit_mimdit.inference.sampler import sample
from lit_mimdit.models.flow import sample_noise
from lit_mimdit.models.latents import decode, encode

STEPS = (1, 2, 4)
SYSTEMS = ("teacher", "euler", "unipc", "matching", "dmd")
KEYS = {  # column: (metric, what it is compared with, decimals)
    "psnr_teacher": ("psnr", "teacher", 2),
    "lpips_teacher": ("lpips", "teacher", 3),
    "psnr": ("psnr", "clean", 2),
    "lpips": ("lpips", "clean", 3),
    "niqe": ("niqe", None, 2),
}
LABELS = {
    "psnr_teacher": "PSNR to the teacher",
    "lpips_teacher": "LPIPS to the teacher",
    "psnr": "PSNR",
    "lpips": "LPIPS",
    "niqe": "NIQE",
}
COLUMNS = ("image", "system", "seed", "steps", "output", *KEYS)


class Run(NamedTuple):
    """A system of one training: its file, and steps by solver."""

    system: str
    seed: int
    file: str
    ways: dict[str, list[int]]


def chosen(folder: Path, count: int) -> list[Pair]:
    """Returns test pairs of all degradations: one of each of `count` equal parts of the list."""
    pairs = require_complete(read_layout("foundir", folder, meta=folder / "test.txt"))
    each = len(pairs) // count
    return [pairs[part * each + part % each] for part in range(count)]


def paths(
    restorer: Restorer, z_lq: Tensor, noise: Tensor, ways: dict[str, list[int]]
) -> Iterator[tuple[str, int, Tensor]]:
    """Solver, steps and latent of every way, with one look at the degraded latent."""
    velocity = conditioned(restorer.network, z_lq, restorer.network.prompt, 1.0).velocity
    for solver, counts in ways.items():
        for steps in counts:
            config = replace(restorer.config, solver=solver, steps=steps, start="noise")
            yield solver, steps, sample(velocity, z_lq, noise, restorer.scheduler, config)


def scored(image: Tensor, clean: Tensor, wanted: Tensor, scorer: Scorer) -> dict[str, float]:
    """The columns of an image (1, 3, H, W)."""
    to_clean, to_teacher = (scorer.score(image, other)[0].scores for other in (clean, wanted))
    sides = {"clean": to_clean, "teacher": to_teacher, None: to_clean}
    return {key: sides[side].get(metric, np.nan) for key, (metric, side, _) in KEYS.items()}


@torch.no_grad()
def measure(args: argparse.Namespace, table: Path) -> None:
    """Writes the rows that scores.csv lacks; the teacher's latents are kept beside it."""
    rows = list(csv.DictReader(table.open())) if table.is_file() else []
    done = {(row["image"], row["system"], row["seed"]) for row in rows}
    runs = [Run("teacher", 0, args.teacher, {"euler": [40]})]
    runs += [Run(name, 0, args.teacher, {name: list(STEPS)}) for name in ("euler", "unipc")]
    for name, files in (("matching", args.matching), ("dmd", args.dmd)):
        ways = {"euler": list(STEPS)}
        runs += [Run(name, seed, file, ways) for seed, file in enumerate(sorted(files))]
    restorers = {run.file: load_restorer(run.file, device="cpu") for run in runs}
    scorer, corrector = Scorer(["psnr", "lpips", "niqe"]), load_corrector("package")
    teacher, pairs = restorers[args.teacher], chosen(args.data, args.count)
    # 7 apart, so that what is there before all is done is of many degradations
    for number in sorted(range(len(pairs)), key=lambda number: 7 * number % len(pairs)):
        pair, kept = pairs[number], args.output / f"teacher_{number:03d}.pt"
        lq, gt = (to_tensor(read_rgb(path))[None] for path in (pair.lq, pair.gt))
        z_lq = encode(teacher.vae, lq)
        noise = sample_noise(torch.tensor([number]), tuple(z_lq.shape[1:]))[0]
        for run in runs:
            if (pair.id, run.system, str(run.seed)) in done:
                continue
            fresh = []
            for _, steps, latent in paths(restorers[run.file], z_lq, noise, run.ways):
                if run.system == "teacher":
                    torch.save(latent, kept)
                taught = decode(teacher.vae, torch.load(kept, weights_only=True))
                image = decode(teacher.vae, latent)
                shown = {"alone": image, "fidelity": corrector(image, lq)}
                wanted = {"alone": taught, "fidelity": corrector(taught, lq)}
                for output in shown:
                    scores = scored(shown[output], gt, wanted[output], scorer)
                    about = [pair.id, run.system, run.seed, steps, output]
                    fresh.append([*about, *(f"{scores[key]:.5f}" for key in KEYS)])
            write_rows(table, fresh)
        print(f"{number}: {pair.id}", flush=True)


def write_rows(table: Path, rows: list[list]) -> None:
    """Appends the rows of a system and image, which appear together."""
    with table.open("a", newline="") as file:
        writer = csv.writer(file)
        if file.tell() == 0:
            writer.writerow(COLUMNS)
        writer.writerows(rows)


def complete(rows: list[dict]) -> list[dict]:
    """The rows of images that every system and seed has restored, in one order."""
    runs: dict[str, set] = {}
    for row in rows:
        runs.setdefault(row["image"], set()).add((row["system"], row["seed"]))
    whole = set().union(*runs.values())
    images = {image for image, own in runs.items() if own == whole}
    return sorted((row for row in rows if row["image"] in images), key=lambda row: row["image"])


def values(rows: list[dict], output: str, system: str, steps: int, key: str) -> np.ndarray:
    """Scores of a system (seeds, images)."""
    own = [
        r for r in rows if (r["output"], r["system"], r["steps"]) == (output, system, f"{steps}")
    ]
    seeds = sorted({row["seed"] for row in own})
    return np.array([[float(r[key]) for r in own if r["seed"] == seed] for seed in seeds])


def interval(difference: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95% interval of differences (seeds, images)."""
    if len(difference) > 1:
        return crossed_interval(difference)
    return float(difference.mean()), *bootstrap(difference[0], seed=0)


def report(rows: list[dict]) -> str:
    """Two tables an output: means, and differences to Euler at as many steps."""
    present = {row["system"] for row in rows}
    systems = [name for name in SYSTEMS if name in present]
    lines = [f"{len({row['image'] for row in rows})} images"]
    for output in ("alone", "fidelity"):
        lines += [
            "",
            f"## {output}",
            "",
            "| steps | system | " + " | ".join(LABELS.values()) + " |",
        ]
        lines += ["|---:|---|" + "---:|" * len(KEYS)]
        for steps, system in [(40, "teacher")] + [(s, n) for s in STEPS for n in systems[1:]]:
            cells = []
            for key, (_, _, digits) in KEYS.items():
                mean = values(rows, output, system, steps, key).mean()
                cells.append(f"{mean:.{digits}f}" if np.isfinite(mean) else "")
            lines.append(f"| {steps} | {system} | " + " | ".join(cells) + " |")
        lines += ["", "Difference to euler at as many steps, with its 95% interval", ""]
        lines += ["| steps | system | " + " | ".join(LABELS.values()) + " |"]
        lines += ["|---:|---|" + "---:|" * len(KEYS)]
        for steps, system in [(s, n) for s in STEPS for n in systems[2:]]:
            cells = []
            for key, (_, _, digits) in KEYS.items():
                base = values(rows, output, "euler", steps, key)
                own = interval(values(rows, output, system, steps, key) - base)
                mean, low, high = (f"{number:.{digits}f}" for number in own)
                cells.append(f"{mean} [{low}, {high}]")
            lines.append(f"| {steps} | {system} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def picture(rows: list[dict], path: Path) -> None:
    """Draws the distance to the teacher by steps, branch alone, with 95% intervals of the means."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    systems = [name for name in SYSTEMS[1:] if any(row["system"] == name for row in rows)]
    for axis, key in zip(figure.subplots(1, 2), ("psnr_teacher", "lpips_teacher"), strict=True):
        for shift, system in enumerate(systems):
            ends = [interval(values(rows, "alone", system, steps, key)) for steps in STEPS]
            means, lows, highs = np.array(ends).T
            places = np.arange(len(STEPS)) + 0.06 * (shift - (len(systems) - 1) / 2)
            reach = [means - lows, highs - means]
            axis.errorbar(places, means, reach, marker="o", capsize=2, label=system)
        axis.set_xticks(range(len(STEPS)), [str(steps) for steps in STEPS])
        axis.set(xlabel="sampling steps", ylabel=LABELS[key])
        axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a FoundIR tree with test.txt")
    parser.add_argument("--teacher", default="package")
    parser.add_argument("--matching", nargs="*", default=[], help="students of teacher matching")
    parser.add_argument("--dmd", nargs="*", default=[], help="students of distribution matching")
    parser.add_argument("--count", type=int, default=20, help="test pairs")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    table = args.output / "scores.csv"
    measure(args, table)
    rows = complete(list(csv.DictReader(table.open())))
    picture(rows, args.output / "results.png")
    text = report(rows)
    (args.output / "results.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
