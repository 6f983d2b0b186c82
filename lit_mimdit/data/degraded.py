"""Photographs degraded while training: endless pairs for the nano branch."""

from typing import Any, get_args

import numpy as np
from torch.utils.data import DataLoader, Dataset

from lit_mimdit.data.composition import FOUNDIR_TYPES, degrade
from lit_mimdit.data.datamodule import FoundIRDataModule
from lit_mimdit.data.degradations import Severity, to_uint8
from lit_mimdit.data.order import EpochSampler, sample_seed
from lit_mimdit.data.pairs import augment_array, to_planes
from lit_mimdit.data.photos import level_weights, read_levels

MARGIN = 16  # pixels around a crop that its degradation may look at
DIM_SCALE, DIM_POWER = (0.4, 1.0), (1.0, 2.2)


# y = s x^g
def dimmed(image: np.ndarray, scale: float, power: float) -> np.ndarray:
    """Returns a scene of less light, (H, W, 3) uint8, as at dusk, in shadow or in a dark room.

    Black stays; white becomes `scale`. A scale above 1 is of more light, and what exceeds white is
    lost.
    """
    return to_uint8(scale * (np.float32(image) / np.float32(255)) ** np.float32(power))


class DegradedCrops(Dataset):
    """Samples of the contract made on the spot; sample (epoch, index) is a function of (seed,
    epoch, index) alone.

    Args:
        levels: photographs (H, W, 3) uint8 at several scales.
        crop: side of the square crops, pixels.
        types: FoundIR type folders to draw from, all alike.
        samples: samples an epoch.
        seed: of everything.
        dim: share of the crops that are dimmed before they are degraded, see `dimmed`; not of those
            in low light, whose scene is bright.
        smooth: share of the crops in low light that have lost noise to their camera, most of it
            more often than little.
    """

    def __init__(
        self,
        levels: list[np.ndarray],
        crop: int,
        types: list[str],
        samples: int,
        seed: int,
        dim: float = 0.0,
        smooth: float = 0.0,
    ) -> None:
        self.levels = levels
        self.crop = crop
        self.types = types
        self.samples = samples
        self.seed = seed
        self.dim, self.smooth = dim, smooth
        self.weights = level_weights(levels)

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Any]:
        epoch, index = item
        seed = sample_seed(self.seed, epoch, index)
        draw = np.random.default_rng(seed)
        level = self.levels[draw.choice(len(self.levels), p=self.weights)]
        side = min(self.crop + 2 * MARGIN, *level.shape[:2])
        top, left = (int(draw.integers(0, n - side + 1)) for n in level.shape[:2])
        clean = augment_array(
            level[top : top + side, left : left + side],
            bool(draw.integers(2)),
            int(draw.integers(4)),
        )
        kind, severity = (
            self.types[draw.integers(len(self.types))],
            str(draw.choice(get_args(Severity))),
        )
        dark, grain = "low_light" in FOUNDIR_TYPES[kind], 1.0
        if self.dim and not dark and draw.random() < self.dim:
            clean = dimmed(clean, draw.uniform(*DIM_SCALE), draw.uniform(*DIM_POWER))
        if self.smooth and dark and draw.random() < self.smooth:
            grain = draw.random() ** 2
        degraded = to_uint8(
            degrade(
                np.float32(clean) / np.float32(255),
                FOUNDIR_TYPES[kind],
                severity,
                draw,
                grain=grain,
            )
        )
        start = (side - self.crop) // 2
        lq, gt = (
            to_planes(image[start : start + self.crop, start : start + self.crop])
            for image in (degraded, clean)
        )
        return {
            "lq": lq,
            "gt": gt,
            "dataset": "degraded",
            "degradation": kind,
            "id": f"{kind}/{severity}/{epoch}-{index}",
            "seed": seed,
        }


class DegradedPhotos(FoundIRDataModule):
    """Training pairs from a folder of photographs, degraded on the spot; validation and test pairs
    from `root` as ever.

    Args:
        photos: folder of photographs. None of them may be in `root`.
        types: FoundIR types to draw from, such as `05Noise`.
        samples: training samples an epoch.
        longest: photographs are first reduced to this many pixels on their longer side.
        dim: share of the crops that become dark scenes before they are degraded. Dark is then not
            always what is to be mended. Crops in low light stay as they are, so that its own
            darkness is all of it.
        smooth: share of the crops in low light whose camera has removed noise, most of it more
            often than little. Without them, grain alone would tell low light from a dark scene.
        foundir: the arguments of FoundIRDataModule.
    """

    def __init__(
        self,
        photos: str,
        types: list[str],
        samples: int = 10000,
        longest: int = 1536,
        dim: float = 0.0,
        smooth: float = 0.0,
        **foundir: Any,
    ) -> None:
        super().__init__(**foundir)
        unknown = [kind for kind in types if kind not in FOUNDIR_TYPES]
        if unknown or not types:
            raise ValueError(
                f"data.types holds {unknown or 'nothing'}: choose among {', '.join(FOUNDIR_TYPES)}"
            )
        for key, share in (("dim", dim), ("smooth", smooth)):
            if not 0 <= share <= 1:
                raise ValueError(f"data.{key} is {share}: it is a share, from 0 to 1")
        self.photos = photos
        self.types = types
        self.samples = samples
        self.longest = longest
        self.dim = dim
        self.smooth = smooth

    def train_dataloader(self) -> DataLoader:
        levels = read_levels(self.photos, self.longest, self.crop, "data.photos")
        sampler = EpochSampler(
            self.samples,
            self.per_step(),
            self.seed,
            shuffle=True,
            drop_last=True,
            cluster=self.cluster,
            **self.step_options(),
        )
        return self._loader(
            DegradedCrops(
                levels, self.crop, self.types, self.samples, self.seed, self.dim, self.smooth
            ),
            sampler,
        )
