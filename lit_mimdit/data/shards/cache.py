"""Whole shards kept on a local disk, within a bound: what was used least recently goes first."""

import hashlib
import os
from pathlib import Path

from filelock import BaseFileLock, FileLock

from lit_mimdit.data.shards.manifest import Shard
from lit_mimdit.data.shards.store import Store

# seconds that a process waits for another to fetch a shard, before it reads where the shard lies
_PATIENCE = 600


class CacheError(Exception):
    """The cache cannot give a shard, which may be read where it lies.

    It has the `id` of what failed ("cache", or the shard), and the reason.
    """

    def __init__(self, id: str, reason: str) -> None:
        super().__init__(reason)
        self.id = id


class ShardCache:
    """Shared by all processes of a machine: one of them fetches a shard, the others wait for it.

    Args:
        folder: made if it does not exist.
        limit: bytes that all shards in it may take together.
    """

    def __init__(self, folder: str | Path, limit: int) -> None:
        self.folder, self.limit = Path(folder), limit

    def path(self, shard: Shard, store: Store) -> Path:
        """Returns the shard's local copy, fetched and checked if it is not there.

        CacheError, or the store's ImageError.
        """
        # of the content too, so that a data set written anew under the same name is another file
        path = self.folder / f"{shard.sha256[:16]}-{shard.name}"
        try:
            os.utime(path)
            return path
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._unusable(error) from error
        if shard.bytes > self.limit:
            raise CacheError(
                "cache",
                f"{shard.name} of {shard.bytes} bytes is larger than the cache of {self.limit}:"
                " raise data.cache_gb",
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._lock(f"{path.name}.lock"):
                if not path.exists():
                    self._fetch(shard, store, path)
        except (OSError, NotImplementedError) as error:  # the second: a disk that has no locks
            raise self._unusable(error) from error
        return path

    def _unusable(self, error: Exception) -> CacheError:
        return CacheError(
            "cache",
            f"{self.folder}: the cache cannot be used: {getattr(error, 'strerror', None) or error}",
        )

    def _fetch(self, shard: Shard, store: Store, path: Path) -> None:
        for _ in range(2):  # a transfer may go wrong once
            part = (
                self.folder / f".{path.name}.part"
            )  # one process at a time; what a killed one left is written over
            try:
                digest = hashlib.sha256()
                with open(part, "wb") as file:
                    for block in store.blocks(shard.name):
                        digest.update(block)
                        file.write(block)
                if digest.hexdigest() == shard.sha256:
                    with self._lock("cache.lock"):
                        self._make_room(shard.bytes)
                        os.replace(part, path)
                    return
            finally:
                part.unlink(missing_ok=True)
        raise CacheError(
            shard.name,
            f"{store.place}/{shard.name}: its checksum differs from the manifest's; copy it again",
        )

    def _make_room(self, needed: int) -> None:
        """Remove the least recently used shards until `needed` bytes are free within the limit.

        (Who reads one still can.)
        """
        held = sorted(
            ((file.stat().st_mtime, file) for file in self.folder.glob("*.tar")),
            key=lambda item: item[0],
        )
        total = sum(file.stat().st_size for _, file in held)
        for _, file in held:
            if total + needed <= self.limit:
                break
            total -= file.stat().st_size
            file.unlink()

    def drop(self, path: Path) -> None:
        """Forget a copy that turned out to be damaged."""
        path.unlink(missing_ok=True)

    def _lock(self, name: str) -> BaseFileLock:
        """Held by one process at a time; the system frees it when that process dies."""
        return FileLock(self.folder / name, timeout=_PATIENCE)


def read_parts(path: Path, spans: list[tuple[int, int]]) -> list[bytes]:
    """Returns parts of a file, (offset, length) of each; fewer bytes if it ends before."""
    with open(path, "rb", buffering=0) as file:
        return [os.pread(file.fileno(), length, offset) for offset, length in spans]
