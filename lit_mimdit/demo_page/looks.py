"""Tells what a photograph looks like to the routers.

It finds the known degradations whose Inter weights are like the photograph's own.

Small crops of the photographs of installed packages are degraded and shown to the branch. The Inter
weights of all blocks together are one point a crop. The share of each degradation among the nearest
points is what a photograph "looks like" (k nearest neighbours; Cover and Hart 1967).

n = crops, L = blocks, G = groups.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lit_mimdit.data import photographs
from lit_mimdit.data.composition import degrade
from lit_mimdit.data.degradations import SEVERITIES, to_uint8
from lit_mimdit.data.image_io import to_tensor
from lit_mimdit.files import FileError, write_bytes
from lit_mimdit.inference.restorer import Restorer
from lit_mimdit.inference.run_record import file_hash
from lit_mimdit.models.prompts import cache_folder
from lit_mimdit.routing.records import choices_of

CLEAN = "clean"
KINDS: dict[str, tuple[str, ...]] = {
    CLEAN: (),
    "blur": ("blur",),
    "noise": ("noise",),
    "JPEG": ("jpeg",),
    "haze": ("haze",),
    "rain": ("rain",),
    "raindrop": ("raindrop",),
    "low light": ("low_light",),
}
SIDE = 256  # pixels of a crop, unless a tile is smaller
NEAREST = 17
BATCH = 24  # crops asked about at once
SHIPPED = Path(__file__).parents[1] / "weights" / "demo_page" / "nano_looks.npz"


@dataclass
class Looks:
    """Inter weights of crops whose degradation is known.

    Args:
        inter: (n, L, G) float32.
        names: degradation of each crop, a name of KINDS.
    """

    inter: np.ndarray
    names: list[str]

    @property
    def means(self) -> dict[str, np.ndarray]:
        """Mean Inter weights (L, G) of each degradation."""
        rows = {name: [row for row, own in enumerate(self.names) if own == name] for name in KINDS}
        return {name: self.inter[own].mean(0) for name, own in rows.items() if own}

    @property
    def recall(self) -> dict[str, float]:
        """Returns the share of each degradation's crops that have most votes for it.

        All crops of the same photograph are left out. Nothing is returned if there is one
        photograph only.
        """
        photograph = np.arange(len(self.names)) // (len(KINDS) * len(SEVERITIES))
        hits: dict[str, list[bool]] = {}
        for row, name in enumerate(self.names):
            others = np.flatnonzero(photograph != photograph[row])
            if len(others):
                rest = Looks(self.inter[others], [self.names[other] for other in others])
                first = next(iter(rest.like(self.inter[row])))
                hits.setdefault(name, []).append(first == name)
        return {name: float(np.mean(of_kind)) for name, of_kind in hits.items()}

    @property
    def moved(self) -> dict[str, float]:
        """Returns how far each degradation moves the Inter weights of a photograph.

        It is the mean distance from the weights of the photograph's own clean crop. "clean" is how
        far clean crops lie from their mean.

        The looks must hold every photograph, as `learn` returns them.
        """
        each = len(SEVERITIES)
        by_kind = self.inter.reshape(-1, len(KINDS), each, *self.inter.shape[1:])
        clean = by_kind[:, :1, :1]
        away = np.sqrt(np.square(by_kind - clean).sum((-2, -1))).mean((0, 2))
        apart = np.sqrt(np.square(clean - clean.mean(0)).sum((-2, -1))).mean()
        return {name: float(own) for name, own in zip(KINDS, away, strict=True)} | {
            CLEAN: float(apart)
        }

    def like(self, inter: np.ndarray, nearest: int = NEAREST) -> dict[str, float]:
        """Returns the share of each degradation among the nearest crops, the largest first.

        Args:
            inter: Inter weights (L, G) of a photograph.
            nearest: how many crops are asked.
        """
        distance = np.square(self.inter - inter).sum((1, 2))
        votes = [self.names[row] for row in np.argsort(distance, kind="stable")[:nearest]]
        shares = {name: votes.count(name) / len(votes) for name in KINDS if name in votes}
        return dict(sorted(shares.items(), key=lambda item: -item[1]))


def sentence(shares: dict[str, float], most: int = 3) -> str:
    """Returns such as "looks like: rain 0.71, haze 0.12"."""
    parts = [f"{name} {share:.2f}" for name, share in list(shares.items())[:most]]
    return f"looks like: {', '.join(parts)}"


def reliance(shares: dict[str, float], recall: dict[str, float], most: int = 3) -> str:
    """Returns how far a sentence of these shares can be trusted, such as "Of known crops the
    routers find again: haze 81%, rain 48%.".
    """
    parts = [f"{name} {100 * recall[name]:.0f}%" for name in list(shares)[:most] if name in recall]
    return f"Of known crops the routers find again: {', '.join(parts)}." if parts else ""


def crops(side: int) -> list[tuple[str, Tensor]]:
    """Returns (degradation, image (3, side, side) in [0, 1]) of every photograph, degradation and
    severity; the same at every call.
    """
    pairs = []
    for place, photograph in enumerate(photographs.PHOTOGRAPHS):
        whole = photographs.load(photograph.name)
        top, left = ((length - side) // 2 for length in whole.shape[:2])
        clean = whole[top : top + side, left : left + side].astype(np.float32) / 255.0
        for kind, (name, degradations) in enumerate(KINDS.items()):
            for level, severity in enumerate(SEVERITIES):
                generator = np.random.default_rng([place, kind, level])
                image = to_uint8(degrade(clean, degradations, severity, generator))
                pairs.append((name, to_tensor(image)))
    return pairs


def learn(restorer: Restorer) -> Looks:
    """Returns what the routers of a restorer decide about the crops."""
    pairs = crops(min(SIDE, restorer.config.tile))
    parts = []
    for first in range(0, len(pairs), BATCH):
        lq = torch.stack([image for _, image in pairs[first : first + BATCH]])
        parts += [choices_of(one).inter.mean(0) for one in restorer.route(lq)]
    return Looks(torch.stack(parts).cpu().numpy(), [name for name, _ in pairs])


def save(path: Path, looks: Looks, checkpoint: str) -> None:
    """Write looks with the sha256 of the checkpoint they belong to."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, inter=looks.inter, names=looks.names, checkpoint=checkpoint)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, buffer.getvalue())


def read(path: Path, checkpoint: str) -> Looks | None:
    """Returns the looks of a file; None if there is none, or it belongs to another checkpoint."""
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as archive:
        if str(archive["checkpoint"]) != checkpoint:
            return None
        return Looks(archive["inter"], archive["names"].tolist())


def looks_of(restorer: Restorer, checkpoint: Path) -> Looks:
    """Returns the looks of a checkpoint: those that come with the package, those that an earlier
    call kept in the cache, or new ones.
    """
    own = file_hash(checkpoint)
    kept = cache_folder() / "looks" / f"{own[:16]}.npz"
    for path in (SHIPPED, kept):
        known = read(path, own)
        if known is not None:
            return known
    looks = learn(restorer)
    try:
        save(kept, looks, own)
    except (OSError, FileError) as error:  # they only save time
        print(f"note: {kept}: the looks of this checkpoint are not kept: {error}")
    return looks
