"""Plans which photograph is restored into which file, before anything is computed."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from lit_mimdit.console import printable
from lit_mimdit.data.image_io import (
    IMAGE_EXTENSIONS,
    ImageError,
    find_images,
    image_info,
    output_format,
    require_writable,
)
from lit_mimdit.data.listing import result_names
from lit_mimdit.inference.folder_record import own_images

SHOWN = 3  # files named in an error
# what people call pictures and films and this package cannot write, beside what PIL knows
_OTHER_PICTURES = (
    *(".heic", ".heif", ".hif", ".jxl", ".exr", ".hdr", ".pfm", ".svg", ".dng", ".raw", ".cr2"),
    *(".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".xcf", ".mp4", ".mov", ".avi", ".webm"),
)


@dataclass
class Plan:
    """The files to restore (source, target), and what is left out, each with its reason."""

    jobs: list[tuple[Path, Path]]
    output: Path
    to_file: bool = False  # one photograph into the file `output`
    left_out: list[tuple[Path, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def leave_out(self, reasons: dict[Path, str]) -> None:
        """Takes the jobs of these targets out. ValueError if none remains."""
        out = [(source, reasons[target]) for source, target in self.jobs if target in reasons]
        self.jobs = [job for job in self.jobs if job[1] not in reasons]
        self.left_out += out
        if out and not self.jobs:
            raise ValueError(out[0][1] + _more(len(out) - 1))

    def report(self) -> None:
        """One line on stderr for each file that is left out, and for each note."""
        for path, reason in self.left_out:
            print(printable(f"left out: {path}: {reason}"), file=sys.stderr)
        for note in self.notes:
            print(printable(f"note: {note}"), file=sys.stderr)


def plan(inputs: list[Path], output: Path) -> Plan:
    """Returns the plan for photographs and folders of them.

    One file may go to a file; anything else goes into the folder `output`, as PNG below the names
    of the inputs. Images that an earlier call restored are no inputs, unless their folder is given
    itself. ValueError for a missing input, an input without images, a target that cannot be
    written, or one that is an input.
    """
    if _names_a_file(output):
        if len(inputs) != 1 or not inputs[0].is_file():
            if not output.is_file() and len(inputs) == 1 and not inputs[0].exists():
                raise ValueError(f"{inputs[0]}: no such file or folder")
            raise ValueError(f"{output}: is a file; several photographs need a folder")
        return _to_file(inputs[0], output)
    made = Plan([], output)
    names: list[Path] = []
    sources: list[Path] = []
    for given in inputs:
        if not given.exists():
            raise ValueError(f"{given}: no such file or folder")
        if given.is_dir():
            images = _in_folder(given, made)
            names += [path.relative_to(given) for path in images]
        else:
            images = [given]
            names.append(Path(given.name))
        sources += images
    once: dict[Path, int] = {}
    for number, path in enumerate(sources):
        once.setdefault(path.resolve(), number)
    kept = list(once.values())
    targets = result_names([names[number] for number in kept])
    made.jobs = [
        (sources[number], output / name) for number, name in zip(kept, targets, strict=True)
    ]
    if output.is_file():
        raise ValueError(f"{output}: is a file; several photographs need a folder")
    _spare_inputs(made)
    return made


def require_free(made: Plan, ours: set[Path], overwrite: bool) -> None:
    """Leaves out jobs whose target exists and is none of `ours`, unless `overwrite`."""
    if overwrite:
        return
    taken = [target for _, target in made.jobs if target not in ours and _exists(target)]
    made.leave_out(
        {
            target: f"{target} exists and was not made by restore, or was changed since; give"
            " --overwrite, or another output"
            for target in taken
        }
    )


def _to_file(source: Path, output: Path) -> Plan:
    output_format(output)
    if not output.parent.is_dir():
        raise ValueError(f"{output}: there is no folder {output.parent}; make it first")
    made = Plan([(source, output)], output, to_file=True)
    _spare_inputs(made)
    try:
        info = image_info(source)
    except ImageError:  # it is named when it is read
        return made
    require_writable(output, info.height, info.width)
    return made


def _names_a_file(output: Path) -> bool:
    """Returns whether a user means a file.

    Then it is one, or its extension is that of pictures or films.
    """
    if output.is_dir():
        return False
    Image.init()  # every extension that PIL knows
    suffix = output.suffix.lower()
    known = suffix in IMAGE_EXTENSIONS or suffix in Image.EXTENSION or suffix in _OTHER_PICTURES
    return output.is_file() or known


def _in_folder(folder: Path, made: Plan) -> list[Path]:
    listing = find_images(folder)
    own = own_images(folder, with_itself=_same(folder, made.output))
    images = [path for path in listing.images if path not in own]
    count = len(listing.images) - len(images)
    if count:
        made.notes.append(f"{folder}: {count} image(s) that restore made are no inputs")
    if listing.hidden:
        made.notes.append(f"{folder}: {listing.hidden} hidden file(s) or folder(s) are no inputs")
    made.left_out += listing.left_out
    if not images:
        named = "; ".join(f"{path}: {reason}" for path, reason in listing.left_out[:SHOWN])
        named = f" ({named}{_more(len(listing.left_out) - SHOWN)})" if named else ""
        raise ValueError(f"{folder}: no images in this folder{named}; give one with photographs")
    return images


def _spare_inputs(made: Plan) -> None:
    sources = {source.resolve() for source, _ in made.jobs}
    made.leave_out(
        {
            target: f"{target}: the restored photograph would replace the original; give another"
            " output"
            for _, target in made.jobs
            if target.resolve() in sources
        }
    )


def _same(one: Path, other: Path) -> bool:
    return other.exists() and one.resolve() == other.resolve()


def _exists(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _more(count: int) -> str:
    return f"; and {count} more" if count > 0 else ""
