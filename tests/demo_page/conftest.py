"""A workbench around the small network, and photographs for it."""

from pathlib import Path

import pytest
import torch

from lit_mimdit.data.image_io import write_photo
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
