"""Paired data sets as they are released: which LQ file belongs to which GT file.

Pairs are made by name, never by position in two sorted lists, and come in natural order. What
cannot be paired is not dropped in silence: it is listed in `PairList.problems`, and
`require_complete` refuses a list that has any.

| layout     | degradation    | id               |
|------------|----------------|------------------|
| foundir    | 01Blur         | 01Blur/0001      |
| 4krd       | Blur           | VID_001/00001    |
| realrain1k | Rain-H, Rain-L | Rain-H/test/1    |
| hazerd     | Haze           | IMG_8583_50      |
| uhdll      | Lowlight       | test/1_UHD_LL    |

The trees below their roots:

    foundir     01Blur/{GT,LQ}/0001.png, or a meta file of `GT-path, LQ-path` lines
    4krd        VID_001/{sharp,blurry}/00001.jpg
    realrain1k  RealRain-1k-{H,L}/{train,validation or val,test}/{input,target}/1.png
    hazerd      data/{img,simu}: simu/IMG_8583_50.png made from img/IMG_8583_RGB.jpg
    uhdll       {training_set,testing_set}/{gt,input}/1_UHD_LL.JPG

The folders of foundir and 4krd may also lie one level deeper, which then is part of the id:
train/01Blur/0001.
"""

from collections.abc import Callable
from pathlib import Path

from lit_mimdit.data.image_io import natural_key
from lit_mimdit.data.layouts.benchmarks import (
    UHDLL_SPLITS,
    densities,
    hazerd_folder,
    read_4krd,
    read_hazerd,
    read_realrain1k,
    read_uhdll,
)
from lit_mimdit.data.layouts.foundir import read_foundir
from lit_mimdit.data.layouts.pairs import (
    Pair,
    PairList,
    Problem,
    require_complete,
    side_folder,
    with_sides,
)

__all__ = [
    "DATASETS",
    "LAYOUTS",
    "Pair",
    "PairList",
    "Problem",
    "detect_layout",
    "read_layout",
    "require_complete",
]

# name: (reader, the options it has, its folders)
LAYOUTS: dict[str, tuple[Callable[..., None], tuple[str, ...], str]] = {
    "foundir": (read_foundir, ("meta",), "<NN><Type>/{GT,LQ}/, or a meta file"),
    "4krd": (read_4krd, ("frames",), "<VID_nnn>/{sharp,blurry}/"),
    "realrain1k": (
        read_realrain1k,
        ("split",),
        "RealRain-1k-{H,L}/{train,validation or val,test}/{input,target}/",
    ),
    "hazerd": (read_hazerd, (), "data/{img,simu}/"),
    "uhdll": (read_uhdll, ("split",), "{training_set,testing_set}/{gt,input}/"),
}
# name: what papers call the data set
DATASETS = {
    "foundir": "FoundIR",
    "4krd": "4KRD",
    "realrain1k": "RealRain-1K",
    "hazerd": "HazeRD",
    "uhdll": "UHD-LL",
}


def read_layout(
    layout: str,
    root: str | Path,
    *,
    split: str | None = None,
    meta: str | Path | None = None,
    frames: str | Path | None = None,
) -> PairList:
    """Find the pairs of a data set below `root`.

    Args:
        layout: foundir, 4krd, realrain1k, hazerd, uhdll, or auto to recognise it from the folder
            names
        root: folder of the data set as released
        split: train, val or test, for realrain1k and uhdll only; test if not given, as the paper
            only evaluates on them
        meta: for foundir only: file of `GT-path, LQ-path` lines relative to root. The file is
            looked for as given, then below root. Without it the folders are read
        frames: for 4krd only: file listing the frames to use, `VID_001/00001` a line; without it
            all frames are used

    Raises:
        ValueError: no such folder, unknown layout, an option that the layout has not, or a meta
        file that cannot be used
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; give that of a data set")
    if layout == "auto":
        layout = "foundir" if meta is not None else detect_layout(root)
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; choose one of auto, {', '.join(LAYOUTS)}")
    reader, option_names, _ = LAYOUTS[layout]
    options = {
        name: value
        for name, value in {"split": split, "meta": meta, "frames": frames}.items()
        if value is not None
    }
    for name in sorted(options.keys() - set(option_names)):
        has = f"it has {', '.join(option_names)}" if option_names else "it has no options"
        raise ValueError(f"layout {layout} has no option {name!r} (given: {options[name]}); {has}")
    listed = PairList(layout, root)
    reader(listed, **options)
    listed.pairs.sort(key=lambda pair: natural_key(pair.id))
    listed.problems.sort(key=lambda problem: natural_key(problem.path))
    ids = {pair.id for pair in listed.pairs}
    assert len(ids) == len(listed.pairs), "pair ids must be unique"
    return listed


def detect_layout(root: str | Path) -> str:
    """Returns the layout of a data set, from its folder names.

    Raises ValueError if none or more than one fits.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; give that of a data set")
    fits = {
        "foundir": any(gt and lq for *_, gt, lq in with_sides(root, "GT", "LQ")),
        "4krd": any(sharp and blurry for *_, sharp, blurry in with_sides(root, "sharp", "blurry")),
        "realrain1k": bool(densities(root)),
        "hazerd": hazerd_folder(root) is not None,
        "uhdll": any(side_folder(root, name) for name in UHDLL_SPLITS.values()),
    }
    names = [name for name, fit in fits.items() if fit]
    if len(names) != 1:
        what = (
            f"fits the layouts {', '.join(names)}"
            if names
            else "has the folders of no known layout"
        )
        expected = "".join(f"\n  {name}: {tree}" for name, (_, _, tree) in LAYOUTS.items())
        raise ValueError(
            f"{root}: {what}; name the layout (and for foundir the meta file, if there is"
            f" one):{expected}"
        )
    return names[0]
