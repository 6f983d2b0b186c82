"""All layouts speak of pairs and problems.

Here are both, a list of them, and the pairing of two folders' files by name.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lit_mimdit.data.image_io import IMAGE_EXTENSIONS

Kind = Literal["unpaired LQ", "unpaired GT", "duplicate", "missing"]


@dataclass(frozen=True, slots=True)
class Pair:
    """A degraded image and its reference."""

    id: str  # unique in the data set, such as "01Blur/0001"
    degradation: str  # such as "01Blur"
    lq: Path
    gt: Path
    dataset: str = ""  # such as "4KRD", where there are several


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that could not be paired, by name."""

    kind: Kind
    path: Path
    degradation: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.path}" + (f" ({self.detail})" if self.detail else "")


@dataclass
class PairList:
    """The pairs of a data set in natural order of their ids, and what stood in the way of more."""

    layout: str
    root: Path
    pairs: list[Pair] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.pairs)


def require_complete(listed: PairList) -> list[Pair]:
    """Returns the pairs of a list without problems.

    Raises ValueError naming the first 10 problems, or if there are no pairs.
    """
    if listed.problems:
        shown = "".join(f"\n  {problem}" for problem in listed.problems[:10])
        more = f"\n  ... and {len(listed.problems) - 10} more" if len(listed.problems) > 10 else ""
        raise ValueError(
            f"{listed.root}: {len(listed.problems)} problem(s) in this {listed.layout} data"
            f" set:{shown}{more}\nComplete or remove these files (all are listed by: python -m"
            f" lit_mimdit data check {listed.root})"
        )
    if not listed.pairs:
        raise ValueError(
            f"{listed.root}: no pairs of images found in the layout {listed.layout}; give another"
            " folder or layout"
        )
    return listed.pairs


def add_by_stem(
    listed: PairList,
    degradation: str,
    gt: Path | None,
    lq: Path | None,
    prefix: str,
    keep: set[str] | None = None,
) -> None:
    """Pair the files of two folders that have the same name, whatever their extensions.

    The id of a pair is `prefix/stem`; `keep` limits the pairs to these stems. A name that occurs
    twice in one folder makes no pair, since choosing one of the two would be a guess.
    """
    sharp, degraded = by_stem(gt), by_stem(lq)
    for stem in sorted(sharp.keys() | degraded.keys() if keep is None else keep):
        clean, bad = sharp.get(stem, []), degraded.get(stem, [])
        if len(clean) == len(bad) == 1:
            listed.pairs.append(Pair(f"{prefix}/{stem}", degradation, bad[0], clean[0]))
            continue
        listed.problems += _duplicates(clean, degradation) + _duplicates(bad, degradation)
        if not clean:
            listed.problems += [
                Problem("unpaired LQ", file, degradation, "no GT of this name") for file in bad
            ]
        if not bad:
            listed.problems += [
                Problem("unpaired GT", file, degradation, "no LQ of this name") for file in clean
            ]
        if not clean and not bad:  # a name of `keep`
            listed.problems.append(
                Problem(
                    "missing",
                    listed.root / prefix / stem,
                    degradation,
                    "no such file on either side",
                )
            )


def by_stem(folder: Path | None) -> dict[str, list[Path]]:
    """Returns the image files directly in a folder by their name without extension; hidden files
    are left out.
    """
    files: dict[str, list[Path]] = {}
    for name in sorted(os.listdir(folder)) if folder else []:
        path = Path(folder, name)
        if not name.startswith(".") and path.suffix.lower() in IMAGE_EXTENSIONS:
            files.setdefault(path.stem, []).append(path)
    return files


def unique_by_stem(listed: PairList, degradation: str, folder: Path | None) -> dict[str, Path]:
    """Returns what `by_stem` does without names that occur twice, which become problems."""
    files = by_stem(folder)
    for same in files.values():
        listed.problems += _duplicates(same, degradation)
    return {stem: same[0] for stem, same in files.items() if len(same) == 1}


def _duplicates(files: list[Path], degradation: str) -> list[Problem]:
    names = ", ".join(file.name for file in files)
    return (
        [Problem("duplicate", file, degradation, f"same name: {names}") for file in files]
        if len(files) > 1
        else []
    )


def with_sides(root: Path, gt: str, lq: str) -> list[tuple[Path, str, Path | None, Path | None]]:
    """Returns folders that hold folders `gt` and `lq`, one of them at least, with their names below
    root and both sides.

    They are root itself, or else directly below it, or else one level deeper (train/01Blur,
    test/01Blur).
    """
    below = subfolders(root)
    for folders in ([root], below, [deeper for folder in below for deeper in subfolders(folder)]):
        places = []
        for folder in folders:
            sides = side_folder(folder, gt), side_folder(folder, lq)
            if any(sides):
                places.append(
                    (
                        folder,
                        (
                            folder.relative_to(root).as_posix()
                            if folder != root
                            else root.absolute().name
                        ),
                        *sides,
                    )
                )
        if places:
            return places
    return []


def subfolders(folder: Path) -> list[Path]:
    """Returns folders directly in a folder, hidden ones left out."""
    with os.scandir(folder) as entries:
        return sorted(
            Path(entry.path)
            for entry in entries
            if entry.is_dir() and not entry.name.startswith(".")
        )


def side_folder(folder: Path, name: str) -> Path | None:
    """Returns the folder `name` directly in `folder`, in any case of letters; the exact spelling
    wins.
    """
    if (folder / name).is_dir():
        return folder / name
    return next(
        (path for path in subfolders(folder) if path.name.casefold() == name.casefold()), None
    )
