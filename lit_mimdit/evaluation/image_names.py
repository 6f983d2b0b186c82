"""Names of images in folders: what of a path is the name, and how names are brought together.

The name of an image is its path below the folder. The extension does not count, nor do folders that
name a side (GT, LQ, sharp, ...), in any case of letters. So `01Blur/LQ/0001.png` and
`01Blur/GT/0001.JPG` are the same image. A flat folder of restored images pairs by file name with
references in subfolders as long as no file name occurs twice there.
"""

from dataclasses import dataclass, field
from pathlib import Path

from lit_mimdit.data.image_io import list_images

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


@dataclass
class NamedFiles:
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


def folder_source(folder: Path, suffix: str = "") -> NamedFiles:
    """Returns the images below a folder by name; `suffix` at the end of a name is no part of it.

    Raises ValueError if there are none.
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
        raise ValueError(f"{folder}: no images in this folder; give one with images")
    once = {name: paths[0] for name, paths in paths_of.items() if len(paths) == 1}
    return NamedFiles(
        once, {name: paths for name, paths in paths_of.items() if len(paths) > 1}, ids
    )


def flatten(sources: dict[str, NamedFiles]) -> str:
    """Bring names to one depth, and say how they are compared from here on.

    Where some source is flat, its bare file names become the longer names of a deep one, which know
    the degradation. Nothing is changed if a bare name would occur twice.
    """
    flat = [version for version, source in sources.items() if _is_flat(source)]
    deep = [source for version, source in sources.items() if version not in flat]
    if not deep or not flat:
        return "path below the folder"
    for source in deep:
        names = [name.rsplit("/", 1)[-1] for name in (*source.files, *source.twice)]
        if len(set(names)) < len(names):
            return "path below the folder"
    full = {name.rsplit("/", 1)[-1]: name for name in deep[0].files}
    for version in flat:
        source = sources[version]
        files = {full.get(name, name): path for name, path in source.files.items()}
        twice = {full.get(name, name): paths for name, paths in source.twice.items()}
        ids = {name: id for name, id in source.ids.items() if name not in full}
        sources[version] = NamedFiles(files, twice, ids)
    return "file name"


def _is_flat(source: NamedFiles) -> bool:
    return all("/" not in name for name in (*source.files, *source.twice))


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
    """Returns what all of `longer` have after a name of `shorter`; "" if there is no such thing."""
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
