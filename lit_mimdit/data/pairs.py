"""The data contract says what a training or evaluation sample holds.

It is a dict of

    lq, gt         (3, H, W) RGB, the same H and W: uint8 as stored, or float32 in [0, 1] where a
    file has 16 bits
    degradation    str, such as "01Blur"
    id             str, unique in the data set
    dataset        str, such as "4KRD" where there are several, else ""
    seed           int, of everything random about this sample in this epoch

and a batch has lq and gt stacked, seed as an int64 tensor (B,), and lists of the strings. Bytes
travel to the device and become floats there, by `with_floats`, which the data module calls. Model
and callbacks see lq and gt as (B, 3, H, W) float32 in [0, 1]. In place of lq and gt, latent shards
give

    z_lq, z_gt     (C, H/f, W/f) float32, latents as `models.latents.encode` makes them

and those of a teacher (`data teacher`), beside them,

    z_teacher      (C, H/f, W/f) float32, what the teacher made of z_lq and of its noise
    noise_seed     int, the seed of that noise

A training batch may also have `faults`, a list of what could not be read and was replaced
(faults.py).
"""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lit_mimdit.data.buffers import Stack, stacked
from lit_mimdit.data.faults import ATTEMPTS, Fault, stand_in
from lit_mimdit.data.image_io import ImageError, to_tensor
from lit_mimdit.data.order import sample_seed
from lit_mimdit.data.sources import About, Source

Augment = Literal["none", "flip", "dihedral"]
TENSORS = ("lq", "gt", "z_lq", "z_gt", "z_teacher")  # of a sample, stacked in a batch
SYMMETRIES = {
    "none": 1,
    "flip": 2,
    "dihedral": 8,
}  # how many there are; number 4 * flip + turns of dihedral, flip of flip


def augment_array(image: np.ndarray, flip: bool, turns: int) -> np.ndarray:
    """Mirror (H, W, 3) left to right, then turn it by `turns` times 90 degrees.

    The 8 choices are the square's symmetries.
    """
    return np.rot90(image[:, ::-1] if flip else image, turns)


def draw_symmetry(draw: np.random.Generator, augment: Augment) -> tuple[bool, int]:
    """(flip, turns) of a sample."""
    if augment == "none":
        return False, 0
    return bool(draw.integers(2)), int(draw.integers(4)) if augment == "dihedral" else 0


def variant(flip: bool, turns: int, augment: Augment) -> int:
    """Returns the number of a symmetry among those of `augment`."""
    return 4 * flip + turns if augment == "dihedral" else int(flip)


def to_planes(image: np.ndarray) -> Tensor:
    """Returns pixels (H, W, 3) as a tensor of the contract, (3, H, W).

    uint8 stays uint8, uint16 becomes float32 in [0, 1].
    """
    return (
        torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C"))
        if image.dtype == np.uint8
        else to_tensor(image)
    )


def to_floats(images: Tensor) -> Tensor:
    """uint8 -> float32 in [0, 1], on the device they are on, with the very bits of `to_tensor`;
    floats are returned as they are.
    """
    if images.is_floating_point():
        return images
    # a divisor on the device: CUDA multiplies by the reciprocal of a number, which is another
    # result in the last bit
    return images.float().div_(torch.tensor(255.0, device=images.device))


def with_floats(batch: dict[str, Any]) -> dict[str, Any]:
    """Returns a batch whose images are floats."""
    return batch | {name: to_floats(batch[name]) for name in ("lq", "gt") if name in batch}


class PairDataset(Dataset):
    """Pairs as samples of the contract; items are asked for as (epoch, place), see mixing.py: in
    most cases a place is an index.

    Args:
        source: a folder of images, or shards.
        crop: side of the square crop in pixels; None keeps whole images.
        random: crops and augmentation drawn from the sample's seed (training), or the middle crop,
            unaugmented.
        augment: "none", "flip" (left-right) or "dihedral" (flips and quarter turns), the same for
            both images.
        seed: of this data set.
        replace: let another pair take the place of one that cannot be read, and report it; False
            raises its `ImageError`.
    """

    def __init__(
        self,
        source: Source,
        crop: int | None,
        random: bool,
        augment: Augment,
        seed: int,
        replace: bool = False,
    ) -> None:
        self.source = source
        self.crop = crop
        self.random = random
        self.augment = augment
        self.seed = seed
        self.group = source.table().group if replace else None

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Any]:
        epoch, place = item
        index = place % len(self.source)
        seed = sample_seed(
            self.seed, epoch if self.random else 0, place
        )  # evaluation: always the same noise
        if self.group is None:
            return self._finish(index, seed, self._load(index, seed), [])
        faults, broken = [], index
        for attempt in range(ATTEMPTS + 1):
            try:
                return self._finish(index, seed, self._load(index, seed), faults)
            except ImageError as error:
                faults.append(Fault(self.source.about(index).id, str(error), lost=True))
                index = stand_in(broken, attempt, (self.seed, epoch, place), self.group)
        raise ImageError(
            f"{ATTEMPTS + 1} samples in a row cannot be read (the last: {faults[-1].id}:"
            f" {faults[-1].reason})"
        )

    def _load(self, index: int, seed: int) -> dict[str, Tensor]:
        """The tensors of a pair.

        What is drawn: the place (tile, then top and left in it), then flip and turns.
        """
        draw = np.random.default_rng(seed) if self.random else None
        if self.source.latents:
            return self.source.read_latents(index, draw, self.augment)
        images = self.source.read(index, self.crop, draw)
        if draw is not None:
            symmetry = draw_symmetry(draw, self.augment)
            images = tuple(augment_array(image, *symmetry) for image in images)
        return {"lq": to_planes(images[0]), "gt": to_planes(images[1])}

    def _finish(
        self, index: int, seed: int, tensors: dict[str, Tensor], faults: list[Fault]
    ) -> dict[str, Any]:
        about: About = self.source.about(index)
        names = {"degradation": about.degradation, "id": about.id, "dataset": about.dataset}
        return tensors | {"seed": seed} | names | {"faults": faults + self.source.take_notes()}


def collate(samples: list[dict[str, Any]], stack: Stack = stacked) -> dict[str, Any]:
    """Returns a batch of the contract from its samples, tensors stacked by `stack`; images of one
    batch must have one size.
    """
    kinds = [name for name in TENSORS if name in samples[0]]
    sizes = {tuple(sample[kinds[0]].shape) for sample in samples}
    if len(sizes) > 1:
        raise ValueError(
            f"images of different sizes in one batch ({sorted(sizes)}): set a crop, or a batch size"
            " of 1"
        )
    batch = {}
    for name in kinds:
        parts = [sample[name] for sample in samples]
        batch[name] = stack(
            name,
            (
                parts
                if len({part.dtype for part in parts}) == 1
                else [to_floats(part) for part in parts]
            ),
        )
    for name in ("degradation", "id", "dataset"):
        batch[name] = [sample[name] for sample in samples]
    for name in ("seed", "noise_seed"):
        if name in samples[0]:
            seeds = [int(sample[name]) for sample in samples]
            batch[name] = torch.tensor(seeds, dtype=torch.int64)
    faults = [fault for sample in samples for fault in sample.get("faults", ())]
    return batch | ({"faults": faults} if faults else {})
