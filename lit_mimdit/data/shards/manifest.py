"""A folder of shards has manifest.json for all of it and one index a shard.

Names and places in them are checked, not trusted.
"""

import hashlib
import io
import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

FORMAT = "lit_mimdit.shards.1"
MANIFEST = "manifest.json"
PLAN = "plan.json"
QUARANTINE = "quarantine.csv"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)+")


def checked_name(name: Any, where: str) -> str:
    """Returns the name of a file directly in the folder of shards; ValueError for anything that
    could lead out of it.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"{where}: refused the file name {name!r}: it must be a plain name in the same folder"
        )
    return name


@dataclass
class Shard:
    """One tar file and its index.

    Args:
        name: name of the tar file, such as shard-000000.tar.
        bytes: size of the tar file.
        sha256: hash of the tar file.
        index: name of its index, such as shard-000000.npz.
        index_sha256: hash of the index.
        groups: degradation of each pair, as a position in `degradations`.
    """

    name: str
    bytes: int
    sha256: str
    index: str
    index_sha256: str
    groups: list[int]

    def __len__(self) -> int:
        return len(self.groups)


@dataclass
class Manifest:
    """A whole folder of shards.

    Args:
        kind: what the shards hold.
        settings: how they were written. Images have tile, overlap, codec and quality. Latents have
            the VAE, the variants and the precision.
        degradations: names of all degradations.
        shards: every shard.
        failed: id and reason of each pair that was left out.
        format: version of this file.
    """

    kind: Literal["images", "latents"]
    settings: dict[str, Any]
    degradations: list[str]
    shards: list[Shard]
    failed: list[tuple[str, str]] = field(default_factory=list)
    format: str = FORMAT

    def dump(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def parse(cls, data: bytes, where: str) -> "Manifest":
        """Reads a manifest.

        Raises ValueError if this is none, or one whose names lead elsewhere.
        """
        try:
            values = json.loads(data)
            if values.get("format") != FORMAT:
                raise ValueError(f"its format is {values.get('format')!r} and not {FORMAT!r}")
            values["shards"] = [Shard(**shard) for shard in values["shards"]]
            values["failed"] = [(id, reason) for id, reason in values["failed"]]
            manifest = cls(**values)
            if manifest.kind not in ("images", "latents"):
                raise ValueError(f"its kind is {manifest.kind!r} and neither images nor latents")
            for shard in manifest.shards:
                checked_name(shard.name, where), checked_name(shard.index, where)
                if shard.groups and not 0 <= min(shard.groups) <= max(shard.groups) < len(
                    manifest.degradations
                ):
                    raise ValueError(f"{shard.name} has an unlisted degradation")
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                f"{where}: not a manifest of shards ({error}); write them again with `python -m"
                " lit_mimdit data shard`"
            ) from error
        return manifest


@dataclass
class Index:
    """The places of everything in one shard.

    P counts pairs, T tiles, and M the members of a tile. Images have two members, LQ and GT;
    latents have one for each augmentation.

    Args:
        ids: (P,) names of the pairs.
        sizes: (P, 2) height and width of the images, pixels.
        first: (P + 1,) the tiles of pair p are first[p] to first[p + 1].
        boxes: (T, 4) top, left, height and width of the tiles, pixels.
        spans: (T, M, 2) offset and length in the tar file, bytes.
        crc: (T, M) CRC-32 of each member.
    """

    ids: np.ndarray
    sizes: np.ndarray
    first: np.ndarray
    boxes: np.ndarray
    spans: np.ndarray
    crc: np.ndarray

    def dump(self) -> bytes:
        buffer = io.BytesIO()
        np.savez(buffer, **vars(self))
        return buffer.getvalue()

    @classmethod
    def parse(cls, data: bytes, shard: Shard, where: str) -> "Index":
        """Reads an index.

        Raises ValueError if it is not the one that the manifest means, or if it points outside the
        shard.
        """
        if sha256(data) != shard.index_sha256:
            raise ValueError(f"{where}: its checksum differs from the manifest's; copy it again")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            index = cls(**{name: arrays[name] for name in cls.__dataclass_fields__})
        tiles = len(index.boxes)
        whole = len(index.ids) == len(shard) == len(index.sizes) == len(
            index.first
        ) - 1 and index.first[-1] == tiles == len(index.spans)
        if (
            not whole
            or np.any(np.diff(index.first) < 0)
            or index.spans.shape[:2] != index.crc.shape
        ):
            raise ValueError(f"{where}: its arrays do not fit together; write this shard again")
        if tiles and (index.spans.min() < 0 or index.spans.sum(-1).max() > shard.bytes):
            raise ValueError(
                f"{where}: refused, it points outside {shard.name}; write this shard again"
            )
        return index


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
