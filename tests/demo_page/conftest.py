"""A workbench around the small network, and photographs for it."""

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lit_mimdit.data.image_io import write_photo
from lit_mimdit.demo_page import server
from lit_mimdit.demo_page.compare import Systems
from lit_mimdit.demo_page.looks import Looks
from lit_mimdit.demo_page.session import Session
from lit_mimdit.demo_page.workbench import Workbench


@pytest.fixture(scope="package")
def bench(branch_file, tmp_path_factory) -> Workbench:
    made = Workbench(tmp_path_factory.mktemp("results"), branch_file, device="cpu")
    torch.manual_seed(0)
    # what computing them would take seconds for: test_looks.py does it
    made._looks = Looks(torch.rand(8, 3, 4).numpy(), ["rain"] * 4 + ["haze"] * 4)
    return made


@pytest.fixture
def session(bench) -> Session:
    return Session(bench, Systems(bench, [], "cpu"))


@pytest.fixture(scope="package")
def photo(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("photos") / "photo.png", 24, 40)


def write(path: Path, height: int, width: int, seed: int = 0) -> Path:
    """A photograph of random pixels."""
    generator = torch.Generator().manual_seed(seed)
    write_photo(path, torch.rand(3, height, width, generator=generator))
    return path


@contextlib.contextmanager
def running(app) -> Iterator[str]:
    """The application on a free port, in a thread of this process; its address."""
    import uvicorn

    with socket.socket() as free:
        free.bind((server.HOST, 0))
        port = free.getsockname()[1]
    options = {"host": server.HOST, "port": port, "log_level": "warning"}
    config = uvicorn.Config(app, **options, timeout_graceful_shutdown=1)
    own = uvicorn.Server(config)
    thread = threading.Thread(target=own.run)
    thread.start()
    while not own.started:
        assert thread.is_alive()
        time.sleep(0.02)
    try:
        yield f"http://{server.HOST}:{port}"
    finally:
        own.should_exit = True
        thread.join()


@pytest.fixture(scope="package")
def address(bench, tmp_path_factory) -> Iterator[str]:
    pytest.importorskip("gradio", reason="gradio is not installed: pip install -e '.[test]'")
    folder = tmp_path_factory.mktemp("page")
    server.offline(folder)
    session = Session(bench, Systems(bench, [], "cpu"))
    logging.getLogger("httpx").setLevel("WARNING")
    with running(server.application(session, folder, bench.folder)) as where:
        yield where
