"""`python -m lit_mimdit routing`: what each expert does for each degradation."""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import lit_mimdit
from lit_mimdit.data.layouts import Pair, read_layout, require_complete
from lit_mimdit.evaluation.tables import markdown
from lit_mimdit.inference.hub import origin, shown, title
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.run_record import commit, file_hash
from lit_mimdit.inference.system_file import load_system, system_path
from lit_mimdit.models.branch_config import BranchConfig
from lit_mimdit.routing.cells import caption, table6_cells
from lit_mimdit.routing.collect import collect, limited
from lit_mimdit.routing.records import Records
from lit_mimdit.routing.severity import by_thirds, find_table, psnr_of, read_table
from lit_mimdit.routing.study import RoutingStudy, degradation_table
from lit_mimdit.routing.study_files import write_study
from lit_mimdit.routing.table6 import TYPES


def names_of(paths: list[Path]) -> list[str]:
    """Returns a short name of each checkpoint.

    It is as much of the end of its path as tells them apart, or its name on the hub. ValueError
    for the same file twice.
    """
    paths = [path.absolute() for path in paths]
    if len(set(paths)) < len(paths):
        raise ValueError(
            f"checkpoint: {next(p for p in paths if paths.count(p) > 1)} is given twice; each"
            " training counts once"
        )
    hub = [None if origin(path) is None else Path(title(path)) for path in paths]
    parts = [(name or path.with_suffix("")).parts for name, path in zip(hub, paths, strict=True)]
    if len(set(parts)) < len(parts):  # they differ in the suffix only
        parts = [(name or path).parts for name, path in zip(hub, paths, strict=True)]
    depth = 1
    while len({part[-depth:] for part in parts}) < len(parts):
        depth += 1
    return ["/".join(part[-depth:]) for part in parts]


def severities_of(
    pairs: list[Pair], source: str, root: Path, table: Path | None, crop: int | None
) -> tuple[list[str], str]:
    """Returns the severity of each pair, and a text on where it is from."""
    if source == "none":
        return [""] * len(pairs), "not asked for"
    file = find_table(root, table) if source in ("auto", "table") else None
    if file is not None:
        levels = read_table(file, pairs)
        known = sum(level != "" for level in levels)
        return levels, f"{file.name} ({known} of {len(pairs)} images)"
    if source == "table":
        raise ValueError(
            f"severity is table: there is no samples.csv in {root} or above; give --severities"
            " FILE, or --severity psnr"
        )
    values = [psnr_of(pair, crop) for pair in pairs]
    return (
        by_thirds(values, [pair.degradation for pair in pairs]),
        "thirds of each degradation's images by PSNR (LQ against GT)",
    )


def branch_with_routers(restorer: Any, path: Path) -> Any:
    """Returns the MiM branch of what restores; ValueError names the file's system if it has no
    routers.
    """
    branch = getattr(getattr(restorer, "network", None), "branch", None)
    if not isinstance(getattr(branch, "config", None), BranchConfig):
        kind = load_system(path).class_path.rpartition(".")[2]
        raise ValueError(
            f"checkpoint {shown(path)}: it holds {kind}, which has no routers; give one of a MiM"
            " branch"
        )
    return branch


