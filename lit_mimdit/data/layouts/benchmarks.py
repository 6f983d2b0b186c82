"""The four benchmarks that are only evaluated on: 4KRD, RealRain-1K, HazeRD, UHD-LL."""

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from lit_mimdit import csv_file
from lit_mimdit.data.image_io import IMAGE_EXTENSIONS
from lit_mimdit.data.layouts.pairs import (
    Pair,
    PairList,
    Problem,
    add_by_stem,
    side_folder,
    subfolders,
    unique_by_stem,
    with_sides,
)

_REALRAIN_SPLITS = {"train": ["train"], "val": ["validation", "val"], "test": ["test"]}
UHDLL_SPLITS = {"train": "training_set", "test": "testing_set"}


def read_4krd(listed: PairList, frames: str | Path | None = None) -> None:
    """Pairs of video frames.

    The degraded frame has the same path with `blurry` in place of `sharp`. `frames` names the ones
    to use.
    """
    wanted = _frame_list(Path(frames)) if frames is not None else None
    for _, name, sharp, blurry in with_sides(listed.root, "sharp", "blurry"):
        keep = None if wanted is None else wanted.pop(name, set())
        add_by_stem(listed, "Blur", sharp, blurry, name, keep)
    for name, stems in (wanted or {}).items():
        listed.problems += [
            Problem("missing", listed.root / name / stem, "Blur", "no such frame") for stem in stems
        ]


def _frame_list(path: Path) -> dict[str, set[str]]:
    """Frames of each video.

    A line is VID_001/00001; the side folder and the extension may be there too.
    """
    try:
        lines = csv_file.decode(path.read_bytes()).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: the frame list cannot be read:"
            f" {getattr(error, 'strerror', None) or 'not UTF-8 text'}"
        ) from error
    frames = defaultdict(set)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        parts = [
            part
            for part in PurePosixPath(line.strip().replace("\\", "/")).parts
            if part.casefold() not in ("sharp", "blurry")
        ]
        if len(parts) < 2:
            raise ValueError(
                f"{path}, line {number}: expected 'VID_001/00001', got {line.strip()!r}"
            )
        frame = PurePosixPath(parts[-1])
        frames["/".join(parts[:-1])].add(
            frame.stem if frame.suffix.lower() in IMAGE_EXTENSIONS else frame.name
        )
    return dict(frames)


def read_realrain1k(listed: PairList, split: str = "test") -> None:
    """Heavy (H) and light (L) rain, each with three splits; the middle one is called validation or
    val.
    """
    _require_split(split, _REALRAIN_SPLITS)
    names = _REALRAIN_SPLITS[split]
    folders = densities(listed.root)
    if not folders:
        raise ValueError(
            f"{listed.root}: there is no folder RealRain-1k-H or RealRain-1k-L; give the data set's"
            " folder as released"
        )
    for density, folder in folders.items():
        part = next((part for name in names if (part := side_folder(folder, name))), None)
        if part is None:
            raise ValueError(
                f"{folder}: there is no folder {' or '.join(names)} for split {split!r}; give"
                " another split, or complete the data set"
            )
        add_by_stem(
            listed,
            f"Rain-{density}",
            side_folder(part, "target"),
            side_folder(part, "input"),
            f"Rain-{density}/{split}",
        )


def densities(root: Path) -> dict[str, Path]:
    """Returns the folders RealRain-1k-H and -L in root, or root itself if it is one of them."""
    matches = [
        (re.fullmatch(r"RealRain-1k-([HL])", folder.absolute().name, re.IGNORECASE), folder)
        for folder in [root, *subfolders(root)]
    ]
    return {match[1].upper(): folder for match, folder in matches if match}


def read_hazerd(listed: PairList) -> None:
    """Hazy images in simu, several of each clean one in img."""
    folder = hazerd_folder(listed.root)
    if folder is None:
        raise ValueError(
            f"{listed.root}: there are no folders img and simu; make the hazy images with the"
            " script of the release first"
        )
    clean, hazy = (
        unique_by_stem(listed, "Haze", side_folder(folder, name)) for name in ("img", "simu")
    )
    used = set()
    for stem, lq in hazy.items():
        fields = stem.split("_")
        # The release's script writes <scene>_<visual range> for <scene>_RGB. Users' copies have
        # other endings, after a scene of two fields. The longest scene is tried first, so that
        # A_B_C_50 never takes A_B_RGB if there is A_B_C_RGB.
        scenes = ["_".join(fields[:-1]), "_".join(fields[:2])]
        candidates = [f"{scenes[0]}_RGB", scenes[0], f"{scenes[1]}_RGB"]
        scene = next((name for name in candidates if name in clean), None)
        if scene is None:
            listed.problems.append(
                Problem("unpaired LQ", lq, "Haze", f"no clean image {candidates[-1]}")
            )
        else:
            used.add(scene)
            listed.pairs.append(Pair(stem, "Haze", lq, clean[scene]))
    listed.problems += [
        Problem("unpaired GT", gt, "Haze", "no hazy image is made from it")
        for stem, gt in clean.items()
        if stem not in used
    ]


def hazerd_folder(root: Path) -> Path | None:
    """Returns the folder with img and simu: root, or data in it."""
    folders = [root, side_folder(root, "data")]
    return next(
        (
            folder
            for folder in folders
            if folder and side_folder(folder, "img") and side_folder(folder, "simu")
        ),
        None,
    )


def read_uhdll(listed: PairList, split: str = "test") -> None:
    """4K low light: the same name in gt and input."""
    _require_split(split, UHDLL_SPLITS)
    folder = side_folder(listed.root, UHDLL_SPLITS[split])
    if folder is None:
        raise ValueError(
            f"{listed.root}: there is no folder {UHDLL_SPLITS[split]} for split {split!r}; give"
            " another split, or complete the data set"
        )
    add_by_stem(listed, "Lowlight", side_folder(folder, "gt"), side_folder(folder, "input"), split)


def _require_split(split: str, splits: Iterable[str]) -> None:
    if split not in splits:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(splits)}")
