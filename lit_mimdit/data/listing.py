"""Finds the images of a folder: known names, and the content of all other files."""

import errno
import os
import re
import stat
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from lit_mimdit.data.image_file import HEAD, foreign_kind, kind_of

IMAGE_EXTENSIONS = (
    ".avif",
    ".bmp",
    ".gif",
    ".heic",
    ".heif",
    ".hif",
    ".j2k",
    ".jfif",
    ".jp2",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".mpo",
    ".pbm",
    ".pgm",
    ".png",
    ".pnm",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
)
RECORDS = ("restoration.json", "restoration.csv")  # what this package writes beside images
_DIGITS = re.compile("([0-9]+)")
_KINDS = {stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket", stat.S_ISBLK: "a device"}


class Listing(NamedTuple):
    """The images of a folder, and everything else in it with the reason why it is left out."""

    images: list[Path]
    left_out: list[tuple[Path, str]]
    hidden: int  # files and folders whose names begin with a dot


def natural_key(path: str | Path) -> tuple:
    """Sorting key by which frame2 comes before frame10, whatever the case of letters; folder by
    folder.
    """
    names = str(path).casefold().split(os.sep)
    return [_with_numbers(name) for name in names], str(path)


def _with_numbers(name: str) -> list[str | int]:
    """The text and the numbers of a name in turn: "a12b" is ["a", 12, "b"]."""
    tokens = _DIGITS.split(name)
    return [int(token) if place % 2 else token for place, token in enumerate(tokens)]


def find_images(folder: str | Path) -> Listing:
    """Returns all image files below a folder in natural order, and what is left out, each with its
    reason.

    A known extension makes an image, broken or not; the content of any other file decides. Hidden
    names are counted only. Every file and folder is taken once, under its own name rather than that
    of a link. Raises ValueError if `folder` is not a folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; give one with images")
    listing = Listing([], [], 0)
    hidden, seen = 0, {}
    waiting, links = [folder], []
    while waiting or links:
        # own folders first: a link to one of them is then known to be another name of it
        parent = waiting.pop(0) if waiting else links.pop(0)
        real, linked = os.path.realpath(parent), parent != folder and parent.is_symlink()
        if linked and _is_above(real, parent):
            listing.left_out.append((parent, "links to a folder that it lies in"))
            continue
        if real in seen:
            if linked:
                reason = f"links to {seen[real]}, whose images are taken there"
                listing.left_out.append((parent, reason))
            continue
        seen[real] = parent
        try:
            with os.scandir(parent) as entries:
                entries = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            listing.left_out.append((parent, f"cannot be opened: {error.strerror}"))
            continue
        for entry in entries:
            path = Path(parent, entry.name)
            if entry.name.startswith("."):
                hidden += 1
            elif _is_folder(entry):
                (links if entry.is_symlink() else waiting).append(path)
            elif (reason := _no_image(path)) is None:
                listing.images.append(path)
            elif entry.name not in RECORDS:
                listing.left_out.append((path, reason))
    images, twice = _once(listing.images)
    images.sort(key=lambda path: natural_key(path.relative_to(folder)))
    left_out = sorted(listing.left_out + twice, key=lambda item: natural_key(item[0]))
    return Listing(images, left_out, hidden)


def list_images(folder: str | Path) -> list[Path]:
    """Returns the images that `find_images` finds, without what it leaves out."""
    return find_images(folder).images


def _once(paths: list[Path]) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Each file once: links to a file that is in the list are left out."""
    own = {os.path.realpath(path): path for path in paths if not path.is_symlink()}
    kept, twice = [], []
    for path in paths:
        real = os.path.realpath(path)
        if own.setdefault(real, path) is path:
            kept.append(path)
        else:
            twice.append((path, f"links to {own[real]}, which is taken there"))
    return kept, twice


def _is_above(real: str, path: Path) -> bool:
    return Path(os.path.realpath(path.parent)).is_relative_to(real)


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links that lead in a circle
        return False


def _no_image(path: Path) -> str | None:
    """Returns why a file is no image, or None if it is one by its name or its content."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "a link that leads in a circle"
        return "a link to nothing" if path.is_symlink() else f"cannot be read: {error.strerror}"
    if not stat.S_ISREG(mode):
        return next((name for test, name in _KINDS.items() if test(mode)), "no regular file")
    if path.suffix.lower() in IMAGE_EXTENSIONS:
        return None
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not head:
        return "an empty file"
    if kind_of(head) is not None:
        return None
    return foreign_kind(head) or "not an image in a known format"


def result_names(names: list[Path]) -> list[Path]:
    """Returns the names of restored images, PNG, each different: photo.jpg becomes photo.png.

    Files that differ only in their extension keep it, IMG_1.jpg.png beside IMG_1.webp.png. Files
    of one whole name, from several folders, are numbered.
    """
    short = [_with_png(name) for name in names]
    counts = Counter(short)
    taken: set[Path] = set()
    result = []
    for name, wanted in zip(names, short, strict=True):
        if counts[wanted] > 1:
            wanted = name.with_name(f"{name.name}.png")
        number = 2
        while wanted in taken:
            wanted = wanted.with_name(f"{_with_png(name).stem}_{number}.png")
            number += 1
        taken.add(wanted)
        result.append(wanted)
    return result


def _with_png(name: Path) -> Path:
    # an unknown ending is part of the name: holiday.v2 does not become holiday.png
    known = name.suffix.lower() in IMAGE_EXTENSIONS
    return name.with_suffix(".png") if known else name.with_name(f"{name.name}.png")
