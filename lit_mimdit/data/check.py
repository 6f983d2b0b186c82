"""Is a data set whole? Counts, sizes, broken files, and a picture of what is in it, before days of training on it."""

import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from tqdm import tqdm

from lit_mimdit.data.image_io import ImageError, ImageInfo, image_info, natural_key, read_rgb, write_bytes
from lit_mimdit.data.layouts import Pair, PairList, read_layout

Layout = Literal["auto", "foundir", "4krd", "realrain1k", "hazerd", "uhdll"]

_EXTENSIONS_OF = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "AVIF": (".avif",),
    "JPEG2000": (".jp2",),
    "PPM": (".ppm", ".pgm"),
}


@dataclass
class TypeSummary:
    """What was found of one degradation."""

    pairs: int = 0
    sizes: Counter = field(default_factory=Counter)  # (width, height) of the GT
    extensions: Counter = field(default_factory=Counter)  # "png/jpg": GT/LQ
    problems: int = 0


def check(
    root: Path,
    *,
    layout: Layout = "auto",
    meta: Path | None = None,
    split: str | None = None,
    frames: Path | None = None,
    contact_sheet: Path | None = Path("contact_sheet.png"),
    decode: bool = True,
    samples: int = 2,
    workers: int = 4,
    max_listed: int = 50,
) -> int:
    """Check a paired data set: print a summary and every problem, and write a picture of it.

    Args:
        root: folder of the data set
        layout: how its folders are named; auto recognises it
        meta: foundir only: file of `GT-path, LQ-path` lines relative to root
        split: realrain1k and uhdll only: train, val or test (test if not given)
        frames: 4krd only: file naming the frames to use, `VID_001/00001` a line
        contact_sheet: picture to write, one row a degradation with LQ and GT side by side; null for none
        decode: decode every image, which finds truncated and corrupt files; false looks at headers only and is much faster
        samples: pairs a degradation on the contact sheet
        workers: threads that read images
        max_listed: problems and notes to print by name; the rest is counted

    Returns:
        The number of problems: 0 if every file has its partner, can be read, and has its partner's size.
    """
    for name, value in {"samples": samples, "workers": workers, "max_listed": max_listed}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if contact_sheet is not None and (contact_sheet.suffix.lower() != ".png" or not contact_sheet.parent.is_dir()):
        raise ValueError(f"contact_sheet must be a .png file in a folder that exists, got {contact_sheet}")
    found = read_layout(layout, root, split=split, meta=meta, frames=frames)
    problems = [str(problem) for problem in found.problems]
    notes: dict[Path, str] = {}
    summaries: defaultdict[str, TypeSummary] = defaultdict(TypeSummary)
    for problem in found.problems:
        summaries[problem.degradation].problems += 1
    reported: set[str] = set()  # a broken GT that several LQ share is one problem
    with ThreadPoolExecutor(workers) as pool, tqdm(total=len(found), unit="pair", desc="checking", dynamic_ncols=True) as bar:
        for batch in _batches(found.pairs, 16 * workers):
            for pair, (lq, gt) in zip(batch, pool.map(lambda pair: _probe(pair, decode), batch)):
                summary = summaries[pair.degradation]
                summary.pairs += 1
                summary.extensions[f"{pair.gt.suffix[1:]}/{pair.lq.suffix[1:]}"] += 1
                if isinstance(gt, ImageInfo):
                    summary.sizes[gt.width, gt.height] += 1
                new = [problem for problem in _pair_problems(pair, lq, gt) if problem not in reported]
                reported.update(new)
                summary.problems += len(new)
                problems += new
                notes |= {path: note for path, info in ((pair.lq, lq), (pair.gt, gt)) if (note := _note(path, info))}
            bar.update(len(batch))
            bar.set_postfix(problems=len(problems))
    if not found.pairs and not problems:
        problems.append(f"no pairs of images found in {root} with the layout {found.layout}")
    _print_report(found, summaries, problems, notes, max_listed)
    if contact_sheet is not None and found.pairs:
        write_contact_sheet(contact_sheet, found.pairs, samples)
        print(f"Contact sheet: {contact_sheet}")
    return len(problems)


def _batches(pairs: Iterable[Pair], size: int) -> Iterator[list[Pair]]:
    """Pieces of a list: a thread pool given a million pairs at once would hold a million results."""
    iterator = iter(pairs)
    while batch := list(islice(iterator, size)):
        yield batch


def _probe(pair: Pair, decode: bool) -> tuple[ImageInfo | ImageError, ImageInfo | ImageError]:
    """What is known of the LQ and the GT file, or why it cannot be read."""

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
    return [f"size mismatch: {pair.id}: LQ {lq.width}x{lq.height} ({pair.lq}), GT {gt.width}x{gt.height} ({pair.gt})"]


