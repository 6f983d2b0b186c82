"""Shards on an S3 server and in a cache.

What fails for a while costs nothing, what stays broken is noted once.
"""

import shutil
import sys
from collections import deque
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import boto3
import filelock
import numpy as np
import pytest
from moto.server import ThreadedMotoServer

from lit_mimdit.data.check import check
from lit_mimdit.data.image_io import ImageError
from lit_mimdit.data.pairs import PairDataset
from lit_mimdit.data.shards import cache as cache_file
from lit_mimdit.data.shards.cache import ShardCache
from lit_mimdit.data.shards.source import ShardSource
from lit_mimdit.data.shards.store import open_store


def same(one: tuple, other: tuple) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def flip_byte(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 255
    path.write_bytes(data)


def upload(folder: Path, prefix: str) -> None:
    for path in folder.iterdir():
        boto3.client("s3").upload_file(str(path), "bucket", f"{prefix}/{path.name}")


@pytest.fixture(scope="module")
def server(processes) -> Iterator[ThreadedMotoServer]:
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def s3(server, shard_root, monkeypatch) -> str:
    """The shards on an S3 server on loopback."""
    values = {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "y",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for key, value in (
        values | {"AWS_ENDPOINT_URL": "http://{}:{}".format(*server.get_host_and_port())}
    ).items():
        monkeypatch.setenv(key, value)
    boto3.client("s3").create_bucket(Bucket="bucket")
    upload(shard_root, "foundir/train")
    return "s3://bucket/foundir/train"


@pytest.fixture
def faults(server, s3, monkeypatch) -> Iterator[deque[str]]:
    """Requests go through a proxy which fails in the ways that are put into this queue, one a
    request: refuse, drop, cut.
    """
    queue: deque[str] = deque()

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            fault = queue.popleft() if queue else ""
            if fault == "drop":
                self.close_connection = True
                return
            if fault == "refuse":
                self.send_error(503)
                self.close_connection = True
                return
            upstream = HTTPConnection(*server.get_host_and_port())
            upstream.request("GET", self.path, headers=dict(self.headers))
            answer = upstream.getresponse()
            body = answer.read()
            self.send_response(answer.status)
            for key, value in answer.getheaders():
                if key.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)
            self.close_connection = fault == "cut"
            upstream.close()

        def log_message(self, *_: object) -> None:
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    Thread(target=proxy.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.server_port}")
    yield queue
    proxy.shutdown()
    proxy.server_close()


def test_s3_gives_what_the_folder_gives_with_and_without_a_bounded_cache(shard_root, s3, tmp_path):
    local = ShardSource(str(shard_root))
    sizes = [entry.bytes for entry in local.manifest.shards]
    cache = ShardCache(tmp_path / "cache", max(sizes) + min(sizes))
    for source in (ShardSource(s3), ShardSource(s3, cache)):
        for index in [*range(10), 0]:
            assert same(source.read(index, None, None), local.read(index, None, None))
        assert source.take_notes() == []
    held = list((tmp_path / "cache").glob("*.tar"))
    assert 1 <= len(held) <= 2 and sum(path.stat().st_size for path in held) <= cache.limit
    flip_byte(held[0], 700), held[0].touch()
    assert all(
        same(source.read(index, None, None), local.read(index, None, None)) for index in range(10)
    ), "a damaged copy is fetched anew"


def test_a_data_set_on_s3_can_be_checked(s3, tmp_path, capsys):
    assert check(s3, contact_sheet=tmp_path / "sheet.png") == 0
    assert (
        "no problem(s), 10 pair(s)" in capsys.readouterr().out
        and (tmp_path / "sheet.png").stat().st_size > 1000
    )


@pytest.mark.parametrize("cached", [False, True])
def test_a_store_that_fails_for_a_while_costs_no_sample(shard_root, faults, s3, tmp_path, cached):
    local, source = (
        ShardSource(str(shard_root)),
        ShardSource(s3, ShardCache(tmp_path / "cache", 10**9) if cached else None, retries=4),
    )
    for index, trouble in enumerate(
        (
            ["cut", "cut"],
            ["drop", "refuse"],
            ["cut", "refuse", "cut"],
            [],
            ["refuse"],
            [],
            ["cut"],
            [],
            [],
            [],
        )
    ):
        faults.extend(trouble)
        assert (
            same(source.read(index, None, None), local.read(index, None, None))
            and source.take_notes() == []
        )
    assert cached or not faults, "all of it happened"


def test_a_large_answer_that_breaks_off_goes_on_where_it_broke(server, faults, s3):
    body = bytes(np.random.default_rng(0).integers(0, 256, 5_000_001, np.uint8))
    direct = boto3.client("s3", endpoint_url="http://{}:{}".format(*server.get_host_and_port()))
    direct.put_object(Bucket="bucket", Key="foundir/train/large", Body=body)
    store = open_store(s3, retries=3)
    faults.extend(["cut", "cut", "refuse"])
    assert b"".join(store.blocks("large")) == body and not faults
    faults.extend(["cut"] * 4)
    with pytest.raises(ImageError, match="s3://bucket/foundir/train/large: cannot be read"):
        store.get("large")


def test_a_sample_that_a_store_keeps_back_is_lost_once_and_there_again_later(faults, s3):
    source = ShardSource(s3, retries=0)
    dataset = PairDataset(source, 32, True, "flip", 0, replace=True)
    assert dataset[0, 4]["faults"] == []
    faults.append("refuse")
    sample = dataset[0, 4]
    (fault,) = sample["faults"]
    assert (
        fault.lost
        and fault.id == source.about(4).id != sample["id"]
        and "cannot be read" in fault.reason
        and "503" in fault.reason
    )
    assert dataset[0, 4]["id"] == fault.id
    faults.append("drop")
    with pytest.raises(ImageError, match="s3://bucket/foundir/train/manifest.json: cannot be read"):
        ShardSource(s3, retries=0)


@pytest.mark.parametrize("cached", [False, True])
def test_a_damaged_shard_on_s3_costs_its_damaged_pair_only(shard_root, s3, tmp_path, cached):
    local, copy = ShardSource(str(shard_root)), Path(shutil.copytree(shard_root, tmp_path / "copy"))
    flip_byte(copy / "shard-000001.tar", int(local._index(1).spans[0, 0, 0]) + 30)
    upload(copy, "damaged")
    boto3.client("s3").delete_object(Bucket="bucket", Key="damaged/shard-000003.tar")
    source = ShardSource(
        "s3://bucket/damaged", ShardCache(tmp_path / "cache", 10**9) if cached else None, retries=0
    )
    for index in (3, 9):
        with pytest.raises(
            ImageError,
            match="checksum of tile 0 differs from the index's" if index == 3 else "NoSuchKey",
        ):
            source.read(index, None, None)
    for index in (*range(3), *range(4, 9)):
        assert same(source.read(index, None, None), local.read(index, None, None))
    notes = source.take_notes()
    assert [(note.id, note.lost) for note in notes] == (
        [("shard-000001.tar", False)] if cached else []
    )


def test_a_cache_that_cannot_be_written_is_noted_once_and_done_without(shard_root, tmp_path):
    (tmp_path / "file").touch()
    source = ShardSource(str(shard_root), ShardCache(tmp_path / "file" / "cache", 10**9))
    assert all(source.read(index, None, None)[0].shape == (48, 48, 3) for index in range(10))
    (note,) = source.take_notes()
    assert note.id == "cache" and not note.lost and source.take_notes() == []


def test_a_cache_that_is_too_small_says_so(shard_root, tmp_path):
    source = ShardSource(str(shard_root), ShardCache(tmp_path / "cache", 1000))
    assert source.read(0, None, None)[0].shape == (48, 48, 3)
    (note,) = source.take_notes()
    assert (
        note.id == "cache" and "larger than the cache of 1000: raise data.cache_gb" in note.reason
    )


def test_a_shard_that_another_process_fetches_for_too_long_is_read_where_it_lies(
    shard_root, tmp_path, monkeypatch
):
    monkeypatch.setattr(cache_file, "_PATIENCE", 0.1)
    source = ShardSource(str(shard_root), ShardCache(tmp_path / "cache", 10**9))
    entry = source.manifest.shards[0]
    (tmp_path / "cache").mkdir()
    with filelock.FileLock(tmp_path / "cache" / f"{entry.sha256[:16]}-{entry.name}.lock"):
        assert source.read(0, None, None)[0].shape == (48, 48, 3)
    (note,) = source.take_notes()
    assert note.id == "cache" and "cannot be used" in note.reason and "lock" in note.reason
    assert (
        source.read(0, None, None)[0].shape == (48, 48, 3)
        and len(list((tmp_path / "cache").glob("*.tar"))) == 1
    )


NO_FCNTL = """
import sys
sys.modules["fcntl"] = None  # as on a system that has none
from lit_mimdit.data.shards.cache import ShardCache
from lit_mimdit.data.shards.source import ShardSource
source = ShardSource(sys.argv[1], ShardCache(sys.argv[2], 10**9))
assert source.read(0, None, None)[0].shape == (48, 48, 3) and source.take_notes() == []
"""


def test_the_cache_works_without_fcntl(processes, shard_root, tmp_path):
    processes.run(
        [sys.executable, "-W", "ignore", "-c", NO_FCNTL, str(shard_root), str(tmp_path / "cache")],
        check=True,
        timeout=300,
    )
    assert len(list((tmp_path / "cache").glob("*.tar"))) == 1
