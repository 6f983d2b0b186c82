"""`python -m lit_mimdit routing`: what each expert does for each degradation."""

from pathlib import Path
from typing import Any, Literal

import lit_mimdit
from lit_mimdit.data.layouts import Pair, read_layout, require_complete
from lit_mimdit.evaluation.tables import markdown
from lit_mimdit.inference.restore import load_restorer
from lit_mimdit.inference.run_record import commit, file_hash
from lit_mimdit.inference.system_file import system_path
from lit_mimdit.models.mim import BranchConfig
from lit_mimdit.routing.collect import collect, limited
from lit_mimdit.routing.outputs import caption, table6_cells, write_study
from lit_mimdit.routing.severity import by_thirds, find_table, psnr_of, read_table
from lit_mimdit.routing.study import Study, degradation_table
from lit_mimdit.routing.table6 import TYPES


def names_of(paths: list[Path]) -> list[str]:
    """A short name of each checkpoint:

    as much of its path, from the end, as tells them apart. ValueError for the same file twice.
    """
    if len(set(paths)) < len(paths):
        raise ValueError(
            f"checkpoint: {next(p for p in paths if paths.count(p) > 1)} is given twice; each"
            " training counts once"
        )
    parts = [path.absolute().with_suffix("").parts for path in paths]
    depth = next(
        n
        for n in range(1, max(map(len, parts)) + 1)
        if len({part[-n:] for part in parts}) == len(parts)
    )
    return ["/".join(part[-depth:]) for part in parts]


def severities_of(
    pairs: list[Pair], source: str, root: Path, table: Path | None, crop: int | None
) -> tuple[list[str], str]:
    """Severity of each pair, and in words where it is from."""
    if source == "none":
        return [""] * len(pairs), "not asked for"
    found = find_table(root, table) if source in ("auto", "table") else None
    if found is not None:
        levels = read_table(found, pairs)
        return levels, f"{found.name} ({sum(map(bool, levels))} of {len(pairs)} images)"
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
    08Haze, 10Rain and 14Lowlight (11Raindrop, drops on the lens, is not rain); all types that the
    data has are reported as well.

    Args:
        data: Folder in FoundIR's layout, such as data/sample/test.
        output: Folder to write.
        checkpoint: Exported branches (.safetensors) or training checkpoints (.ckpt); the branch
            that comes with the package if not given.
        backbone: Folder or hub id of the backbone, if it is not where it was in training.
        meta: File of "GT-path, LQ-path" lines relative to --data; without it its folders are read.
        limit: Images of each type, the first ones; all if not given.
        crop: Side of the middle crop that the routers see, pixels; whole images, in tiles, if not
            given.
        severity: Where light, medium and heavy come from: table (samples.csv or --severities), psnr
            (thirds of each type by the PSNR of the degraded image), none, or auto: the table if
            there is one, else psnr.
        severities: CSV with the columns lq (relative to the CSV's folder) and severity.
        permutations: Of the permutation tests.
        seed: Of the permutations.
        device: auto, cpu, cuda, cuda:1, mps.
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
    records, configs, about = [], [], []
    for path, name in zip(paths, names, strict=True):
        restorer = load_restorer(path, backbone, device)
        branch = getattr(restorer.network, "branch", None)
        config = getattr(branch, "config", None)
        if not isinstance(config, BranchConfig):
            raise ValueError(
                f"checkpoint {path}: its network has no routers; give one of a MiM branch"
            )
        configs.append((config.groups, config.intra, len(restorer.network.branch.mims)))
        if configs[-1] != configs[0]:
            raise ValueError(
                f"checkpoint {path}: has other groups, sub-experts or blocks than {paths[0]}; study"
                " them separately"
            )
        records.append(collect(restorer, pairs, crop, name))
        about.append(
            {
                "name": path.name,
                "sha256": file_hash(path),
                "tile": restorer.config.tile,
                "overlap": restorer.config.overlap,
            }
        )
    groups, intra, _ = configs[0]
    made: dict[str, Any] = {
        "lit_mimdit": lit_mimdit.__version__,
        "commit": commit(),
        "data": str(data),
        "images": len(pairs),
        "image rule": "whole images" if crop is None else f"middle crop of {crop} px",
        "files": about,
        "severity": source,
        "permutations": permutations,
        "seed": seed,
    }
    study = Study(
        names,
        list(groups),
        intra.experts if intra.router == "dense" else intra.top_k,
        records,
        levels,
        made,
    )
    summary = write_study(output, study, permutations, seed)
    report_on_screen(study, summary, output)


def report_on_screen(study: Study, summary: dict[str, Any], output: Path) -> None:
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
