"""Scores fidelity networks behind the branch on the pairs of a pack.

    python experiments/nano/wide_scores.py data/wide_pack/pairs -o data/wide_scores \\
        --networks package runs/nano/wide-behind.safetensors --lpips

What the branch restores does not depend on the network behind it. So it is kept in OUT, in a folder
for each branch, and further networks are scored in seconds. PAIRS has a folder for each set with lq
and gt, as wide_pack.py writes them. Sides are multiples of 8.

The table has the mean PSNR restored - degraded of each set, and of clean images what they come back
at. Images that come back more than 0.5 dB worse are counted. `branch` is the branch with nothing
behind it, `package` has the shipped network. OUT/scores.csv has every image, with --lpips also its
LPIPS. That needs weights, see docs/how_to/evaluate.md.

--share asks for each part's share. `two steps` is the branch with more sampling than the one step
from pure noise that is its default. `alone` is a network that sees the degraded image twice.
"""

import argparse
import csv
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm
from wide_on_gpu import CAP, pairs, table

from lit_mimdit.evaluation.scorer import Scorer
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.restorer import Restorer
from lit_mimdit.inference.run_record import describe_run
from lit_mimdit.inference.system_file import system_path

BRANCH, TWO_STEPS, ALONE = "branch", "two steps", "alone"


class Kept:
    """What a branch alone makes of images (1, 3, H, W), from the files where it is kept."""

    def __init__(self, branch: Restorer, folder: Path, checkpoint: Path) -> None:
        self.branch = branch
        own = describe_run(branch, checkpoint, 0)
        self.folder = (
            folder / f"{BRANCH}-{own['checkpoint']['sha256'][:8]}-{own['config_hash'][:8]}"
        )

    def __call__(self, lq: Tensor, name: str) -> Tensor:
        path = self.folder / f"{name}.pt"
        if not path.exists():
            image, _ = self.branch(lq, torch.tensor([0]))
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(image, path)
        return torch.load(path, weights_only=True)


def variants(networks: list[str], share: bool) -> dict[str, tuple[str, str | None]]:
    """Returns for each column what the network behind sees as restored, and its file."""
    found: dict[str, tuple[str, str | None]] = {BRANCH: (BRANCH, None)}
    found |= {Path(one).stem: (BRANCH, one) for one in networks}
    if share:
        found[TWO_STEPS] = TWO_STEPS, None
        for one in networks:
            found |= {f"{Path(one).stem}, {seen}": (seen, one) for seen in (TWO_STEPS, ALONE)}
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("pairs", type=Path, help="folder of sets")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument(
        "--networks", nargs="+", default=[], help="files of fidelity networks, or package"
    )
    parser.add_argument("--checkpoint", help="branch; without it the package's")
    parser.add_argument("--share", action="store_true", help="also what each part does alone")
    parser.add_argument("--lpips", action="store_true", help="also LPIPS, for scores.csv")
    args = parser.parse_args(arguments)
    columns = variants(args.networks, args.share)
    branch = load_restorer(args.checkpoint, dtype="auto").corrected_by(None)
    behind = {
        one: load_restorer(args.checkpoint, dtype="auto", fidelity=one) if one else branch
        for _, one in columns.values()
    }
    kept = {BRANCH: Kept(branch, args.output, system_path(args.checkpoint))}
    if args.share:
        twice = load_restorer(args.checkpoint, dtype="auto", steps=2).corrected_by(None)
        kept[TWO_STEPS] = Kept(twice, args.output, system_path(args.checkpoint))
    scorer = Scorer(["psnr", *(["lpips"] if args.lpips else [])])
    if scorer.missing:
        raise ValueError("; ".join(f"{name}: {why}" for name, why in scorer.missing.items()))
    rows = []
    for name, path, lq, gt in tqdm(list(pairs(args.pairs)), desc="pairs", unit="pair"):
        seen = {which: of(lq, f"{name}/{path.stem}") for which, of in kept.items()} | {ALONE: lq}
        before = scorer.score(lq, gt)[0].scores
        for column, (which, network) in columns.items():
            after = scorer.score(behind[network].corrected(seen[which], lq), gt)[0].scores
            row = {"variant": column, "set": name, "image": path.stem}
            row |= {"degraded": min(before["psnr"], CAP), "restored": min(after["psnr"], CAP)}
            if args.lpips:
                row |= {"degraded_lpips": before["lpips"], "restored_lpips": after["lpips"]}
            rows.append(row)
    with open(args.output / "scores.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(table(rows, list(columns)))


if __name__ == "__main__":
    main()
