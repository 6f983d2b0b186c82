"""`python -m lit_mimdit evaluate`: scores of any method's folder of restored images.

One pass over the images, one size at a time, appended to a record as they come: the same command
goes on after a kill.
"""

import hashlib
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lit_mimdit.data.alike import alike
from lit_mimdit.data.image_io import ImageError, read_rgb, to_tensor
from lit_mimdit.evaluation import metrics as table
from lit_mimdit.evaluation.pairing import Item, Pairing, pair, require_whole
from lit_mimdit.evaluation.perceptual import MAX_PIXELS
from lit_mimdit.evaluation.record import ImageScores, Record
from lit_mimdit.evaluation.score_files import (
    LATEX,
    MARKDOWN,
    SCORES,
    SUMMARY,
    print_tables,
    write_scores,
)
from lit_mimdit.evaluation.scorer import Scorer
from lit_mimdit.evaluation.summary import RESAMPLES, summarise
from lit_mimdit.inference.device import choose_device
from lit_mimdit.inference.run_record import commit, read_records

IMAGE_RULE = "full size, RGB, 8 bits, no crop, no resize"


def evaluate(
    *,
    restored: Path | None = None,
    checkpoint: Path | None = None,
    output: Path,
    reference: Path | None = None,
    degraded: Path | None = None,
    metrics: str = ",".join(table.DEFAULT),
    layout: str | None = None,
    meta: Path | None = None,
    split: str | None = None,
    frames: Path | None = None,
    suffix: str = "",
    reference_suffix: str = "",
    degraded_suffix: str = "",
    name: str = "restored",
    intersection: bool = False,
    restart: bool = False,
    weights: Path | None = None,
    download: bool = False,
    device: str = "auto",
    batch_size: int = 1,
    max_pixels: int = MAX_PIXELS,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> int:
    """Evaluate a folder of restored images, of this or any other method, against their references.

    Images are paired by name (extensions and GT/LQ folders may differ) and never resized. The same
    command goes on where it was killed.

    Args:
        restored: Folder of restored images; or give --checkpoint.
        checkpoint: Restore the degraded images first, into OUTPUT/restored. It is what restore
            --checkpoint takes, such as another project's .pth. Needs --degraded, or --layout.
        output: Folder for summary.json, scores.csv, tables.md, tables.tex and the record.
        reference: Folder of clean images, or with --layout the root of a data set. Without it only
            NIQE, LIQE, MUSIQ and CLIPIQA are computed.
        degraded: Folder of the images before restoration, to be scored as well. With --layout give
            the same root again.
        metrics: Metrics by key, separated by commas. `python -m lit_mimdit metrics` lists them.
        layout: How the reference data set is laid out: `foundir`, `4krd`, `realrain1k`, `hazerd`,
            `uhdll` or `auto`. Without it, a plain folder is read.
        meta: Meta file of a `foundir` data set.
        split: Split of `realrain1k` or `uhdll`: `train`, `val` or `test`.
        frames: Frame list of `4krd`.
        suffix: What a restored image's name has at its end: `_out` pairs 0001_out.png with
            0001.png.
        reference_suffix: What a reference's name has at its end, such as `_gt`. Not with --layout.
        degraded_suffix: What a degraded image's name has at its end, such as `_lq`. Not with
            --layout.
        name: What the method is called in tables.
        intersection: Evaluate the images that can be paired even if others cannot.
        restart: Replace what is in --output instead of going on with it.
        weights: Folder of metric weights that is looked into first.
        download: Fetch missing weights from their published addresses.
        device: Where it runs: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        batch_size: Images of one size computed at once.
        max_pixels: Larger images are scored in tiles by the metrics whose memory grows with the
            image. 0 sets no limit.
        resamples: Resamples of the bootstrap.
        seed: Seed of the bootstrap.

    Returns:
        0, or 1 if any score failed.
    """
    if (restored is None) == (checkpoint is None):
        raise ValueError("give the images by --restored FOLDER, or by --checkpoint FILE")
    for key, value in {"batch_size": batch_size, "resamples": resamples}.items():
        if value < 1:
            raise ValueError(f"{key} is {value}: it must be at least 1")
    _require_apart(output, restored, reference, degraded)
    table.choose(metrics)  # before the folders are read
    if checkpoint is not None:
        from lit_mimdit.evaluation.restoring import name_of, restore_first  # of diffusers' weight

        options = {"meta": meta, "split": split, "frames": frames}
        restored = restore_first(checkpoint, output, reference, degraded, layout, options, device)
        suffix = suffix or degraded_suffix
        name = name_of(checkpoint, restored) if name == "restored" else name
    assert restored is not None, "one of the two is given"
    suffixes = {"restored": suffix, "reference": reference_suffix, "degraded": degraded_suffix}
    if layout is not None:
        _require_plain(suffixes)
    run = read_records(restored)
    pairing = pair(restored, reference, degraded, layout, suffixes, meta, split, frames)
    require_whole(pairing, intersection)
    if pairing.problems:
        print(
            f"intersection: N = {len(pairing.items)}; {len(pairing.problems)} image(s) left out,"
            " listed in summary.json"
        )
    scorer = Scorer(
        metrics, choose_device(device), reference is not None, max_pixels, weights, download
    )
    rows, features = _scored(scorer, pairing, output, restart, batch_size)
    summary = {"name": name} | about(scorer, pairing)
    summary["restoration"] = provenance(run, restored, pairing)
    summary |= summarise(rows, features, scorer.describe(), seed, resamples)
    files: dict[tuple[str, str], str] = {}
    for item in pairing.items:
        files |= {(item.id, v): os.path.relpath(path, output) for v, path in item.files.items()}
    write_scores(output, summary, rows, files, routing_of(run, restored, pairing))
    _report_on_screen(summary, output)
    return 1 if summary["failed"] else 0


def _require_apart(output: Path, *folders: Path | None) -> None:
    """Raises ValueError if the results would be written into a folder of images."""
    if output.resolve() in {folder.resolve() for folder in folders if folder is not None}:
        raise ValueError(f"output is {output}: give a folder of its own, not one of the images'")


def _require_plain(suffixes: dict[str, str]) -> None:
    """Raises ValueError for a suffix of images whose names a data set's layout decides."""
    for which in ("reference", "degraded"):
        if suffixes[which]:
            raise ValueError(
                f"{which}_suffix is {suffixes[which]!r}: with --layout the data set's own names"
                " count; leave it out"
            )


def _scored(
    scorer: Scorer, pairing: Pairing, output: Path, restart: bool, batch_size: int
) -> tuple[list[ImageScores], np.ndarray]:
    """Rows and features of all images, those that the record in `output` has already among them."""
    record = Record(output, settings(scorer, pairing), restart)
    try:
        score_all(scorer, pairing, record, batch_size)
        return list(record.rows.values()), record.features()
    finally:
        record.close()


def about(scorer: Scorer, pairing: Pairing) -> dict[str, Any]:
    """Returns versions, device and pairing, which a summary carries along."""
    return {
        "lit_mimdit": table.__version__,
        "commit": commit(),
        "torch": torch.__version__,
        "pyiqa": version("pyiqa"),
        "device": str(scorer.device),
        "image_rule": IMAGE_RULE,
        "paired_by": pairing.by,
        "intersection": bool(pairing.problems),
        "problems": pairing.problems,
    }


def _report_on_screen(summary: dict[str, Any], output: Path) -> None:
    """The tables, where the files are, and the first failures on stderr."""
    print_tables(summary)
    print(
        f"\nin {output}: {', '.join((SUMMARY, SCORES, MARKDOWN, LATEX))}; with pictures: python -m"
        f" lit_mimdit report {output} -o FOLDER"
    )
    for failure in summary["failed"][:10]:
        print(
            f"error: {failure['id']} {failure['version']} {failure['metric']}: {failure['reason']}",
            file=sys.stderr,
        )


def settings(scorer: Scorer, pairing: Pairing) -> dict[str, Any]:
    """Returns everything the scores of an image depend on: a record made with others is not
    continued.
    """
    digest = hashlib.sha256()
    for item in pairing.items:
        for which, path in item.files.items():
            status = path.stat()
            facts = item.id, item.degradation, which, status.st_size, status.st_mtime_ns
            digest.update(("\0".join(map(str, facts)) + "\n").encode("utf-8", "surrogateescape"))
    return {
        "metrics": scorer.describe(),
        "images": digest.hexdigest(),
        "dataset": pairing.dataset,
        "device": scorer.device.type,
    }


def score_all(scorer: Scorer, pairing: Pairing, record: Record, batch_size: int) -> None:
    """Score what the record does not have yet."""
    todo = []
    for item in pairing.items:
        if not all(record.done(item.id, version) for version in versions(item, scorer)):
            todo.append(item)
    done = len(pairing.items) - len(todo)
    if done:
        print(f"{done} of {len(pairing.items)} images are in the record already")
    with tqdm(
        total=len(pairing.items), initial=done, desc="images", unit="image", disable=not todo
    ) as bar:
        for batch in alike(todo, batch_size, lambda item: item.size):
            score_batch(scorer, batch, pairing.dataset, record)
            bar.update(len(batch))


def versions(item: Item, scorer: Scorer) -> list[str]:
    """Returns the versions of an item that make rows; references do for their features alone."""
    return [version for version in item.files if version != "reference" or scorer.wants_features]


def score_batch(scorer: Scorer, batch: list[Item], dataset: str, record: Record) -> None:
    """Read, score and record items of one size.

    An item with a file that cannot be read is recorded as failed.
    """
    images: dict[str, list[Tensor]] = {version: [] for version in batch[0].files}
    whole: list[Item] = []
    for item in batch:
        try:
            pixels = {version: to_tensor(read_rgb(path)) for version, path in item.files.items()}
        except ImageError as error:
            for version in versions(item, scorer):
                record.add(_row(item, version, dataset, errors={"file": str(error)}))
            continue
        whole.append(item)
        for version, image in pixels.items():
            images[version].append(image)
    if not whole:
        return
    references = torch.stack(images["reference"]) if "reference" in images else None
    for version in versions(batch[0], scorer):
        stacked = torch.stack(images[version])
        if version == "reference":
            for item, feature in zip(whole, scorer.features(stacked), strict=True):
                record.add(_row(item, version, dataset), np.asarray(feature))
            continue
        for item, result in zip(whole, scorer.score(stacked, references), strict=True):
            row = _row(
                item,
                version,
                dataset,
                scores=result.scores,
                errors=result.errors,
                tiles=result.tiles,
            )
            record.add(row, result.feature)


def _row(item: Item, version: str, dataset: str, **values: Any) -> ImageScores:
    return ImageScores(item.id, version, dataset, item.degradation, *item.size, **values)


def provenance(run: dict[str, Any] | None, folder: Path, pairing: Pairing) -> dict[str, Any] | None:
    """Returns how the restored images were made, without the entries of single images.

    It says how many of the evaluated images the record names.
    """
    if run is None:
        return None
    named = sum(
        item.files["restored"].relative_to(folder).as_posix() in run["images"]
        for item in pairing.items
    )
    return {key: value for key, value in run.items() if key != "images"} | {
        "images_named": named,
        "images_evaluated": len(pairing.items),
    }


def routing_of(
    run: dict[str, Any] | None, folder: Path, pairing: Pairing
) -> dict[str, list[list[float]]]:
    """Returns Inter-MoE weights by block of the images whose record has them, by id."""
    if run is None:
        return {}
    names = {
        item.id: item.files["restored"].relative_to(folder).as_posix() for item in pairing.items
    }
    return {id: run["images"][name] for id, name in names.items() if run["images"].get(name)}
