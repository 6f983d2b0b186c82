"""A routing study asks one or several trainings about the same images.

Every table follows from it.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lit_mimdit.csv_file import Row
from lit_mimdit.data.degradations import SEVERITIES
from lit_mimdit.evaluation.intervals import standard_error
from lit_mimdit.models.what_if import titles
from lit_mimdit.routing.dependence import false_discovery, permutation_test
from lit_mimdit.routing.health import Health, effective_number, enough, health_of
from lit_mimdit.routing.records import Records
from lit_mimdit.routing.table6 import (
    Interval,
    over_checkpoints,
    over_images,
    published_for,
    rows_of,
)
from lit_mimdit.routing.tally import entropy, tally_of

ALL = "all"
DEAD_BELOW, COLLAPSE_BELOW = 0.01, 0.05


@dataclass
class RoutingStudy:
    """The decisions of each checkpoint's routers about the same images.

    Args:
        checkpoints: their names.
        groups: kinds of the expert groups.
        top_k: sub-experts that an image uses of each group.
        records: of each checkpoint; the same images in the same order.
        severity: of each image; "" where it is not known.
        about: where all this comes from.
    """

    checkpoints: list[str]
    groups: list[str]
    top_k: int
    records: list[Records]
    severity: list[str]
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def degradations(self) -> list[str]:
        return sorted(set(self.records[0].degradation))

    @property
    def labels(self) -> list[str]:
        """Group names that sort as the model has them."""
        return [f"{number}_{kind}" for number, kind in enumerate(self.groups)]

    @property
    def titles(self) -> list[str]:
        """Group names for tables of few columns: the kinds, unless one appears twice."""
        return titles(self.groups)

    def rows(self, degradation: str, severity: str = ALL) -> list[int]:
        """Returns which images have a degradation (or "all") and a severity (or "all")."""
        return [
            row
            for row, (name, level) in enumerate(
                zip(self.records[0].degradation, self.severity, strict=True)
            )
            if degradation in (ALL, name) and severity in (ALL, level)
        ]


def degradation_table(
    study: RoutingStudy, names: dict[str, str]
) -> tuple[list[Row], Interval, Interval]:
    """Returns the mean Inter weights by degradation, over images and blocks: rows, weights and
    contrasts.

    With several checkpoints the intervals are over them, with one over images.

    Args:
        study: the records.
        names: degradation as shown -> folder; contrasts are to the mean of these.
    """
    rows = {folder: study.rows(folder) for folder in names.values()}
    values: list[list[np.ndarray]] = []
    for records in study.records:
        own = [records.inter[rows[folder]] for folder in names.values()]
        values.append([inter.mean(1, dtype=np.float64) for inter in own])
    if len(values) > 1:
        weights, contrasts = over_checkpoints(
            np.array([[some.mean(0) for some in own] for own in values])
        )
    else:
        weights, contrasts = over_images(values[0])
    published = published_for(list(names), study.groups)
    table = rows_of(
        weights,
        contrasts,
        [len(rows[folder]) for folder in names.values()],
        list(names),
        study.titles,
        published,
    )
    errors = np.array(
        [[standard_error(some) for some in own] for own in values]
    )  # over the images of each checkpoint
    for row, error in zip(table, errors.mean(0).ravel(), strict=True):
        row["standard_error_over_images"] = error
        row["checkpoints"] = len(values)
    return table, weights, contrasts


def block_table(study: RoutingStudy) -> list[Row]:
    """Returns Inter weights of every block and group, by checkpoint and degradation."""
    lines = []
    for checkpoint, records in zip(study.checkpoints, study.records, strict=True):
        for name in [ALL, *study.degradations]:
            values = records.inter[study.rows(name)].astype(np.float64)
            error = standard_error(values)
            for (block, group), mean in np.ndenumerate(values.mean(0)):
                row = {
                    "checkpoint": checkpoint,
                    "degradation": name,
                    "block": block,
                    "group": study.labels[group],
                    "images": len(values),
                }
                lines.append(
                    row
                    | {
                        "mean": mean,
                        "standard_error": error[block, group],
                        "deviation": values[:, block, group].std(),
                    }
                )
    return lines


def sub_expert_table(study: RoutingStudy) -> list[Row]:
    """Returns the share of the images that each sub-expert worked on and its mean gate, by
    checkpoint, degradation and severity.
    """
    lines = []
    for checkpoint, records in zip(study.checkpoints, study.records, strict=True):
        for name in [ALL, *study.degradations]:
            for severity in [ALL, *SEVERITIES]:
                rows = study.rows(name, severity)
                if not rows or (name == ALL and severity != ALL):
                    continue
                shares, gates = (
                    records.chosen[rows].mean(0, dtype=np.float64),
                    records.gates[rows].mean(0, dtype=np.float64),
                )
                for (block, group, expert), share in np.ndenumerate(shares):
                    row = {
                        "checkpoint": checkpoint,
                        "degradation": name,
                        "severity": severity,
                        "block": block,
                    }
                    row |= {"group": study.labels[group], "sub_expert": expert, "images": len(rows)}
                    lines.append(row | {"share": share, "mean_gate": gates[block, group, expert]})
    return lines


def router_table(study: RoutingStudy, permutations: int, seed: int) -> list[Row]:
    """Returns every router: effective number of experts, entropy, and what its choice tells of the
    degradation (mutual information).

    Of an Inter router, which weighs all groups, the weights take the place of choices.
    """
    lines = []
    labels = np.unique(study.records[0].degradation, return_inverse=True)[1]
    for checkpoint, records in zip(study.checkpoints, study.records, strict=True):
        kinds = {
            "inter": (records.inter[:, :, None], records.inter[:, :, None]),
            "intra": (records.chosen, records.gates),
        }
        own = []
        for kind, (choices, gates) in kinds.items():
            bits, chance, p = permutation_test(labels, choices, permutations, seed)
            effective, doubt = (
                effective_number(choices.mean(0, dtype=np.float64)),
                entropy(gates.astype(np.float64)).mean(0),
            )
            for (block, group), value in np.ndenumerate(bits):
                row = {
                    "checkpoint": checkpoint,
                    "router": kind,
                    "block": block,
                    "group": study.labels[group] if kind == "intra" else "",
                }
                row |= {
                    "experts": choices.shape[-1],
                    "effective_experts": effective[block, group],
                    "entropy_nats": doubt[block, group],
                }
                row |= {
                    "information_on_degradation_bits": value,
                    "by_chance_bits": chance[block, group],
                    "p": p[block, group],
                }
                own.append(row)
        for row, q in zip(own, false_discovery(np.array([row["p"] for row in own])), strict=True):
            row["q"] = q
        lines += own
    return lines


def severity_table(study: RoutingStudy, permutations: int, seed: int) -> list[Row]:
    """Do light and heavy variants of one degradation choose other sub-experts? Bits between
    severity and choice, of every Intra router.

    Only degradations with at least two severities of at least two images. q corrects p for the
    number of tests of a checkpoint.
    """
    lines = []
    for checkpoint, records in zip(study.checkpoints, study.records, strict=True):
        own = []
        for name in study.degradations:
            levels = [level for level in SEVERITIES if len(study.rows(name, level)) > 1]
            if len(levels) < 2:
                continue
            rows = [row for level in levels for row in study.rows(name, level)]
            labels = np.array([levels.index(study.severity[row]) for row in rows])
            bits, chance, p = permutation_test(labels, records.chosen[rows], permutations, seed)
            for (block, group), value in np.ndenumerate(bits):
                row = {
                    "checkpoint": checkpoint,
                    "degradation": name,
                    "block": block,
                    "group": study.labels[group],
                    "images": len(rows),
                }
                row |= {
                    "severities": " ".join(levels),
                    "information_bits": value,
                    "by_chance_bits": chance[block, group],
                }
                own.append(row | {"p": p[block, group]})
        for row, q in zip(own, false_discovery(np.array([row["p"] for row in own])), strict=True):
            row["q"] = q
        lines += own
    return lines


def health(study: RoutingStudy) -> list[Health | None]:
    """Returns the health of each checkpoint; None where there are too few images to tell."""
    tallies = [tally_of(records) for records in study.records]
    return [
        (
            health_of(tally, study.top_k, DEAD_BELOW, COLLAPSE_BELOW)
            if enough(tally, DEAD_BELOW)
            else None
        )
        for tally in tallies
    ]


def record_table(study: RoutingStudy) -> list[Row]:
    """Returns a row an image and checkpoint, with everything known of it.

    Each Inter weight, gate and choice has a column.
    """
    lines = []
    for checkpoint, records in zip(study.checkpoints, study.records, strict=True):
        for row, ((id, _), name) in enumerate(zip(records.key, records.degradation, strict=True)):
            about: Row = {
                "checkpoint": checkpoint,
                "id": id,
                "degradation": name,
                "severity": study.severity[row],
            }
            for (block, group), value in np.ndenumerate(records.inter[row]):
                about[f"inter_block_{block:02d}_{study.labels[group]}"] = value
            for kind, values in (("gate", records.gates[row]), ("chosen", records.chosen[row])):
                for (block, group, expert), value in np.ndenumerate(values):
                    about[f"{kind}_block_{block:02d}_{study.labels[group]}_expert_{expert}"] = value
            lines.append(about)
    return lines
