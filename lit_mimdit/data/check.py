"""Checks whether a data set is whole, before days of training on it.

It shows counts, sizes, broken files, and a picture of what is in the data set.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from lit_mimdit.data.contact_sheet import Pixels, write_contact_sheet
from lit_mimdit.data.findings import Findings, print_findings
from lit_mimdit.data.image_io import ImageError, ImageInfo, image_info, read_rgb
from lit_mimdit.data.layouts import Pair, PairList, read_layout
from lit_mimdit.data.shards.check import check_shards
from lit_mimdit.data.shards.manifest import MANIFEST, PLAN

LayoutName = Literal["auto", "foundir", "4krd", "realrain1k", "hazerd", "uhdll"]

_EXTENSIONS_OF = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jfif", ".jpe", ".mpo"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "AVIF": (".avif",),
    "JPEG2000": (".jp2", ".j2k"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "GIF": (".gif",),
    "HEIF": (".heic", ".heif", ".hif"),
}


def check(
    root: str,
    *,
    layout: LayoutName = "auto",
    meta: Path | None = None,
    split: str | None = None,
    frames: Path | None = None,
    contact_sheet: Path | None = None,
    decode: bool = True,
    samples: int = 2,
    workers: int = 4,
    max_listed: int = 50,
) -> int:
    """Check a paired data set or a folder of shards: print a summary and every problem, and with
    --contact_sheet write a picture of it.

    Args:
        root: folder of the data set or of shards, or s3://bucket/folder of shards
        layout: how the folders of the data set are named; `auto` recognises it, and shards too
        meta: for `foundir` only: file of `GT-path, LQ-path` lines relative to root
        split: for `realrain1k` and `uhdll` only: `train`, `val` or `test`; `test` if not given
        frames: for `4krd` only: file that names the frames to use, a line such as `VID_001/00001`
            each
        contact_sheet: picture to write (.png), a row for each degradation with LQ and GT side by
            side
        decode: decode every image, which finds truncated and corrupt files. `false` looks at
            headers only, or at the checksums of shards, and is much faster
        samples: pairs of each degradation on the contact sheet
        workers: threads that read images
        max_listed: problems and notes to print by name. The others are counted

    Returns:
        The number of problems: 0 if every file has its partner, can be read, and has its partner's
        size.
    """
    for name, value in {"samples": samples, "workers": workers, "max_listed": max_listed}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if contact_sheet is not None and (
        contact_sheet.suffix.lower() != ".png" or not contact_sheet.parent.is_dir()
    ):
        raise ValueError(
            f"contact_sheet must be a .png file in a folder that exists, got {contact_sheet}"
        )
    place = str(root)
    if "://" in place or Path(place, MANIFEST).is_file():
        options = {
            "meta": meta,
            "split": split,
            "frames": frames,
            "layout": None if layout == "auto" else layout,
        }
        given = [name for name, value in options.items() if value is not None]
        if given:
            raise ValueError(
                f"{place} holds shards, which have no option {', '.join(given)}: leave it out"
            )
        findings, names, read = check_shards(place, decode, workers)
    elif Path(place, PLAN).is_file():
        raise ValueError(
            f"{place} holds unfinished shards: give the command that writes them again, it goes on"
        )
    else:
        findings, names, read = check_pairs(
            read_layout(layout, place, split=split, meta=meta, frames=frames), decode, workers
        )
    print_findings(findings, max_listed)
    if contact_sheet is not None and names:
        note = write_contact_sheet(contact_sheet, names, read, samples)
        print(f"Contact sheet: {contact_sheet}{note}")
    return len(findings.problems)


def check_pairs(
    listed: PairList, decode: bool, workers: int
) -> tuple[Findings, list[tuple[str, str]], Callable[[int], tuple[Pixels, Pixels]]]:
    """Returns what is found of image files, degradation and id of each pair, and a reader of a
    pair's pixels for the contact sheet.
    """
    findings = Findings(f"{listed.root}: layout {listed.layout}", len(listed))
    for problem in listed.problems:
        findings.add_problems(problem.degradation, [str(problem)])
    reported: set[str] = set()  # a broken GT that several LQ share is one problem
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(listed), unit="pair", desc="checking", dynamic_ncols=True) as bar,
    ):
        for batch in _batches(listed.pairs, 16 * workers):
            for pair, (lq, gt) in zip(batch, pool.map(lambda pair: _probe(pair, decode), batch)):
                summary = findings.types[pair.degradation]
                summary.pairs += 1
                summary.extensions[f"{pair.gt.suffix[1:]}/{pair.lq.suffix[1:]}"] += 1
                if isinstance(gt, ImageInfo):
                    summary.sizes[gt.width, gt.height] += 1
                new = [
                    problem for problem in _pair_problems(pair, lq, gt) if problem not in reported
                ]
                reported.update(new)
                findings.add_problems(pair.degradation, new)
                findings.notes |= {
                    str(path): note
                    for path, info in ((pair.lq, lq), (pair.gt, gt))
                    if (note := _note(path, info))
                }
            bar.update(len(batch))
            bar.set_postfix(problems=len(findings.problems))
    if not listed.pairs and not findings.problems:
        findings.problems.append(
            f"no pairs of images found in {listed.root} with the layout {listed.layout}"
        )
    names = [(pair.degradation, pair.id) for pair in listed.pairs]
    return (
        findings,
        names,
        lambda number: (_pixels(listed.pairs[number].lq), _pixels(listed.pairs[number].gt)),
    )


def _batches(pairs: Iterable[Pair], size: int) -> Iterator[list[Pair]]:
    """Pieces of a list.

    A thread pool given a million pairs at once would hold a million results.
    """
    iterator = iter(pairs)
    while batch := list(islice(iterator, size)):
        yield batch


def _pixels(path: Path) -> Pixels:
    try:
        return read_rgb(path)
    except ImageError:
        return None


def _probe(pair: Pair, decode: bool) -> tuple[ImageInfo | ImageError, ImageInfo | ImageError]:
    """Returns what is known of the LQ and the GT file, or why it cannot be read."""

    def probe(path: Path) -> ImageInfo | ImageError:
        try:
            info = image_info(path)
            if decode:
                read_rgb(path)
            return info
        except ImageError as error:
            return error

    return probe(pair.lq), probe(pair.gt)


def _pair_problems(pair: Pair, lq: ImageInfo | ImageError, gt: ImageInfo | ImageError) -> list[str]:
    unreadable = [f"unreadable: {error}" for error in (lq, gt) if isinstance(error, ImageError)]
    if unreadable or (lq.width, lq.height) == (gt.width, gt.height):
        return unreadable
    return [
        f"size mismatch: {pair.id}: LQ {lq.width}x{lq.height} ({pair.lq}), GT"
        f" {gt.width}x{gt.height} ({pair.gt})"
    ]


def _note(path: Path, info: ImageInfo | ImageError) -> str:
    """Returns what is unusual about a file that can be read; all of it is taken care of."""
    if isinstance(info, ImageError):
        return ""
    misnamed = path.suffix.lower() not in _EXTENSIONS_OF.get(info.format, (path.suffix.lower(),))
    return ", ".join(
        ([f"is a {info.format}"] if misnamed else [])
        + ([f"EXIF orientation {info.orientation}"] if info.orientation != 1 else [])
        + ([f"colour profile {info.profile}, converted to sRGB"] if info.profile else [])
        + ([f"holds {info.frames} pictures, the first is taken"] if info.frames > 1 else [])
    )
