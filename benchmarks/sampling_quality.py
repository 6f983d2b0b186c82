"""Quality against network evaluations: steps, solver, and where sampling starts, on held-out pairs;
one CSV and one plot.

    python -m lit_mimdit sample-data data/heldout --photos PHOTOS --test_crops 108 --size 128 \
        --types 01Blur 05Noise 08Haze 10Rain 14Lowlight
    python benchmarks/sampling_quality.py --data data/heldout --count 24 --output docs/sampling

All settings see the same pairs and the same noise. LPIPS is computed where its weights are found.
"""

import argparse
import csv
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import matplotlib
import torch
from tqdm import tqdm

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from lit_mimdit.data.image_io import read_rgb, to_tensor
from lit_mimdit.data.layouts import read_layout, require_complete
from lit_mimdit.evaluation.scorer import Scorer
from lit_mimdit.evaluation.summary import mean_of
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.sampler import SamplingConfig, evaluations

COLUMNS = (
    "start",
    "strength",
    "solver",
    "steps",
    "evaluations",
    "metric",
    "degradation",
    "mean",
    "low",
    "high",
    "n",
)


def settings(base: SamplingConfig) -> list[SamplingConfig]:
    """From noise with both solvers; from the degraded latent at several times."""
    euler = [
        replace(base, start="noise", strength=1.0, solver="euler", steps=n)
        for n in (1, 2, 4, 8, 20, 40)
    ]
    heun = [replace(base, start="noise", strength=1.0, solver="heun", steps=n) for n in (2, 4, 10)]
    lq = [
        replace(base, start="lq", strength=s, solver="euler", steps=n)
        for s in (0.3, 0.6, 0.9)
        for n in (2, 4)
    ]
    return euler + heun + lq


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data/heldout"))
    parser.add_argument("--count", type=int, default=24, help="pairs of each degradation")
    parser.add_argument("--checkpoint", type=Path, default=None)
    parser.add_argument("--tile", type=int, default=None)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--output", type=Path, default=Path("docs/sampling"))
    args = parser.parse_args()
    by_type = defaultdict(list)
    for pair in require_complete(read_layout("foundir", args.data, meta=args.data / "test.txt")):
        by_type[pair.degradation].append(pair)
    pairs = [pair for some in by_type.values() for pair in some[: args.count]]
    lq, gt = (
        torch.stack([to_tensor(read_rgb(getattr(pair, side))) for pair in pairs])
        for side in ("lq", "gt")
    )
    restorer = load_restorer(args.checkpoint, None, torch.device("cpu"), tile=args.tile)
    scorer = Scorer(["psnr", "ssim_y", "lpips"])
    rows = table(None, "degraded", lq, gt, pairs, scorer)
    for config in tqdm(settings(restorer.config), unit="setting"):
        restorer.config = config
        parts = [
            restorer(
                lq[start : start + args.batch],
                torch.arange(start, min(start + args.batch, len(lq))),
            )[0]
            for start in range(0, len(lq), args.batch)
        ]
        rows += table(config, config.start, torch.cat(parts), gt, pairs, scorer)
    args.output.mkdir(parents=True, exist_ok=True)
    with open(args.output / "sampling.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    draw(rows, [metric.key for metric in scorer.ready], args.output / "sampling.png")
    for row in rows:
        if row["degradation"] == "all":
            print(
                *(
                    f"{row[key]:.4g}" if isinstance(row[key], float) else row[key]
                    for key in COLUMNS
                ),
                sep="\t",
            )


def table(
    config: SamplingConfig | None, start: str, images, gt, pairs, scorer: Scorer
) -> list[dict]:
    """Means with intervals of one setting, by degradation and over all."""
    scores = [
        score.scores
        for first in range(0, len(gt), 32)
        for score in scorer.score(images[first : first + 32], gt[first : first + 32])
    ]
    how = {"start": start, "strength": "", "solver": "", "steps": 0, "evaluations": 0}
    if config is not None:
        how |= {
            "strength": config.strength,
            "solver": config.solver,
            "steps": config.steps,
            "evaluations": evaluations(config),
        }
    rows = []
    for degradation in [*dict.fromkeys(pair.degradation for pair in pairs), "all"]:
        own = [
            score
            for pair, score in zip(pairs, scores, strict=True)
            if degradation in ("all", pair.degradation)
        ]
        for metric in scorer.ready:
            rows.append(
                how
                | {"metric": metric.key, "degradation": degradation}
                | mean_of([score[metric.key] for score in own], seed=0)
            )
    return rows


def draw(rows: list[dict], metrics: list[str], path: Path) -> None:
    """One panel a metric: its mean over all degradations against network evaluations."""
    figure, axes = plt.subplots(1, len(metrics), figsize=(5 * len(metrics), 3.8), squeeze=False)
    for axis, metric in zip(axes[0], metrics, strict=True):
        lines = defaultdict(list)
        for row in rows:
            if row["metric"] == metric and row["degradation"] == "all":
                if row["start"] == "degraded":
                    axis.axhline(row["mean"], color="grey", linestyle="--", label="degraded input")
                else:
                    name = (
                        f"from noise, {row['solver']}"
                        if row["start"] == "noise"
                        else f"from the degraded latent at t = {row['strength']}"
                    )
                    lines[name].append((row["evaluations"], row["mean"]))
        for name, points in lines.items():
            axis.plot(*zip(*sorted(points)), marker="o", label=name)
        axis.set(xscale="log", xlabel="network evaluations", title=metric)
        axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