def _note(path: Path, info: ImageInfo | ImageError) -> str:
    """What is unusual about a file that can be read, and is taken care of."""
    if isinstance(info, ImageError):
        return ""
    misnamed = path.suffix.lower() not in _EXTENSIONS_OF.get(info.format, (path.suffix.lower(),))
    return ", ".join(
        ([f"is a {info.format}"] if misnamed else []) + ([f"EXIF orientation {info.orientation}"] if info.orientation != 1 else [])
    )


def _print_report(found: PairList, summaries: dict[str, TypeSummary], problems: list[str], notes: dict[Path, str], max_listed: int) -> None:
    header = ("degradation", "pairs", "sizes", "GT/LQ files", "problems")
    rows = [
        (name, str(row.pairs), _most_common(row.sizes, "{0[0]}x{0[1]}"), _most_common(row.extensions, "{0}"), str(row.problems))
        for name, row in sorted(summaries.items(), key=lambda item: natural_key(item[0]))
    ]
    total = ("total", str(len(found)), "", "", str(len(problems)))
    widths = [max(len(row[i]) for row in (header, *rows, total)) for i in range(len(header))]
    rule = tuple("-" * width for width in widths)
    print(f"\n{found.root}: layout {found.layout}")
    for row in (header, rule, *rows, rule, total):
        cells = [cell.rjust(width) if i in (1, 4) else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths))]
        print("  ".join(cells).rstrip())
    _print_list("Problems", problems, max_listed)
    misnamed = sum("is a " in note for note in notes.values())
    turned = sum("EXIF" in note for note in notes.values())
    title = f"Notes, taken care of: {misnamed} file(s) of another format than their name says, {turned} with EXIF orientation"
    _print_list(title, [f"{path}: {note}" for path, note in sorted(notes.items(), key=lambda item: natural_key(item[0]))], max_listed)
    print(f"\n{len(problems) or 'no'} problem(s), {len(found)} pair(s)")


def _most_common(counts: Counter, form: str) -> str:
    """`1920x1080 (140), 2720x1528 (10)`, three at most."""
    shown = [f"{form.format(value)} ({count})" for value, count in counts.most_common(3)]
    return ", ".join(shown) + (f", {len(counts) - 3} more" if len(counts) > 3 else "")


def _print_list(title: str, lines: list[str], max_listed: int) -> None:
    if not lines:
        return
    print(f"\n{title}:")
    for line in lines[:max_listed]:
        print(f"  {line}")
    if len(lines) > max_listed:
        print(f"  ... and {len(lines) - max_listed} more")


# --- contact sheet ------------------------------------------------------------------------------------------------------

_CELL, _GAP, _LABEL = (240, 160), 8, 20  # pixels


def write_contact_sheet(path: Path, pairs: list[Pair], samples: int = 2) -> None:
    """A PNG with one row a degradation: `samples` pairs spread evenly over it, LQ and GT side by side, with their ids."""
    rows: defaultdict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        rows[pair.degradation].append(pair)
    columns = min(samples, max(map(len, rows.values())))
    row_height = _LABEL + _CELL[1] + _GAP
    sheet = Image.new("RGB", (_GAP + 2 * columns * (_CELL[0] + _GAP), _GAP + len(rows) * row_height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for row, name in enumerate(sorted(rows, key=natural_key)):
        chosen = [rows[name][int(i)] for i in np.linspace(0, len(rows[name]) - 1, min(columns, len(rows[name])))]
        for column, pair in enumerate(chosen):
            for side, file in enumerate((pair.lq, pair.gt)):
                x, y = _GAP + (2 * column + side) * (_CELL[0] + _GAP), _GAP + row * row_height
                label = f"LQ  {pair.id}" if pair.id.startswith(name) else f"LQ  {name}: {pair.id}"
                draw.text((x, y), _shorten(label, font) if side == 0 else "GT", "black", font)
                sheet.paste(_thumbnail(file), (x, y + _LABEL))
    write_bytes(path, _png(sheet))


def _shorten(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text without its middle if it is wider than a cell."""
    for keep in range(len(text), 0, -1):
        short = text if keep == len(text) else f"{text[: keep // 2]}...{text[-(keep - keep // 2) :]}"
        if font.getlength(short) <= _CELL[0]:
            return short
    return ""


def _thumbnail(path: Path) -> Image.Image:
    """An image fitted into a cell of the sheet, gray around it; a red cell if it cannot be read."""
    cell = Image.new("RGB", _CELL, "lightgray")
    try:
        pixels = read_rgb(path)
    except ImageError:
        cell.paste("firebrick", (0, 0, *_CELL))
        ImageDraw.Draw(cell).text((8, 8), "unreadable", "white", ImageFont.load_default(13))
        return cell
    image = Image.fromarray((pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels)
    image = ImageOps.contain(image, _CELL, Image.Resampling.LANCZOS)
    cell.paste(image, ((_CELL[0] - image.width) // 2, (_CELL[1] - image.height) // 2))
    return cell


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
