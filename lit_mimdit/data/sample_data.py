"""Sample data are a tree in FoundIR's layout.

It is made of the photographs of installed packages and this package's degradations.
"""

from __future__ import annotations

import csv
import secrets
import shutil
from itertools import chain
from pathlib import Path

from tqdm import tqdm

from lit_mimdit.data import photographs
from lit_mimdit.data.composition import FOUNDIR_TYPES
from lit_mimdit.data.degradations import SEVERITIES, check_severity
from lit_mimdit.data.photographs import SPLITS, Split
from lit_mimdit.data.samples import Sample, Sources, draw_samples, sources_of, write_pair
from lit_mimdit.escaping import csv_cell

TABLE = "samples.csv"
COLUMNS = (
    "id",
    "split",
    "type",
    "severity",
    "photograph",
    "left",
    "top",
    "right",
    "bottom",
    "seed",
    "jpeg_quality",
    "gt",
    "lq",
)


def write_sample_data(
    folder: Path,
    *,
    size: int = 256,
    train_crops: int = 12,
    val_crops: int = 3,
    test_crops: int = 3,
    types: list[str] | None = None,
    severities: tuple[str, ...] = SEVERITIES,
    seed: int = 0,
    photos: Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Write real photographs and their degraded versions as a FoundIR-layout tree.

    The tree holds train, val and test folders, each with FoundIR's type folders of GT and LQ
    images. For each pair train.txt, val.txt or test.txt has a line "GT-path, LQ-path", relative to
    the tree. How every pair was made is in samples.csv, the photographs' licences in README.txt.
    The photographs of the three splits are disjoint. The same settings and seed give the same
    files. Files of one name are equal in a tree of some types and in one of all types.

    Args:
        folder: Where to write the tree. It must not exist, be empty, or be a sample tree that
            --overwrite=true replaces.
        size: Height and width of every image, pixels. At most 300, the height of the smallest
            photograph.
        train_crops: Training pairs for each type.
        val_crops: Validation pairs for each type. With 3, each type has each severity once.
        test_crops: Test pairs for each type. With 3, each type has each severity once.
        types: FoundIR type folders to write, such as `["01Blur", "12NightRain"]`. `null` writes all
            20.
        severities: Severities to take in turn, out of `light`, `medium` and `heavy`.
        seed: Seed of every random choice.
        photos: Folder of own photographs to take instead. All of them make the test split; train
            and val stay empty.
        overwrite: Replace an existing sample tree in this folder.

    Returns:
        The folder.
    """
    target = Path(folder).resolve()
    crops: dict[Split, int] = {"train": train_crops, "val": val_crops, "test": test_crops}
    if photos is not None:
        crops |= {"train": 0, "val": 0}
    sources = sources_of(photos)
    _check_settings(size, crops, types, severities, seed, sources)
    _check_target(target, overwrite)
    wanted = FOUNDIR_TYPES if types is None else types
    samples: list[Sample] = []
    for split in SPLITS:
        drawn = draw_samples(split, crops[split], size, severities, seed, sources)
        samples += [sample for sample in drawn if sample.type in wanted]

    # Written beside the target and renamed at the end: a tree is there whole or not at all.
    partial = target.with_name(f".{target.name}.partial-{secrets.token_hex(4)}")
    try:
        partial.mkdir(parents=True)
        for sample in tqdm(samples, desc=f"writing {folder}", unit="pair"):
            write_pair(partial, sample, size, sources)
        _write_tables(partial, samples, photos)
        replaced = _move_into_place(partial, target)
    except OSError as error:
        raise OSError(
            f"sample data not written to {folder}: {error.strerror or error}; nothing was changed"
            " there"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if replaced is not None:
        shutil.rmtree(replaced)
    return Path(folder)


def _check_settings(
    size: int,
    crops: dict[Split, int],
    types: list[str] | None,
    severities: tuple[str, ...],
    seed: int,
    sources: Sources,
) -> None:
    for name in types or ():
        if name not in FOUNDIR_TYPES:
            raise ValueError(f"unknown type {name!r}: choose from {', '.join(FOUNDIR_TYPES)}")
    if not severities or types == []:
        raise ValueError(
            "severities and types need at least one entry each (types may be null, for all of them)"
        )
    for severity in severities:
        check_severity(severity)
    for split, count in crops.items():
        if count < 0:
            raise ValueError(f"{split}_crops is {count}: give 0 or more")
    if not any(crops.values()):
        raise ValueError("train_crops, val_crops and test_crops are all 0: nothing to write")
    if seed < 0:
        raise ValueError(f"seed is {seed}: give 0 or more")
    every = chain.from_iterable(sources.names.values())
    largest = min(min(sources.read(name)[0].shape[:2]) for name in every)
    if not 16 <= size <= largest:
        raise ValueError(
            f"size is {size}: give 16 to {largest}, the shorter side of the smallest photograph"
        )


def _check_target(folder: Path, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file: give a folder that does not exist yet")
    if not any(folder.iterdir()):
        return
    if not overwrite:
        raise ValueError(
            f"{folder} is not empty: give another folder, or replace the sample tree in it with"
            " --overwrite=true"
        )
    if not (folder / TABLE).is_file():
        raise ValueError(
            f"{folder} has no {TABLE}, so it is no sample tree and --overwrite=true leaves it"
            " alone: give another folder"
        )


def _write_tables(folder: Path, samples: list[Sample], photos: Path | None) -> None:
    for split in SPLITS:
        if not any(sample.split == split for sample in samples):
            continue
        lines = [f"{sample.gt}, {sample.lq}\n" for sample in samples if sample.split == split]
        (folder / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
    with open(folder / TABLE, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for sample in samples:
            writer.writerow([csv_cell(c) if isinstance(c, str) else c for c in sample.row])
    used = {sample.photograph for sample in samples}
    rows = [
        f"{p.name} ({p.split}): {p.author}; {p.licence}; {p.source}; from the package {p.package}"
        for p in photographs.PHOTOGRAPHS
        if p.name in used and photos is None
    ]
    rows = rows or sorted(used)  # own photographs: their author knows the licence
    text = (
        "Crops of photographs (GT) and their synthetically degraded versions (LQ), in the layout"
        f" of FoundIR, written by\n`python -m lit_mimdit sample-data`. {TABLE} says how each pair"
        " was made. Photographs:\n\n"
    )
    (folder / "README.txt").write_text(text + "\n".join(rows) + "\n", encoding="utf-8")


def _move_into_place(partial: Path, target: Path) -> Path | None:
    """Rename the finished tree to the target; returns where the tree that was there before now
    lies, if there was one.
    """
    replaced = None
    if target.exists() and not any(target.iterdir()):
        target.rmdir()
    elif target.exists():
        replaced = target.rename(partial.with_name(partial.name + "-replaced"))
    try:
        partial.rename(target)
    except BaseException:
        if replaced is not None:
            replaced.rename(target)
        raise
    return replaced
