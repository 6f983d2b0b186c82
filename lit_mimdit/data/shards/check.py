"""Shards are compared with their manifest.

Checked are the checksums, the names in the tar files, and every decoded image or latent.
"""

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from threading import local
from typing import NamedTuple

from tqdm import tqdm

from lit_mimdit.data.contact_sheet import Pixels
from lit_mimdit.data.findings import Findings
from lit_mimdit.data.image_io import ImageError
from lit_mimdit.data.shards.manifest import MANIFEST, PLAN, QUARANTINE
from lit_mimdit.data.shards.source import ShardSource


class PairReport(NamedTuple):
    """The findings about one pair of a shard.

    Args:
        degradation: of the pair.
        size: (height, width) in pixels; None if it cannot be read.
        problems: a line for each.
    """

    degradation: str
    size: tuple[int, int] | None
    problems: list[str]


class ShardReport(NamedTuple):
    """The findings about one shard: its problems as a file, and a report of each pair."""

    problems: list[str]
    pairs: list[PairReport]


def check_shards(
    place: str, decode: bool, workers: int
) -> tuple[Findings, list[tuple[str, str]], Callable[[int], tuple[Pixels, Pixels]]]:
    """Check every shard of a folder against its manifest.

    Args:
        place: folder or address of the shards.
        decode: decode every image or latent as well.
        workers: threads, each with a shard of its own.

    Returns:
        the findings, (degradation, id) of each pair, and a reader of a pair's pixels for the
        contact sheet. Latents have no pixels to show: their list of pairs is empty.
    """
    source = ShardSource(place)
    manifest = source.manifest
    findings = Findings(f"{place}: {len(manifest.shards)} shards of {manifest.kind}", len(source))
    encoding = str(manifest.settings.get("codec") or manifest.settings.get("dtype"))
    with tqdm(total=len(source), unit="pair", desc="checking", dynamic_ncols=True) as bar:
        for report in _reports(place, len(manifest.shards), decode, workers):
            _add_shard(findings, report, encoding)
            bar.update(len(report.pairs))
            bar.set_postfix(problems=len(findings.problems))
    if "://" not in place:
        findings.problems += _strangers(Path(place), source)
    findings.left_out = [f"{id}: {reason}" for id, reason in manifest.failed]

    def read(index: int) -> tuple[Pixels, Pixels]:
        try:
            return source.read(index, None, None)
        except ImageError:
            return None, None

    return findings, _names(source), read


def _reports(place: str, shards: int, decode: bool, workers: int) -> Iterator[ShardReport]:
    """The report of each shard in order, made by several threads at once."""
    own = local()  # a source keeps files open, so each thread has one of its own

    def look(number: int) -> ShardReport:
        if not hasattr(own, "source"):
            own.source = ShardSource(place)
        return _look_at_shard(own.source, number, decode)

    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(look, range(shards))


def _look_at_shard(source: ShardSource, number: int, decode: bool) -> ShardReport:
    """One shard as a file, and each of its pairs."""
    problems = _shard_problems(source, number)
    pairs = []
    for index in source.indices(number):
        degradation, id = source.about(index).degradation, source.about(index).id
        try:
            size = source.size(index)
        except ImageError as error:
            # a broken index says the same of each of its pairs: it is listed once
            size, problem = None, f"unreadable: {error}"
            if problem not in problems:
                problems.append(problem)
        broken = []
        if decode and size is not None:
            try:
                source.require_readable(index)
            except ImageError as error:
                broken = [f"unreadable: {id}: {error}"]
        pairs.append(PairReport(degradation, size, broken))
    return ShardReport(problems, pairs)


def _add_shard(findings: Findings, report: ShardReport, encoding: str) -> None:
    """Count the pairs of a shard in the findings, and add its problems."""
    findings.problems += report.problems
    for pair in report.pairs:
        summary = findings.types[pair.degradation]
        summary.pairs += 1
        summary.extensions[encoding] += 1
        if pair.size is not None:
            height, width = pair.size
            summary.sizes[width, height] += 1
        findings.add_problems(pair.degradation, pair.problems)


def _names(source: ShardSource) -> list[tuple[str, str]]:
    """(degradation, id) of each pair of images; none of latents, which have no pixels to show."""
    if source.latents:
        return []
    pairs = map(source.about, range(len(source)))
    return [(pair.degradation, pair.id) for pair in pairs]


def _strangers(folder: Path, source: ShardSource) -> list[str]:
    """A line for each file that the manifest does not know."""
    known = {MANIFEST, PLAN, QUARANTINE}
    for shard in source.manifest.shards:
        known |= {shard.name, shard.index}
    files = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    return [
        f"unknown: {folder / name} is not in the manifest" for name in files if name not in known
    ]


def _shard_problems(source: ShardSource, number: int) -> list[str]:
    """A line for each thing that is wrong with a shard as a file."""
    shard = source.manifest.shards[number]
    where = f"{source.place}/{shard.name}"
    stream = _Hashed(source.store.blocks(shard.name))
    try:
        problems = _tar_problems(stream, where)
        stream.finish()
    except ImageError as error:
        return [f"unreadable: {error}"]
    if stream.digest.hexdigest() != shard.sha256:
        problems.append(
            f"corrupt: {where}: its checksum differs from the manifest's; copy it again"
        )
    return problems


def _tar_problems(stream: "_Hashed", where: str) -> list[str]:
    """A line for each entry that leads outside of a tar file, or for a file that is none."""
    try:
        with tarfile.open(fileobj=io.BufferedReader(stream), mode="r|") as tar:
            wrong = [m.name for m in tar if not m.isreg() or _leads_outside(m.name)]
    except tarfile.TarError as error:
        return [f"corrupt: {where}: no tar file ({error})"]
    return [f"refused: {where}: its entry {name!r} is no file inside it" for name in wrong]


def _leads_outside(name: str) -> bool:
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts


class _Hashed(io.RawIOBase):
    """Pieces of a file as a stream that keeps its SHA-256."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces = pieces
        self.left = b""
        self.digest = hashlib.sha256()

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
