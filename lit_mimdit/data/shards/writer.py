"""One shard: a tar file that WebDataset reads too, its index, and a note of what came of it."""

import hashlib
import json
import os
import secrets
import tarfile
import zlib
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lit_mimdit.data.shards.manifest import Index, Shard, sha256
from lit_mimdit.data.tiles import Region
from lit_mimdit.files import write_bytes

Member = tuple[str, bytes]  # extension and content


class ShardWriter:
    """A tar file and its index, which appear together and whole when the block ends; and what could
    not be put into it.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self.tar, self.index = (folder / f"shard-{number:06d}{end}" for end in (".tar", ".npz"))
        self.part = (
            folder / f".{self.tar.name}.{secrets.token_hex(4)}.part"
        )  # its own: an orphan of a killed run may be writing still
        self.ids: list[str] = []
        self.sizes: list[tuple[int, int]] = []
        self.groups: list[str] = []
        self.first, self.boxes = [0], []
        self.failed: list[tuple[str, str]] = []
        self._crc: dict[str, int] = {}
        self._keys: list[list[str]] = []

    def __enter__(self) -> "ShardWriter":
        from webdataset import TarWriter

        self._file = open(self.part, "wb")
        self._writer = TarWriter(
            self._file, mtime=0
        )  # no clock: the same pairs make the same bytes
        return self

    def add(
        self, pair: Any, height: int, width: int, tiles: Iterable[tuple[Region, list[Member]]]
    ) -> None:
        """A pair with the members of each of its tiles; keys of members sort as they are given,
        their names begin with `lq`, `gt`, ...
        """
        about = {"id": pair.id, "degradation": pair.degradation, "size": [height, width]}
        for box, members in tiles:
            key = f"{len(self.ids):06d}/{len(self.boxes) - self.first[-1]:04d}"
            self._writer.write({"__key__": key, "json": about | {"box": box}} | dict(members))
            self._crc |= {f"{key}.{extension}": zlib.crc32(data) for extension, data in members}
            self._keys.append([f"{key}.{extension}" for extension, _ in members])
            self.boxes.append(box)
        self.ids.append(pair.id)
        self.groups.append(pair.degradation)
        self.sizes.append((height, width))
        self.first.append(len(self.boxes))

    def __exit__(self, kind: Any, *_: Any) -> None:
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if kind is not None:
            self.part.unlink(missing_ok=True)
            return
        with tarfile.open(self.part) as tar:
            places = {member.name: (member.offset_data, member.size) for member in tar}
        rows, members = len(self._keys), len(self._keys[0]) if self._keys else 0
        spans = np.array([[places[name] for name in row] for row in self._keys], np.int64).reshape(
            rows, members, 2
        )
        crc = np.array(
            [[self._crc[name] for name in row] for row in self._keys], np.uint32
        ).reshape(rows, members)
        index = Index(
            np.array(self.ids, dtype=str),
            np.array(self.sizes, np.int32).reshape(-1, 2),
            np.array(self.first, np.int32),
            np.array(self.boxes, np.int32).reshape(-1, 4),
            spans,
            crc,
        ).dump()
        digest = hashlib.sha256()
        with open(self.part, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        size = self.part.stat().st_size
        os.replace(self.part, self.tar)
        write_bytes(self.index, index)
        entry = Shard(self.tar.name, size, digest.hexdigest(), self.index.name, sha256(index), [])
        # last: a shard counts as written when this is there
        write_bytes(
            done_file(self.tar.parent, self.tar.stem),
            json.dumps([asdict(entry), self.groups, self.failed]).encode(),
        )


def done_file(folder: Path, stem: str) -> Path:
    return folder / f".{stem}.done"


def read_done(folder: Path, number: int) -> tuple[Shard, list[str], list[tuple[str, str]]] | None:
    """(shard, degradation of each pair, pairs left out) of a shard that is written, else None."""
    path = done_file(folder, f"shard-{number:06d}")
    if not path.is_file():
        return None
    entry, groups, failed = json.loads(path.read_text(encoding="utf-8"))
    shard = Shard(**entry)
    whole = (
        all((folder / name).is_file() for name in (shard.name, shard.index))
        and (folder / shard.name).stat().st_size == shard.bytes
    )
    return (shard, groups, [tuple(item) for item in failed]) if whole else None
