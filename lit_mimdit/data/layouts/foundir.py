"""FoundIR's test set is a tree of `<NN><Type>/{GT,LQ}/` folders.

Its training set is any tree with a meta file.
"""

import os
import sys
from pathlib import Path

from lit_mimdit import csv_file
from lit_mimdit.data.layouts.pairs import Pair, PairList, Problem, add_by_stem, with_sides


def read_foundir(listed: PairList, meta: str | Path | None = None) -> None:
    """Folders of a type with GT and LQ in each, or what the meta file says."""
    if meta is not None:
        _read_meta(listed, Path(meta))
        return
    for folder, name, gt, lq in with_sides(listed.root, "GT", "LQ"):
        add_by_stem(listed, folder.absolute().name, gt, lq, name)


def _read_meta(listed: PairList, meta: Path) -> None:
    if not meta.is_file() and not meta.is_absolute():
        meta = listed.root / meta
    try:
        lines = csv_file.decode(meta.read_bytes()).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ValueError(f"{meta}: the meta file cannot be read: {reason}") from error
    listing = _Listing(listed.root)
    taken: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        sign = "," if "," in line else csv_file.separator(line)
        names = [name.strip() for name in line.split(sign)]
        if len(names) != 2 or not all(names):
            raise ValueError(
                f"{meta}, line {number}: expected 'GT-path, LQ-path', got {line.strip()!r}"
            )
        gt, lq = (_inside(name, f"{meta}, line {number}") for name in names)
        degradation, pair_id = _degradation_and_id(lq, listed.root)
        missing = [name for name in (gt, lq) if not listing.has(name)]
        listed.problems += [
            Problem("missing", listed.root / name, degradation, f"{meta.name}, line {number}")
            for name in missing
        ]
        if pair_id in taken:
            detail = f"{meta.name}, line {number}: {pair_id} is in line {taken[pair_id]} already"
            listed.problems.append(Problem("duplicate", listed.root / lq, degradation, detail))
        elif not missing:
            listed.pairs.append(Pair(pair_id, degradation, listed.root / lq, listed.root / gt))
        taken.setdefault(pair_id, number)


def _degradation_and_id(lq: str, root: Path) -> tuple[str, str]:
    """Degradation and id from the name of an LQ file relative to the root.

    01Blur/LQ/0001.png gives 01Blur and 01Blur/0001; Rain/7.png gives Rain and Rain/7.
    """
    *parents, file = lq.split("/")
    if parents and parents[-1].casefold() == "lq":
        parents.pop()
    parents = parents or [root.absolute().name]
    return sys.intern(parents[-1]), "/".join((*parents, os.path.splitext(file)[0]))


def _inside(name: str, where: str) -> str:
    """A name of a meta file, relative to the root.

    Refused if it leads out of the root (links that the user made may).
    """
    path = os.path.normpath(name.replace("\\", "/"))
    if os.path.isabs(path) or path.split("/", 1)[0] == "..":
        raise ValueError(f"{where}: {name!r} is outside the root; paths must be relative to it")
    return path


class _Listing:
    """Tells which files exist.

    Each folder is listed once: a stat of every file of a million pairs takes hours on network
    disks.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: dict[str, frozenset[str]] = {}

    def has(self, name: str) -> bool:
        folder, _, file = name.rpartition("/")
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(
                    entry.name for entry in os.scandir(self.root / folder) if entry.is_file()
                )
            except (FileNotFoundError, NotADirectoryError):
                self._names[folder] = frozenset()
        return file in self._names[folder]