def routing(
    *,
    data: Path,
    output: Path,
    checkpoint: list[Path] | None = None,
    backbone: str | None = None,
    meta: Path | None = None,
    limit: int | None = None,
    crop: int | None = None,
    severity: Literal["auto", "table", "psnr", "none"] = "auto",
    severities: Path | None = None,
    permutations: int = 999,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """See what the routers of a branch do for each degradation, beside table 6 of the paper. No
    image is restored.

    Several checkpoints (--checkpoint A B C) are trainings of one experiment with other seeds: the
    intervals are then over them. Written are report.html (and report.md) with every picture,
    table6.csv, .md and .tex, tables by degradation, block, sub-expert, router and severity, and
    records.csv with every image. The five degradations of table 6 are FoundIR's 01Blur, 05Noise,
    08Haze, 10Rain and 14Lowlight. 11Raindrop shows drops on the lens, which are not rain. All types
    that the data has are reported as well.

    Args:
        data: Folder in FoundIR's layout, such as data/sample/test.
        output: Folder to write.
        checkpoint: Files of exported branches or training checkpoints, or repositories on the hub,
            OWNER/NAME. Unless given it is the branch that comes with the package.
        backbone: Folder or hub id of the backbone, if it is not where it was in training.
        meta: File of `GT-path, LQ-path` lines relative to --data. Without it the folders of --data
            are read.
        limit: Number of images of each type; the first ones are taken. All unless given.
        crop: Side of the middle crop that the routers see, pixels. Unless given they see whole
            images, in tiles.
        severity: Where the severities come from. `table` reads --severities, or samples.csv in the
            folder of the data or above. `psnr` takes thirds of each type by the PSNR of the
            degraded image. `auto` is `table` if there is one, else `psnr`. `none` does without.
        severities: CSV with the columns lq and severity. The paths below lq are relative to the
            CSV's folder.
        permutations: Permutations in each test.
        seed: Seed of the permutations.
        device: Where it runs: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
    """
    for key, value in {"limit": limit, "crop": crop, "permutations": permutations}.items():
        if value is not None and value < 1:
            raise ValueError(f"{key} is {value}: it must be at least 1")
    if output.is_file():
        raise ValueError(f"output {output}: is a file; give a folder")
    paths = [system_path(path) for path in checkpoint or [None]]
    names = names_of(paths)
    pairs = limited(require_complete(read_layout("foundir", data, meta=meta)), limit)
    levels, source = severities_of(pairs, severity, data, severities, crop)
    trainings: list[Training] = []
    for path, name in zip(paths, names, strict=True):
        trainings.append(study_training(path, name, pairs, backbone, crop, device, trainings))
    about: dict[str, Any] = {
        "lit_mimdit": lit_mimdit.__version__,
        "commit": commit(),
        "data": str(data),
        "images": len(pairs),
        "image rule": "whole images" if crop is None else f"middle crop of {crop} px",
        "files": [training.about for training in trainings],
        "severity": source,
        "permutations": permutations,
        "seed": seed,
    }
    branch = trainings[0].branch
    records = [training.records for training in trainings]
    study = RoutingStudy(names, list(branch.groups), branch.intra.used, records, levels, about)
    summary = write_study(output, study, permutations, seed)
    report_on_screen(study, summary, output)


class Training(NamedTuple):
    """One checkpoint of a study, asked about every image.

    Args:
        path: its file.
        branch: configuration of its branch.
        blocks: number of its MiMs.
        records: the routers' decisions about the images.
        about: what the study's summary says of it.
    """

    path: Path
    branch: BranchConfig
    blocks: int
    records: Records
    about: dict[str, Any]


def study_training(
    path: Path,
    name: str,
    pairs: list[Pair],
    backbone: str | None,
    crop: int | None,
    device: str,
    earlier: list[Training],
) -> Training:
    """Ask the routers of one checkpoint about all images.

    Raises ValueError if it has no routers, or other ones than the `earlier` trainings of the study.
    """
    restorer = load_restorer(path, backbone, device)
    branch = branch_with_routers(restorer, path)
    config, blocks = branch.config, len(branch.mims)
    if earlier:
        first = earlier[0]
        same = (first.branch.groups, first.branch.intra, first.blocks)
        if (config.groups, config.intra, blocks) != same:
            raise ValueError(
                f"checkpoint {path}: has other groups, sub-experts or blocks than {first.path};"
                " study them separately"
            )
    about = {
        "name": title(path),
        "sha256": file_hash(path),
        "tile": restorer.config.tile,
        "overlap": restorer.config.overlap,
    }
    return Training(path, config, blocks, collect(restorer, pairs, crop, name), about)


def report_on_screen(study: RoutingStudy, summary: dict[str, Any], output: Path) -> None:
    """Table 6, how it compares, and where the rest is."""
    here = {name: kind for name, kind in TYPES.items() if kind in study.degradations}
    names = here or {name: name for name in study.degradations}
    cells = table6_cells(degradation_table(study, names)[0])
    print(f"{caption(study)}:\n\n{markdown(*cells, escaped=True)}\n")
    if "agreement_with_table6" in summary:
        about = summary["agreement_with_table6"]
        print(
            f"rank correlation with the paper: weights {about['spearman_weights']:.2f}, contrasts"
            f" {about['spearman_contrasts']:.2f}"
        )
        for kind, text in (
            ("against_equal_share", "more or less than an equal share"),
            ("against_own_mean", "against the group's own mean"),
        ):
            print(
                f"published preferences, {text}:"
                f" {', '.join(f'{count} {word}' for word, count in summary[kind].items())}"
            )
    for name, sentences in summary["health"].items():
        for sentence in sentences or []:
            print(f"{name}: {sentence}")
    print(f"{output / 'report.html'}: pictures and all tables; records.csv: every image")
