"""Pairs are read from shards by index.

Only the bytes of one tile, or of the tiles that a region needs, are read.
"""

import zlib
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from lit_mimdit.data.faults import Fault
from lit_mimdit.data.image_io import ImageError, read_rgb
from lit_mimdit.data.mixing import Table
from lit_mimdit.data.pairs import Augment, draw_symmetry, variant
from lit_mimdit.data.shards.cache import CacheError, ShardCache, read_parts
from lit_mimdit.data.shards.manifest import MANIFEST, Index, Manifest
from lit_mimdit.data.shards.store import open_store
from lit_mimdit.data.sources import place_crop
from lit_mimdit.data.tiles import Region, shared

_INDICES = (
    256  # of shards that a process keeps in memory, about 10 kB each for 64 pairs of 12 tiles
)


Stored = dict[str, Tensor]  # of one orientation of a tile, by name


class ShardedPair(NamedTuple):
    """The facts about a pair in a shard."""

    id: str
    degradation: str
    dataset: str = ""


class ShardSource:
    """A folder of shards, local or s3://.

    Args:
        place: folder with a manifest.json.
        cache: of whole shards; None reads each tile where it lies.
        retries: of requests to S3 that fail.
        sample_latents: of latent shards, take GT latents from the posterior instead of its mode.

    Raises:
        ValueError: no manifest there, or one that cannot be used
    """

    def __init__(
        self,
        place: str,
        cache: ShardCache | None = None,
        retries: int = 10,
        sample_latents: bool = False,
    ) -> None:
        self.place = place
        self.cache = cache
        self.store = open_store(place, retries)
        self.sample_latents = sample_latents
        self.manifest = Manifest.parse(self.store.get(MANIFEST), f"{place}/{MANIFEST}")
        self.latents = self.manifest.kind == "latents"
        self.tile: int | None = self.manifest.settings["tile"]
        self.ends = np.cumsum([len(shard) for shard in self.manifest.shards])
        self.notes: list[
            Fault
        ] = []  # what went wrong without costing a sample, since they were last taken
        self._noted: set[str] = set()
        self._indices: OrderedDict[int, Index] = OrderedDict()

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def table(self) -> Table:
        shards = self.manifest.shards
        group = np.concatenate([np.asarray(shard.groups, np.int64) for shard in shards])
        return Table(group, np.repeat(np.arange(len(shards)), [len(shard) for shard in shards]))

    def about(self, index: int) -> ShardedPair:
        """Id and degradation of a pair, also of one that cannot be read."""
        number, row = self._locate(index)
        shard = self.manifest.shards[number]
        try:
            id = str(self._index(number).ids[row])
        except ImageError:
            id = f"{shard.name}:{row}"
        return ShardedPair(id, self.manifest.degradations[shard.groups[row]])

    def require(self, crop: int | None, augment: Augment) -> None:
        """Raises ValueError if these shards cannot give such crops or augmentations."""
        if self.latents:
            stored = self.manifest.settings["augment"]
            if crop != self.tile:
                raise ValueError(
                    f"data.crop is {crop}, but the latents in {self.place} are those of tiles of"
                    f" {self.tile} pixels: set data.crop to it"
                )
            if augment != stored:
                raise ValueError(
                    f"data.augment is {augment}, but {self.place} holds latents of {stored}"
                    f" (mirrored images have other latents): set data.augment to {stored}, or write"
                    f" them with `python -m lit_mimdit data latents --augment {augment}`"
                )
        elif crop is not None and self.tile is not None and crop > self.tile:
            raise ValueError(
                f"data.crop is {crop}, but {self.place} holds tiles of {self.tile} pixels: lower"
                " data.crop, or cut larger tiles"
            )

    def read(
        self, index: int, crop: int | None, draw: np.random.Generator | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `Source.read`. A drawn crop lies in one tile, which is drawn first, all alike."""
        number, row = self._locate(index)
        held = self._index(number)
        name = f"pair {held.ids[row]} in {self.manifest.shards[number].name}"
        height, width = map(int, held.sizes[row])
        first, last = int(held.first[row]), int(held.first[row + 1])
        if crop is None or draw is None:
            region = Region(0, 0, height, width)
            if crop is not None:
                region = Region(*place_crop(height, width, crop, None, name), crop, crop)
            return self._region(number, held, range(first, last), region)
        tile = self._draw_tile(held, row, draw, name)
        box = Region(*map(int, held.boxes[tile]))
        top, left = place_crop(box.height, box.width, crop, draw, name)
        lq, gt = self._decode(number, held, tile)
        return lq[top : top + crop, left : left + crop], gt[top : top + crop, left : left + crop]

    def indices(self, number: int) -> range:
        """Returns the pairs of a shard."""
        end = int(self.ends[number])
        return range(end - len(self.manifest.shards[number]), end)

    def tiles(self, index: int) -> tuple[int, int, list[tuple[Region, np.ndarray, np.ndarray]]]:
        """Returns height and width of a pair and all of its tiles, decoded: box, LQ, GT."""
        number, row = self._locate(index)
        held = self._index(number)
        tiles = range(int(held.first[row]), int(held.first[row + 1]))
        height, width = map(int, held.sizes[row])
        return (
            height,
            width,
            [
                (Region(*map(int, held.boxes[tile])), *self._decode(number, held, tile))
                for tile in tiles
            ],
        )

    def stored_latents(self, index: int) -> tuple[int, int, list[tuple[Region, list[Stored]]]]:
        """Returns height and width of a pair, and what is stored of all of its tiles.

        Each tile has its box and, for each orientation, tensors by name.
        """
        number, row = self._locate(index)
        held = self._index(number)
        name = f"pair {held.ids[row]} in {self.manifest.shards[number].name}"
        orientations, tiles = list(range(held.spans.shape[1])), []
        for tile in range(int(held.first[row]), int(held.first[row + 1])):
            members = self._members(number, held, tile, orientations)
            stored = [self._tensors(data, name, tile) for data in members]
            tiles.append((Region(*map(int, held.boxes[tile])), stored))
        height, width = map(int, held.sizes[row])
        return height, width, tiles

    def size(self, index: int) -> tuple[int, int]:
        """Returns height and width of a pair, pixels."""
        number, row = self._locate(index)
        height, width = self._index(number).sizes[row]
        return int(height), int(width)

    def require_readable(self, index: int) -> None:
        """ImageError if anything that is stored of a pair cannot be read."""
        if not self.latents:
            self.tiles(index)
            return
        self.stored_latents(index)

    def _tensors(self, data: bytes, name: str, tile: int) -> dict[str, Tensor]:
        try:
            return load(data)
        except SafetensorError as error:
            raise ImageError(f"{name}: latents of tile {tile} cannot be read ({error})") from error

    def read_latents(
        self, index: int, draw: np.random.Generator, augment: Augment
    ) -> dict[str, Tensor]:
        """z_lq and z_gt of one tile, with what `read` and the augmentation after it would draw
        (latent_shards.py wrote them). Where a teacher's result is stored beside them, it comes as
        z_teacher, with the seed of its noise as noise_seed (teacher_shards.py).
        """
        number, row = self._locate(index)
        held = self._index(number)
        name = f"pair {held.ids[row]} in {self.manifest.shards[number].name}"
        tile = self._draw_tile(held, row, draw, name)
        (data,) = self._members(
            number, held, tile, [variant(*draw_symmetry(draw, augment), augment)]
        )
        tensors = self._tensors(data, name, tile)
        latents = {f"z_{side}": self._latent(tensors, side, draw) for side in ("lq", "gt")}
        if "teacher" in tensors:
            latents |= {"z_teacher": tensors["teacher"].float()}
            latents |= {"noise_seed": tensors["noise_seed"]}
        return latents

    def _latent(self, tensors: dict[str, Tensor], side: str, draw: np.random.Generator) -> Tensor:
        mode = tensors[side].float()
        if side == "lq" or not self.sample_latents:
            return mode
        noise = torch.from_numpy(draw.standard_normal(mode.shape, np.float32))
        return mode + torch.exp(0.5 * tensors[f"{side}_logvar"].float()) * noise

    def take_notes(self) -> list[Fault]:
        notes, self.notes = self.notes, []
        return notes

    def _note(self, id: str, reason: str) -> None:
        if id not in self._noted:
            self._noted.add(id)
            self.notes.append(Fault(id, reason, lost=False))

    def _locate(self, index: int) -> tuple[int, int]:
        """(shard, row in it) of a pair."""
        number = int(np.searchsorted(self.ends, index, side="right"))
        return number, index - (int(self.ends[number - 1]) if number else 0)

    def _index(self, number: int) -> Index:
        if number not in self._indices:
            shard = self.manifest.shards[number]
            where = f"{self.place}/{shard.index}"
            try:
                self._indices[number] = Index.parse(self.store.get(shard.index), shard, where)
            except ImageError:
                raise
            except Exception as error:  # numpy answers broken archives with errors of every type
                raise ImageError(f"{where}: {' '.join(str(error).split())[:200]}") from error
            if len(self._indices) > _INDICES:
                self._indices.popitem(last=False)
        self._indices.move_to_end(number)
        return self._indices[number]

    def _draw_tile(self, held: Index, row: int, draw: np.random.Generator, name: str) -> int:
        first, count = int(held.first[row]), int(held.first[row + 1] - held.first[row])
        if count == 0:
            raise ImageError(f"{name} is smaller than a tile of {self.tile} pixels")
        return first + (int(draw.integers(count)) if count > 1 else 0)

    def _region(
        self, number: int, held: Index, tiles: range, region: Region
    ) -> tuple[np.ndarray, np.ndarray]:
        """Both images of a region, put together from the tiles that it touches."""
        out: list[np.ndarray | None] = [None, None]
        for tile in tiles:
            box = Region(*map(int, held.boxes[tile]))
            part = shared(box, region)
            if part is None:
                continue
            if part == region == box:  # a whole image that is one tile
                return self._decode(number, held, tile)
            for side, pixels in enumerate(self._decode(number, held, tile)):
                if out[side] is None:
                    out[side] = np.zeros((region.height, region.width, 3), pixels.dtype)
                top, left = part.top - region.top, part.left - region.left
                inner = pixels[part.top - box.top :, part.left - box.left :][
                    : part.height, : part.width
                ]
                out[side][top : top + part.height, left : left + part.width] = inner
        return out[0], out[1]

    def _decode(self, number: int, held: Index, tile: int) -> tuple[np.ndarray, np.ndarray]:
        images, name = (
            [],
            (
                f"pair {held.ids[np.searchsorted(held.first, tile, side='right') - 1]} in"
                f" {self.manifest.shards[number].name}"
            ),
        )
        height, width = map(int, held.boxes[tile][2:])
        for side, data in zip(("LQ", "GT"), self._members(number, held, tile, [0, 1]), strict=True):
            pixels = read_rgb(f"{name}: {side}, tile {tile}", data)
            if pixels.shape[:2] != (height, width):
                raise ImageError(
                    f"{name}: {side}, tile {tile} is {pixels.shape[1]} x {pixels.shape[0]} pixels,"
                    f" not {width} x {height}"
                )
            images.append(pixels)
        return images[0], images[1]

    def _members(self, number: int, held: Index, tile: int, members: list[int]) -> list[bytes]:
        """The bytes of members of a tile, with their checksums checked."""
        spans, shard = (
            [tuple(span) for span in held.spans[tile][members].tolist()],
            self.manifest.shards[number],
        )
        for cached in (True, False) if self.cache is not None else (False,):
            parts = self._cached(number, spans) if cached else self.store.parts(shard.name, spans)
            if parts is None:
                continue
            if all(
                zlib.crc32(part) == crc
                for part, crc in zip(parts, held.crc[tile][members].tolist(), strict=True)
            ):
                return parts
            if cached:
                self.cache.drop(self.cache.folder / f"{shard.sha256[:16]}-{shard.name}")
        raise ImageError(
            f"{self.place}/{shard.name}: the checksum of tile {tile} differs from the index's; copy"
            " this shard again"
        )

    def _cached(self, number: int, spans: list[tuple[int, int]]) -> list[bytes] | None:
        """Parts of the local copy of a shard; None, with a note, if the cache cannot give them."""
        shard = self.manifest.shards[number]
        try:
            for _ in range(2):
                try:
                    return read_parts(self.cache.path(shard, self.store), spans)
                except FileNotFoundError:
                    continue  # another process made room of it just now
        except CacheError as error:
            self._note(error.id, str(error))
        return None
