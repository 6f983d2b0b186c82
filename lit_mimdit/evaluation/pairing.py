"""Finds the reference of each restored image: by name, never by position.

Images are never resized to fit. image_names.py says what the name of an image is.
"""

from dataclasses import dataclass, field
from pathlib import Path

from lit_mimdit.data.image_io import ImageError, image_size, natural_key
from lit_mimdit.data.layouts import DATASETS, LAYOUTS, Pair, read_layout, require_complete
from lit_mimdit.evaluation.image_names import NamedFiles, flatten, folder_source, id_of, suffix_hint

SHOWN = 10  # problems named in an error


@dataclass(frozen=True)
class Item:
    """One image to evaluate in its versions.

    It has a restored version, and a degraded one and a reference where there are any.
    """

    id: str
    degradation: str
    size: tuple[int, int]  # height, width
    files: dict[str, Path]


@dataclass
class Pairing:
    """The items that belong together, in natural order of their ids.

    `problems` are one line each, `by` says how names were compared, and `hint` is the option that
    would pair the rest.
    """

    items: list[Item]
    dataset: str
    by: str
    problems: list[str] = field(default_factory=list)
    hint: str = ""


def pair(
    restored: Path,
    reference: Path | None,
    degraded: Path | None,
    layout: str | None = None,
    suffixes: dict[str, str] | None = None,
    meta: str | Path | None = None,
    split: str | None = None,
    frames: str | Path | None = None,
) -> Pairing:
    """Find what belongs together.

    Args:
        restored: folder of the images to evaluate.
        reference: folder of the clean images, or the root of a data set with `layout`; None for
            metrics without reference.
        degraded: folder of the images before restoration, or with `layout` the same root; None
            leaves them out.
        layout: of data/layouts; None for plain folders.
        suffixes: by version ("restored", ...), what its file names have at their end besides the
            name of the image. With `layout` only the restored images have one.
        meta, split, frames: options of the layout, see `read_layout`.

    Raises:
        ValueError: a folder without images, a layout without its root, or an option without its
            layout.
    """
    ends = suffixes or {}
    options = {"meta": meta, "split": split, "frames": frames}
    sources = {"restored": folder_source(restored, ends.get("restored", ""))}
    dataset, pairs = "", {}
    if layout is not None:
        dataset, pairs = data_set(layout, reference, degraded, options)
        sources["reference"] = NamedFiles({name: pair.gt for name, pair in pairs.items()})
        if degraded is not None:
            sources["degraded"] = NamedFiles({name: pair.lq for name, pair in pairs.items()})
    else:
        _refuse_options(options)
        for version, folder in (("reference", reference), ("degraded", degraded)):
            if folder:
                sources[version] = folder_source(folder, ends.get(version, ""))
    by = flatten(sources)
    pairing = _match(sources, pairs, Pairing([], dataset, by))
    if not pairing.items or pairing.problems:
        names = {version: {*source.files} for version, source in sources.items()}
        pairing.hint = suffix_hint(names)
    return pairing


def data_set(
    layout: str, root: Path | None, degraded: Path | None, options: dict[str, str | Path | None]
) -> tuple[str, dict[str, Pair]]:
    """Returns what a data set is called in tables, and its pairs by name.

    Raises ValueError without its root, or for degraded images elsewhere.
    """
    if root is None:
        raise ValueError(
            "layout is given without --reference: set --reference to the root of the data set"
        )
    if degraded is not None and degraded.resolve() != root.resolve():
        raise ValueError(
            f"degraded is {degraded}: with --layout give the root {root}, which holds the"
            " degraded images too"
        )
    listed = read_layout(layout, root, **options)
    pairs = require_complete(listed)
    by_name = {id_of(Path(f"{pair.id}.png")).casefold(): pair for pair in pairs}
    assert len(by_name) == len(pairs), "ids that differ in case only"
    return DATASETS[listed.layout], by_name


def _refuse_options(options: dict[str, str | Path | None]) -> None:
    """Raises ValueError if an option of layouts is given for plain folders."""
    for name, value in options.items():
        if value is not None:
            raise ValueError(
                f"{name} is given without --layout: choose the data set's layout among"
                f" {', '.join(LAYOUTS)}"
            )


def _match(sources: dict[str, NamedFiles], pairs: dict[str, Pair], pairing: Pairing) -> Pairing:
    """Fill a pairing with the items and problems of all names.

    `pairs` are those of the data set by name; they know ids and degradations better than names do.
    """
    ids: dict[str, str] = {}
    every: set[str] = set()
    for source in sources.values():
        ids |= source.ids
        every |= {*source.files, *source.twice}
    ids |= {name: pair.id for name, pair in pairs.items()}
    for name in sorted(every, key=natural_key):
        problem = _problem(name, sources)
        if problem is not None:
            pairing.problems.append(problem)
            continue
        files = {version: source.files[name] for version, source in sources.items()}
        try:
            size = _common_size(files)
        except ImageError as error:
            pairing.problems.append(str(error))
            continue
        degradation = pairs[name].degradation if name in pairs else ""
        if not degradation and "/" in name:
            degradation = ids[name].split("/")[0]
        pairing.items.append(Item(ids[name], degradation, size, files))
    return pairing


def _common_size(files: dict[str, Path]) -> tuple[int, int]:
    """Height and width of all versions of an image; ImageError if they differ or cannot be read."""
    sizes: dict[str, tuple[int, int]] = {}
    for version, path in files.items():
        try:
            sizes[version] = image_size(path)
        except ImageError as error:
            raise ImageError(f"unreadable: {error}") from error
    if len(set(sizes.values())) > 1:
        each = [
            f"{files[version]} {width} x {height}" for version, (height, width) in sizes.items()
        ]
        raise ImageError(f"size mismatch: {', '.join(each)}")
    return sizes["restored"]


def _problem(name: str, sources: dict[str, NamedFiles]) -> str | None:
    """Returns why this name makes no item, or None."""
    for version, source in sources.items():
        if name in source.twice:
            return f"ambiguous {version}: {', '.join(map(str, source.twice[name]))} have one name"
    missing = [version for version, source in sources.items() if name not in source.files]
    if not missing:
        return None
    if "restored" in missing:
        there = next(source.files[name] for source in sources.values() if name in source.files)
        return f"missing: no restored image for {there}"
    return f"extra: {sources['restored'].files[name]} has no {' and no '.join(missing)} image"


def require_whole(pairing: Pairing, intersection: bool) -> None:
    """Raises ValueError if images are missing, extra, ambiguous, unreadable or of other sizes.

    Nothing is raised if the intersection was asked for and has images.
    """
    hint = f"; {pairing.hint}" if pairing.hint else ""
    if not pairing.items:
        raise ValueError(
            "no image has its counterpart: "
            + _shown(pairing.problems)
            + (hint or "; names must agree, extensions and GT/LQ folders may differ")
        )
    if pairing.problems and not intersection:
        raise ValueError(
            f"{len(pairing.problems)} image(s) cannot be paired: {_shown(pairing.problems)}{hint};"
            " complete the folders, or give --intersection to evaluate the other"
            f" {len(pairing.items)} only"
        )


def _shown(problems: list[str]) -> str:
    more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return "; ".join(problems[:SHOWN]) + more
