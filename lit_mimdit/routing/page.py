"""The page of a routing study: every table and picture with its text, as HTML and Markdown."""

from pathlib import Path
from typing import Any

import numpy as np

from lit_mimdit.csv_file import Row
from lit_mimdit.evaluation.figures import png, svg
from lit_mimdit.evaluation.page import Page
from lit_mimdit.files import write_bytes
from lit_mimdit.routing import choice_pictures, pictures
from lit_mimdit.routing.cells import Preferences, caption, table6_cells, verdict_cells
from lit_mimdit.routing.study import ALL, DEAD_BELOW, RoutingStudy
from lit_mimdit.routing.table6 import published_for


class Gallery:
    """Adds pictures to a page, and writes each as SVG and PNG beside it."""

    def __init__(self, page: Page, folder: Path) -> None:
        self.page, self.folder = page, folder

    def add(self, figure: Any, name: str, text: str) -> None:
        self.page.svg(svg(figure), name, text)
        write_bytes(self.folder / "pictures" / f"{name}.png", png(figure))


def write_page(
    folder: Path,
    of: RoutingStudy,
    severity: list[Row],
    summary: dict[str, Any],
    six: Preferences | None,
    files: list[str],
) -> None:
    """Write report.html and report.md.

    Args:
        folder: of the study.
        of: the study.
        severity: see study.severity_table.
        summary: of the study.
        six: its table 6, if it has one.
        files: names of the files that the page lists at its end.
    """
    page = Page("Routing: " + ", ".join(of.checkpoints), folder)
    gallery = Gallery(page, folder)
    page.pairs({key: str(value) for key, value in of.about.items()})
    if six is not None:
        _table6_part(page, gallery, of, six, summary.get("agreement_with_table6"))
    _degradations_part(page, gallery, of)
    _sub_experts_part(page, gallery, of, summary["health"])
    _severity_part(page, gallery, of, severity)
    page.heading("Files", 2)
    page.items(files)
    page.write()


def _degradations_part(page: Page, gallery: Gallery, of: RoutingStudy) -> None:
    """Mean Inter weights by degradation: over blocks, block by block, and along the depth."""
    page.heading("By degradation", 2)
    means = _means(of)
    shown = {f"{name} ({len(of.rows(name))})": values.mean(0) for name, values in means.items()}
    whole = {"mean Inter weight": np.stack([values.mean(0) for values in shown.values()])}
    gallery.add(
        pictures.table_picture(whole, list(shown), of.groups, "All degradations (images)"),
        "degradations",
        "mean over blocks",
    )
    gallery.add(
        pictures.heat_maps(shown, of.groups, "Block by group"),
        "heat_maps",
        "mean Inter weights, block by group; white is an equal share",
    )
    gallery.add(
        pictures.depth(means, of.groups, "Along the depth"),
        "depth",
        "a thin line a checkpoint, the bold one their mean",
    )


def _means(of: RoutingStudy) -> dict[str, np.ndarray]:
    """Mean Inter weights (checkpoints, L, G) of each degradation, and of all images."""
    means: dict[str, np.ndarray] = {}
    for name in [*of.degradations, ALL]:
        weights = [records.inter[of.rows(name)] for records in of.records]
        means[name] = np.stack([inter.mean(0, dtype=np.float64) for inter in weights])
    return means


def _sub_experts_part(
    page: Page, gallery: Gallery, of: RoutingStudy, health: dict[str, list[str] | None]
) -> None:
    """Shows how much each sub-expert is used, a picture and its verdicts a checkpoint."""
    page.heading("Sub-experts", 2)
    for number, (checkpoint, records) in enumerate(zip(of.checkpoints, of.records, strict=True)):
        title = f"{checkpoint}: {len(records)} images, top {of.top_k}"
        share = records.chosen.mean(0, dtype=np.float64)
        gallery.add(
            choice_pictures.share_map(share, of.groups, title, DEAD_BELOW),
            f"sub_experts_{number}",
            "share of the images that each sub-expert worked on; dead ones are crossed out",
        )
        sentences = health[checkpoint]
        if sentences is None:
            sentences = ["too few images to tell dead sub-experts"]
        page.items(sentences or ["no dead sub-expert, no collapsed router"])


