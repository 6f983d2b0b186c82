"""Which restored image belongs to which reference: by name, never by position; images are never
resized to fit.

The name of an image is its path below the folder, without extension and without folders that name a
side (GT, LQ, sharp, ...), in any case of letters: `01Blur/LQ/0001.png` and `01Blur/GT/0001.JPG` are
the same image. A flat folder of restored images pairs by file name with references in subfolders as
long as no file name occurs twice there.
"""

from dataclasses import dataclass, field
from pathlib import Path

from lit_mimdit.data.image_io import ImageError, image_size, list_images, natural_key
from lit_mimdit.data.layouts import DATASETS, LAYOUTS, read_layout, require_complete

SIDES = {
    "gt",
    "lq",
    "hq",
    "sharp",
    "blurry",
    "input",
    "target",
    "output",
    "restored",
    "reference",
    "degraded",
    "clean",
}
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
    """Items in natural order of their ids; `problems` are one line each; `by` says how names were
    compared; `hint` is the option that would pair the rest.
    """

    items: list[Item]
    dataset: str
    by: str
    problems: list[str] = field(default_factory=list)
    hint: str = ""


@dataclass
class Source:
    """Images of one version by name (an id in lower case).

    `twice` are names that several files have, `ids` the names as written.
    """

    files: dict[str, Path]
    twice: dict[str, list[Path]] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)


def id_of(path: Path) -> str:
    """`01Blur/LQ/0001.PNG` -> `01Blur/0001`; two of these are the same image if they differ in case
    only.
    """
    parts = [part for part in path.parts[:-1] if part.casefold() not in SIDES]
    return "/".join([*parts, path.stem])


def folder_source(folder: Path, suffix: str = "") -> Source:
    """The images below a folder by name; `suffix` at the end of a name is no part of it.

    ValueError if there are none.
    """
    paths_of: dict[str, list[Path]] = {}
    ids: dict[str, str] = {}
    for path in list_images(folder):
        id = id_of(path.relative_to(folder))
        if suffix and len(path.stem) > len(suffix) and id.endswith(suffix):
            id = id.removesuffix(suffix)
        paths_of.setdefault(id.casefold(), []).append(path)
        ids[id.casefold()] = id
    if not paths_of:
        raise ValueError(f"{folder}: no images in this folder")
    once = {name: paths[0] for name, paths in paths_of.items() if len(paths) == 1}
    return Source(once, {name: paths for name, paths in paths_of.items() if len(paths) > 1}, ids)


