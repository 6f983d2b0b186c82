"""Bytes of named files below a place: a folder (local disk, NFS) or s3://bucket/folder."""

import os
import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Protocol

from lit_mimdit.data.image_io import ImageError

_OPEN_FILES = 32  # that a process keeps open: opening one on a network disk takes milliseconds
_BLOCK = 1 << 20


class Store(Protocol):
    """Raises `ImageError` for whatever cannot be had."""

    place: str

    def get(self, name: str) -> bytes: ...

    def parts(self, name: str, spans: list[tuple[int, int]]) -> list[bytes]:
        """Returns parts of a file that lie side by side: (offset, length) of each."""

    def blocks(self, name: str) -> Iterator[bytes]:
        """A whole file, piece by piece."""


def open_store(place: str, retries: int = 10) -> Store:
    """Returns the store of a place; `retries` are of requests to S3 that fail."""
    if "://" not in place:
        return FolderStore(place)
    if not place.startswith("s3://"):
        raise ValueError(f"shards: no reader for {place!r}; give a folder or s3://bucket/folder")
    return S3Store(place, retries)


class FolderStore:
    def __init__(self, place: str) -> None:
        self.place = place
        self._files: OrderedDict[str, int] = OrderedDict()
        self._owner = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {"place": self.place, "_files": OrderedDict(), "_owner": -1}

    def _open(self, name: str) -> int:
        if self._owner != os.getpid():  # forked: the parent's files are the parent's to close
            self._files, self._owner = OrderedDict(), os.getpid()
        if name not in self._files:
            self._files[name] = os.open(os.path.join(self.place, name), os.O_RDONLY)
            if len(self._files) > _OPEN_FILES:
                os.close(self._files.popitem(last=False)[1])
        self._files.move_to_end(name)
        return self._files[name]

    def _failed(self, name: str, error: OSError) -> ImageError:
        if name in self._files and self._owner == os.getpid():
            os.close(self._files.pop(name))
        return ImageError(
            f"{os.path.join(self.place, name)}: cannot be read: {error.strerror or error}"
        )

    def get(self, name: str) -> bytes:
        return b"".join(self.blocks(name))

    def parts(self, name: str, spans: list[tuple[int, int]]) -> list[bytes]:
        where, read = os.path.join(self.place, name), []
        try:
            for offset, length in spans:  # of one read for all, each would be a copy
                read.append(_whole(os.pread(self._open(name), length, offset), length, where))
        except OSError as error:
            raise self._failed(name, error) from error
        return read

    def blocks(self, name: str) -> Iterator[bytes]:
        try:
            with open(os.path.join(self.place, name), "rb") as file:
                while block := file.read(_BLOCK):
                    yield block
        except OSError as error:
            raise self._failed(name, error) from error


class S3Store:
    """Credentials, region and endpoint are boto3's: environment, ~/.aws, or the machine's role.

    botocore repeats requests that fail by network or by server, with growing pauses. Ten retries
    take about a minute and a half. What breaks while its answer is read is asked for again here.
    """

    def __init__(self, place: str, retries: int) -> None:
        if retries < 0:
            raise ValueError(f"data.retries is {retries}: it must be 0 or more")
        self.place, self.retries = place, retries
        bucket, _, folder = place.removeprefix("s3://").partition("/")
        self.bucket, self.folder = bucket, folder.strip("/")
        self._client, self._owner = None, -1

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_client": None, "_owner": -1}

    def _connect(self) -> Any:
        if self._owner != os.getpid():  # a forked worker shares no connection
            try:
                import boto3
                from botocore.config import Config
            except ModuleNotFoundError as error:
                raise ValueError(
                    f"{self.place} is on S3, and {error.name} is not installed: install it with"
                    ' pip install "boto3>=1.35,<2"'
                ) from error

            retries = {"total_max_attempts": self.retries + 1, "mode": "standard"}
            config = Config(retries=retries, connect_timeout=10, read_timeout=60)
            self._client, self._owner = (
                boto3.session.Session().client("s3", config=config),
                os.getpid(),
            )
        return self._client

    def _body(self, name: str, **options: str) -> Any:
        return self._connect().get_object(
            Bucket=self.bucket, Key=f"{self.folder}/{name}".lstrip("/"), **options
        )["Body"]

    def _pieces(self, name: str, start: int, end: int | None, size: int) -> Iterator[bytes]:
        """Bytes from `start` to `end` in pieces; without an end those of the whole file.

        An answer that breaks off is asked for again from where it broke.
        """
        from botocore.exceptions import BotoCoreError, ClientError, IncompleteReadError
        from urllib3.exceptions import HTTPError

        breaks = 0
        while True:
            options = (
                {}
                if start == 0 and end is None
                else {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
            )
            try:
                body = self._body(name, **options)
            except (
                BotoCoreError,
                ClientError,
            ) as error:  # botocore has asked as often as it was told
                raise self._failed(name, error) from error
            try:
                for piece in body.iter_chunks(size):
                    start += len(piece)
                    yield piece
                if end is None or start >= end:
                    return
                broken: Exception = IncompleteReadError(actual_bytes=start, expected_bytes=end)
            except (BotoCoreError, HTTPError) as error:
                broken = error
            if breaks == self.retries:
                raise self._failed(name, broken) from broken
            time.sleep(min(0.1 * 2**breaks, 5.0))
            breaks += 1

    def _failed(self, name: str, error: Exception) -> ImageError:
        return ImageError(
            f"{self.place}/{name}: cannot be read: {' '.join(str(error).split())[:200]}"
        )

    def get(self, name: str) -> bytes:
        return b"".join(self.blocks(name))

    def parts(self, name: str, spans: list[tuple[int, int]]) -> list[bytes]:
        start, end = (
            min(offset for offset, _ in spans),
            max(offset + length for offset, length in spans),
        )
        data = _whole(
            b"".join(self._pieces(name, start, end, end - start)),
            end - start,
            f"{self.place}/{name}",
        )  # in one request
        return [data[offset - start : offset - start + length] for offset, length in spans]

    def blocks(self, name: str) -> Iterator[bytes]:
        return self._pieces(name, 0, None, _BLOCK)


def _whole(data: bytes, length: int | None, where: str) -> bytes:
    if length is not None and len(data) != length:
        raise ImageError(
            f"{where}: truncated: {len(data)} bytes where {length} were expected; copy it again"
        )
    return data