def _table6_part(
    page: Page, gallery: Gallery, of: RoutingStudy, six: Preferences, alike: dict[str, Any] | None
) -> None:
    """Table 6 of this study, beside the published one where the groups are the paper's."""
    names = list(six.names)
    page.heading("Table 6", 2)
    page.text(
        f"{caption(of)}. FoundIR types:"
        f" {', '.join(f'{name} = {kind}' for name, kind in six.names.items())}."
    )
    page.table(*table6_cells(six.rows))
    published = published_for(names, of.groups)
    apart = published - published.mean(0) if published is not None else None
    title = (
        "Table 6: bars this study, diamonds the paper"
        if published is not None
        else "Mean Inter weights"
    )
    figure = pictures.interval_bars(
        six.weights, published, names, of.groups, title, 1 / len(of.groups)
    )
    gallery.add(figure, "table6", "the dashed line is an equal share")
    figure = pictures.interval_bars(
        six.contrasts, apart, names, of.groups, "What each degradation prefers", 0.0
    )
    gallery.add(figure, "table6_contrasts", "weights less the group's mean over these degradations")
    if published is not None:
        _published_part(page, gallery, of, six, published, alike)


def _published_part(
    page: Page,
    gallery: Gallery,
    of: RoutingStudy,
    six: Preferences,
    published: np.ndarray,
    alike: dict[str, Any] | None,
) -> None:
    """Both tables as one picture, how alike they are, and which preferences appear."""
    both = {"published": published, "this study": six.weights.mean}
    gallery.add(
        pictures.table_picture(both, list(six.names), of.groups, "Table 6"),
        "table6_tables",
        "white is an equal share",
    )
    if alike is not None:
        page.text(
            f"Rank correlation with the published table: {alike['spearman_weights']:.2f} of the"
            f" weights, {alike['spearman_contrasts']:.2f} of the contrasts; the same heaviest"
            f" group in {alike['same_heaviest_group']} of {len(six.names)} degradations."
        )
    page.heading("Which published preferences appear", 3)
    page.text(
        "appears or opposite: the interval lies wholly on the published or on the other side;"
        " undecided: it covers the neutral value."
    )
    page.table(*verdict_cells(six.rows))


def _severity_part(page: Page, gallery: Gallery, of: RoutingStudy, rows: list[Row]) -> None:
    """Shows whether the choice of sub-experts depends on the severity, by tests and pictures."""
    page.heading("Light and heavy variants of one degradation", 2)
    source = of.about.get("severity", "not known")
    if not rows:
        page.text(
            f"Severity: {source}. Fewer than two severities of two images each, so there is nothing"
            " to test."
        )
        return
    page.text(
        f"Severity: {source}. Mutual information between severity and the chosen sub-experts, less"
        " its mean over permutations of the severities among the images of a degradation; q is"
        " corrected for the number of tests of a checkpoint."
    )
    for number, checkpoint in enumerate(of.checkpoints):
        own = [row for row in rows if row["checkpoint"] == checkpoint]
        _severity_map(gallery, of, number, own)
        _severity_bars(gallery, of, number, own)


def _severity_map(gallery: Gallery, of: RoutingStudy, number: int, rows: list[Row]) -> None:
    """Bits beyond chance of every router of a checkpoint, block by group."""
    shape = of.records[0].inter.shape[1:]
    names = list(dict.fromkeys(row["degradation"] for row in rows))
    excess = {name: np.zeros(shape) for name in names}
    q = {name: np.zeros(shape) for name in names}
    for row in rows:
        router = row["block"], of.labels.index(row["group"])
        bits = row["information_bits"] - row["by_chance_bits"]
        excess[row["degradation"]][router] = max(bits, 0.0)
        q[row["degradation"]][router] = row["q"]
    significant = sum(row["q"] < 0.05 for row in rows)
    title = (
        f"{of.checkpoints[number]}: severity and choice, {significant} of {len(rows)} routers with"
        " q < 0.05"
    )
    gallery.add(
        choice_pictures.severity_map(excess, q, of.groups, title),
        f"severity_{number}",
        "bits beyond chance, block by group; a star where q < 0.05",
    )


def _severity_bars(gallery: Gallery, of: RoutingStudy, number: int, rows: list[Row]) -> None:
    """Shows what the three routers of a checkpoint choose that tell severities apart best."""
    strongest = sorted(rows, key=lambda row: row["by_chance_bits"] - row["information_bits"])[:3]
    cases = {}
    for row in strongest:
        router = f"block {row['block']} {row['group'][2:]}, q = {row['q']:.3f}"
        cases[f"{row['degradation']}\n{router}"] = _by_level(of, number, row)
    title = f"{of.checkpoints[number]}: the routers that tell severities apart best"
    gallery.add(
        choice_pictures.severity_bars(cases, title),
        f"severity_shares_{number}",
        "share of the images of each severity",
    )


def _by_level(of: RoutingStudy, checkpoint: int, row: Row) -> dict[str, np.ndarray]:
    """Shares (E,) of the sub-experts at each severity, of one router and degradation."""
    chosen = of.records[checkpoint].chosen[:, row["block"], of.labels.index(row["group"])]
    return {
        level: chosen[of.rows(row["degradation"], level)].mean(0)
        for level in row["severities"].split()
    }
