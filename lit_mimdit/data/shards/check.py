"""Are shards what their manifest says? Checksums, names in the tar files, and every image or latent
decoded.
"""

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from threading import local

from tqdm import tqdm

from lit_mimdit.data.contact_sheet import Pixels
from lit_mimdit.data.findings import Findings
from lit_mimdit.data.image_io import ImageError
from lit_mimdit.data.shards.manifest import MANIFEST, PLAN, QUARANTINE
from lit_mimdit.data.shards.source import ShardSource


def check_shards(
    place: str, decode: bool, workers: int
) -> tuple[Findings, list[tuple[str, str]], Callable[[int], tuple[Pixels, Pixels]]]:
    """What is found of shards, degradation and id of each pair, and a reader of a pair's pixels for
    the contact sheet (none of latents).
    """
    source = ShardSource(place)
    manifest = source.manifest
    found = Findings(f"{place}: {len(manifest.shards)} shards of {manifest.kind}", len(source))
    stored = str(manifest.settings.get("codec") or manifest.settings.get("dtype"))
    own = local()  # a source keeps files open, and is no two threads' at a time

    def look(number: int) -> tuple[list[str], list[tuple[str, tuple[int, int] | None, list[str]]]]:
        if not hasattr(own, "source"):
            own.source = ShardSource(place)
        problems, pairs = _shard_problems(own.source, number), []
        for index in own.source.indices(number):
            about, size, broken = own.source.about(index), None, []
            try:
                size = own.source.size(index)
            except ImageError as error:  # of the index, and so the same for all pairs
                problems += [text] if (text := f"unreadable: {error}") not in problems else []
            try:
                if decode and size is not None:
                    own.source.require_readable(index)
            except ImageError as error:
                broken = [f"unreadable: {about.id}: {error}"]
            pairs.append((about.degradation, size, broken))
        return problems, pairs

    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(source), unit="pair", desc="checking", dynamic_ncols=True) as bar,
    ):
        for problems, pairs in pool.map(look, range(len(manifest.shards))):
            found.problems += problems
            for degradation, size, broken in pairs:
                summary = found.types[degradation]
                summary.pairs += 1
                summary.extensions[stored] += 1
                if size is not None:
                    summary.sizes[size[1], size[0]] += 1
                found.add_problems(degradation, broken)
            bar.update(len(pairs))
            bar.set_postfix(problems=len(found.problems))
    if "://" not in place:
        found.problems += _strangers(Path(place), source)
    found.left_out = [f"{id}: {reason}" for id, reason in manifest.failed]
    names = (
        []
        if source.latents
        else [(about.degradation, about.id) for about in map(source.about, range(len(source)))]
    )

    def read(index: int) -> tuple[Pixels, Pixels]:
        try:
            return source.read(index, None, None)
        except ImageError:
            return None, None

    return found, names, read


def _strangers(folder: Path, source: ShardSource) -> list[str]:
    """Files that the manifest does not know."""
    known = {name for shard in source.manifest.shards for name in (shard.name, shard.index)} | {
        MANIFEST,
        PLAN,
        QUARANTINE,
    }
    files = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    return [
        f"unknown: {folder / name} is not in the manifest" for name in files if name not in known
    ]


def _shard_problems(source: ShardSource, number: int) -> list[str]:
    """What is wrong with a shard as a file."""
    shard = source.manifest.shards[number]
    where, problems = f"{source.place}/{shard.name}", []
    stream = _Hashed(source.store.blocks(shard.name))
    try:
        try:
            with tarfile.open(fileobj=io.BufferedReader(stream), mode="r|") as tar:
                wrong = [
                    member.name
                    for member in tar
                    if not member.isreg() or _leads_outside(member.name)
                ]
            problems += [
                f"refused: {where}: its entry {name!r} is no file inside it" for name in wrong
            ]
        except tarfile.TarError as error:
            problems.append(f"corrupt: {where}: no tar file ({error})")
        stream.finish()
    except ImageError as error:
        return [f"unreadable: {error}"]
    if stream.digest.hexdigest() != shard.sha256:
        problems.append(
            f"corrupt: {where}: its checksum differs from the manifest's; copy it again"
        )
    return problems


def _leads_outside(name: str) -> bool:
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts


class _Hashed(io.RawIOBase):
    """Pieces of a file as a stream that keeps its SHA-256."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces, self.left, self.digest = pieces, b"", hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        if not self.left:
            self.left = next(self.pieces, b"")
            self.digest.update(self.left)
        part, self.left = self.left[: len(buffer)], self.left[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)

    def finish(self) -> None:
        """Read on to the end of the file."""
        for piece in self.pieces:
            self.digest.update(piece)