def pair(
    restored: Path,
    reference: Path | None,
    degraded: Path | None,
    layout: str | None = None,
    suffixes: dict[str, str] | None = None,
    **options: str | Path | None,
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
            name of the image; of a data set with `layout` the restored images' only.
        options: of the layout (meta, split, frames).
    """
    ends = suffixes or {}
    sources = {"restored": folder_source(restored, ends.get("restored", ""))}
    dataset = ""
    degradations = {}
    ids = {}
    if layout is not None:
        if reference is None:
            raise ValueError(
                "layout is given without --reference: set --reference to the root of the data set"
            )
        if degraded is not None and degraded.resolve() != reference.resolve():
            raise ValueError(
                f"degraded is {degraded}: with --layout give the root {reference}, which holds the"
                " degraded images too"
            )
        listed = read_layout(layout, reference, **options)
        pairs = require_complete(listed)
        dataset = DATASETS[listed.layout]
        names = {id_of(Path(f"{pair.id}.png")).casefold(): pair for pair in pairs}
        assert len(names) == len(pairs), "ids that differ in case only"
        sources["reference"] = Source({name: pair.gt for name, pair in names.items()})
        if degraded is not None:
            sources["degraded"] = Source({name: pair.lq for name, pair in names.items()})
        degradations, ids = (
            {n: pair.degradation for n, pair in names.items()},
            {n: pair.id for n, pair in names.items()},
        )
    elif any(value is not None for value in options.values()):
        given = next(name for name, value in options.items() if value is not None)
        raise ValueError(
            f"{given} is given without --layout: choose the data set's layout among"
            f" {', '.join(LAYOUTS)}"
        )
    else:
        sources |= {
            version: folder_source(folder, ends.get(version, ""))
            for version, folder in (("reference", reference), ("degraded", degraded))
            if folder
        }
    by = _flatten(sources)
    ids = {name: id for source in sources.values() for name, id in source.ids.items()} | ids
    pairing = _match(sources, dataset, by, degradations, ids)
    if not pairing.items or pairing.problems:
        pairing.hint = suffix_hint(
            {version: {*source.files} for version, source in sources.items()}
        )
    return pairing


def suffix_hint(names: dict[str, set[str]]) -> str:
    """Returns the option that pairs what is left, if the names of one version are all those of
    another with one suffix; else nothing.

    Args:
        names: of each version, in lower case.
    """
    own = names["restored"]
    for version in [version for version in names if version != "restored"]:
        rest, other = own - names[version], names[version] - own
        for longer, shorter, option in (
            (rest, other, "--suffix"),
            (other, rest, f"--{version}_suffix"),
        ):
            suffix = _common_suffix(longer, shorter)
            if suffix:
                return f"the names differ by {suffix!r} only: give {option}={suffix}"
    return ""


def _common_suffix(longer: set[str], shorter: set[str]) -> str:
    """What all of `longer` have after a name of `shorter`; "" if there is no such thing."""
    if not longer or not shorter:
        return ""
    first = min(longer, key=len)
    for cut in range(len(first) - 1, 0, -1):
        suffix = first[cut:]
        if first[:cut] in shorter and all(
            name.endswith(suffix) and name.removesuffix(suffix) in shorter for name in longer
        ):
            return suffix
    return ""


def _flatten(sources: dict[str, Source]) -> str:
    """Rename files of subfolders to their bare file names where some source is flat and no name
    would occur twice.
    """
    flat = {
        version: all("/" not in name for name in (*source.files, *source.twice))
        for version, source in sources.items()
    }
    deep = [sources[version] for version, is_flat in flat.items() if not is_flat]
    if not deep or not any(flat.values()):
        return "path below the folder"
    for source in deep:
        names = [name.rsplit("/", 1)[-1] for name in (*source.files, *source.twice)]
        if len(set(names)) < len(names):
            return "path below the folder"
    for version, is_flat in flat.items():
        if is_flat:  # the flat ones take the longer names, which know the degradation
            full = {name.rsplit("/", 1)[-1]: name for name in deep[0].files}
            source = sources[version]
            files, twice = (
                {full.get(name, name): value for name, value in some.items()}
                for some in (source.files, source.twice)
            )
            sources[version] = Source(
                files, twice, {name: id for name, id in source.ids.items() if name not in full}
            )
    return "file name"


def _match(
    sources: dict[str, Source],
    dataset: str,
    by: str,
    degradations: dict[str, str],
    ids: dict[str, str],
) -> Pairing:
    pairing = Pairing([], dataset, by)
    every = sorted(
        {name for source in sources.values() for name in (*source.files, *source.twice)},
        key=natural_key,
    )
    for name in every:
        problem = _problem(name, sources)
        if problem is not None:
            pairing.problems.append(problem)
            continue
        files = {version: source.files[name] for version, source in sources.items()}
        try:
            sizes = {version: image_size(path) for version, path in files.items()}
        except ImageError as error:
            pairing.problems.append(f"unreadable: {error}")
            continue
        if len(set(sizes.values())) > 1:
            shown = ", ".join(
                f"{files[version]} {width} x {height}" for version, (height, width) in sizes.items()
            )
            pairing.problems.append(f"size mismatch: {shown}")
            continue
        degradation = degradations.get(name) or (ids[name].split("/")[0] if "/" in name else "")
        pairing.items.append(Item(ids[name], degradation, sizes["restored"], files))
    return pairing


def _problem(name: str, sources: dict[str, Source]) -> str | None:
    """Why this name makes no item, or None."""
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
    """ValueError if images are missing, extra, ambiguous, unreadable or of other sizes, unless the
    intersection was asked for.
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
