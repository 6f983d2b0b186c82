"""Finds the weights of metrics, and hands them to pyiqa without its downloads.

The first hit of these places wins:

- the folder given
- $LIT_MIMDIT_WEIGHTS
- `weights` in the working directory
- the torch hub cache ($TORCH_HOME/hub) that pyiqa and torchvision share, and ~/.cache/clip

The first three may be flat, or have the sub-folders of a torch hub cache.
"""

import hashlib
import os
import shutil
import tempfile
import urllib.error
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from lit_mimdit.evaluation.metrics import Metric, WeightFile

VARIABLE = "LIT_MIMDIT_WEIGHTS"


def own_folders(extra: Path | None = None) -> list[Path]:
    """Returns the folders of the user's own, best first; `--download` writes into the first."""
    given = [extra] if extra is not None else []
    return [
        *given,
        *([Path(os.environ[VARIABLE])] if os.environ.get(VARIABLE) else []),
        Path("weights"),
    ]


def places(file: WeightFile, extra: Path | None = None) -> list[Path]:
    """Returns every path at which this file is looked for, in order."""
    own: list[Path] = []
    for folder in own_folders(extra):
        own += [folder, folder / file.folder, folder / "hub" / file.folder]
    cache = [Path(torch.hub.get_dir()) / file.folder]
    clip = [Path.home() / ".cache" / "clip"] if file.folder == "clip" else []
    names = dict.fromkeys((file.name, file.cached))
    return [folder / name for folder in [*own, *cache, *clip] for name in names]


@dataclass(frozen=True)
class Found:
    """A file on this machine.

    sha256: of its bytes. genuine: whether they are the published file's; None where that is not
    known.
    """

    file: WeightFile
    path: Path
    sha256: str

    @property
    def genuine(self) -> bool | None:
        return self.sha256.startswith(self.file.prefix) if self.file.prefix else None


@lru_cache
def _sha256(path: Path, size: int, modified_ns: int) -> str:
    with open(path, "rb") as file:
        return (
            hashlib.file_digest(file, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else _digest(file)
        )


def _digest(file) -> str:  # Python 3.10
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def find(file: WeightFile, extra: Path | None = None) -> Found | None:
    """Returns the first of its places where the file is, or None."""
    for path in places(file, extra):
        if path.is_file():
            status = path.stat()
            return Found(file, path, _sha256(path, status.st_size, status.st_mtime_ns))
    return None


def find_all(metric: Metric, extra: Path | None = None) -> tuple[list[Found], list[WeightFile]]:
    """Returns a metric's files: those found and those missing."""
    hits = {file: find(file, extra) for file in metric.files}
    return [hit for hit in hits.values() if hit], [
        file for file, hit in hits.items() if hit is None
    ]


def download(file: WeightFile, extra: Path | None = None) -> None:
    """Fetch a file into the first of the user's own folders. ValueError if that fails."""
    folder = own_folders(extra)[0]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(
            file.source, str(folder / file.name), file.prefix, progress=True
        )
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise ValueError(
            f"{file.name}: no download from {file.source} ({error}); fetch it elsewhere and put it"
            f" into {folder}"
        ) from error


@contextmanager
def handed_to_pyiqa(hits: list[Found]) -> Iterator[None]:
    """Lets pyiqa and torchvision find exactly these files in their caches while it is open.

    Nothing is downloaded.

    A file that is not known to be the published one may hold tensors only, since pyiqa would
    unpickle anything. The check of CLIP's sha256 by pyiqa is left out, as it answers other weights
    with a download. The hash stands in every result instead. LIQE's cache of text features goes to
    a folder of its own, so that it never comes from other weights.
    """
    from pyiqa.archs import clip_model, liqe_arch
    from pyiqa.utils import download_util

    with tempfile.TemporaryDirectory() as hub, ExitStack() as stack:
        for folder in ("checkpoints", "pyiqa", "clip"):
            Path(hub, folder).mkdir()
        for hit in hits:
            target = Path(hub, hit.file.folder, hit.file.cached)
            try:
                target.symlink_to(hit.path.resolve())
            except OSError:  # a file system without links
                shutil.copyfile(hit.path, target)
        cache = os.path.join(hub, "pyiqa")
        stack.enter_context(_swapped(torch.hub, "_hub_dir", hub))
        stack.enter_context(_swapped(download_util, "DEFAULT_CACHE_DIR", cache))
        stack.enter_context(_swapped(liqe_arch, "DEFAULT_CACHE_DIR", cache))
        stack.enter_context(
            _swapped(
                clip_model,
                "_download",
                lambda url, root: os.path.join(hub, "clip", os.path.basename(url)),
            )
        )
        stack.enter_context(_swapped(torch.hub, "download_url_to_file", _refuse))
        stack.enter_context(_swapped(download_util, "download_url_to_file", _refuse))
        if not all(hit.genuine for hit in hits):
            stack.enter_context(_tensors_only())
        yield


@contextmanager
def _swapped(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


@contextmanager
def _tensors_only() -> Iterator[None]:
    """torch.load refuses everything but tensors and plain values, whatever its caller asks for."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name) if before is None else os.environ.update({name: before})


def _refuse(url: str, *_: object, **__: object) -> None:
    raise ValueError(
        f"{url}: pyiqa asks for a file that is not in lit_mimdit's table of metrics; nothing was"
        " downloaded"
    )
