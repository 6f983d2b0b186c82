"""A study file, and what it may say.

It names one full model, its variants, the seeds, the budget, and which row of the paper's tables
each variant repeats.
"""

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from lit_mimdit.ablation.variants import merge
from lit_mimdit.evaluation.metrics import choose
from lit_mimdit.evaluation.published import ABLATIONS, read_ablation
from lit_mimdit.renamed import with_new_names
from lit_mimdit.settings import build

DEGRADED = "degraded"  # the line of the input in tables, beside those of the variants


@dataclass
class PaperRow:
    """The place where the paper (arXiv 2603.02710) has the same variant.

    Args:
        table: number of the table: 3, 4 or 5.
        row: name of the variant in it.
    """

    table: int
    row: str

    def __post_init__(self) -> None:
        if self.table not in ABLATIONS:
            raise ValueError(
                f"paper.table is {self.table}: choose among {', '.join(map(str, ABLATIONS))}"
            )
        if self.row not in read_ablation(self.table):
            raise ValueError(
                f"paper.row is {self.row!r}: table {self.table} has"
                f" {', '.join(map(repr, read_ablation(self.table)))}"
            )


@dataclass
class Lines:
    """The lines that a training has of its own; its arguments are those of Variant.

    Lines that name another `model.class_path` replace the base's arguments of the model.
    """

    file: str | None = None
    lines: dict[str, Any] = field(default_factory=dict)
    take: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.take and self.file is None:
            raise ValueError(f"variants: take is {self.take}, but no file is given; name the file")

    def read(self, beside: Path) -> dict[str, Any]:
        """Returns the lines that differ; files lie relative to the folder `beside`."""
        if self.file is None:
            return self.lines
        values = read_yaml(beside / self.file, "variant")
        missing = [section for section in self.take if section not in values]
        if missing:
            raise ValueError(
                f"variant {beside / self.file}: has no section {missing[0]!r} to take; it has"
                f" {', '.join(values)}"
            )
        return merge({name: values[name] for name in self.take or values}, self.lines)


@dataclass
class EarlierRun(Lines):
    """A training before a variant's own, such as the first of two stages.

    Args:
        file: YAML of the lines that differ, relative to the study file. It may be a whole
            experiment.
        lines: lines that differ, written here. With a file they are laid over what it gives.
        take: sections of the file that count, such as `[model]`; all of them if not given. So an
            experiment of another system gives its model, and data and trainer stay the study's.
        name: name of its folder.
        gives: key that its checkpoint is given to in all trainings after it, such as
            `model.init_args.first_stage`.
        share: share of the study's minutes, in (0, 1). The variant's own training has what the
            earlier ones leave. `null` where steps end the runs: the lines then say how many.
    """

    name: str = ""
    gives: str = ""
    share: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name.replace("_", "").isalnum():
            raise ValueError(
                f"before.name is {self.name!r}, and it names a folder; give letters, digits and _"
                " only"
            )
        if not self.gives.startswith("model."):
            raise ValueError(
                f"before.gives is {self.gives!r}: it is a key of the model that takes the"
                " checkpoint, such as model.init_args.first_stage"
            )
        if self.share is not None and not 0 < self.share < 1:
            raise ValueError(f"before.share is {self.share}: it must lie between 0 and 1")


@dataclass
class Variant(Lines):
    """One change of the full model, or another system.

    Args:
        file: YAML of the lines that differ, relative to the study file. It may be a whole
            experiment.
        lines: lines that differ, written here. With a file they are laid over what it gives.
        take: sections of the file that count, such as `[model]`; all of them if not given. So an
            experiment of another system gives its model, and data and trainer stay the study's.
        paper: row of the paper's tables that shows the same, if there is one.
        before: trainings that come first, in this order.
    """

    paper: PaperRow | None = None
    before: list[EarlierRun] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [earlier.name for earlier in self.before]
        if len(set(names)) < len(names):
            raise ValueError(f"before.name are {names}: give each training a name of its own")
        if sum(earlier.share or 0 for earlier in self.before) >= 1:
            raise ValueError(
                f"before.share are {[earlier.share for earlier in self.before]}: they leave nothing"
                " for the variant's own training; make their sum less than 1"
            )

    def minutes(self, all_of_them: float | None, earlier: EarlierRun | None = None) -> float | None:
        """Returns the minutes of one of the variant's trainings, of its own if none is given."""
        if all_of_them is None:
            return None
        if earlier is not None:
            return all_of_them * (earlier.share or 0)
        return all_of_them * (1 - sum(one.share or 0 for one in self.before))


@dataclass
class Study:
    """All of a study file.

    Args:
        base: YAML of the full model, relative to the study file.
        full: name of the variant that changes nothing. The others are compared to it.
        variants: variants of the study by name.
        seeds: seeds of weights, order of samples and noise. Each variant is trained once with each.
        metrics: metrics by key. `python -m lit_mimdit metrics` lists them.
        settings: lines laid over the base in every run: the budget.
        test: lines laid over everything when a run is tested, such as other images.
        minutes: minutes of training for every run, without validation. They take the place of the
            trainer's max_steps. `null` leaves the budget to `settings`.
    """

    base: str
    full: str
    variants: dict[str, Variant]
    seeds: list[int]
    metrics: list[str]
    settings: dict[str, Any] = field(default_factory=dict)
    test: dict[str, Any] = field(default_factory=dict)
    minutes: float | None = None

    def __post_init__(self) -> None:
        self.metrics = [metric.key for metric in choose(self.metrics, "metrics")]
        full = self.variants.get(self.full)
        if full is None or full.file is not None or full.lines or full.before:
            raise ValueError(
                f"full is {self.full!r}: it must be a variant without file, lines and before"
            )
        if len(set(self.seeds)) < len(self.seeds) or not self.seeds:
            raise ValueError(
                f"seeds are {self.seeds}: give at least one, each once (3 or more for intervals)"
            )
        self._require_one_budget()
        if wrong := [name for name in self.variants if not name.replace("_", "").isalnum()]:
            raise ValueError(
                f"variants: {wrong[0]!r} names a folder too; give letters, digits and _ only"
            )
        if DEGRADED in self.variants:
            raise ValueError(
                f"variants: {DEGRADED} is the line of the input in the tables; give another name"
            )

    def _require_one_budget(self) -> None:
        for name, variant in self.variants.items():
            for earlier in variant.before:
                if (earlier.share is None) != (self.minutes is None):
                    raise ValueError(
                        f"variants.{name}: before.share of {earlier.name} is {earlier.share}, and"
                        f" minutes is {self.minutes}; a share is one of minutes, so give both or"
                        " neither"
                    )
        if self.minutes is None:
            return
        if self.minutes <= 0:
            raise ValueError(f"minutes is {self.minutes}: it must be more than 0")
        ends = ("max_steps", "max_epochs", "max_time")
        given = [name for name in ends if name in self.settings.get("trainer", {})]
        if given:
            raise ValueError(
                f"minutes and settings.trainer.{given[0]} are both given, and a run has one end;"
                " leave one of them out"
            )

    @property
    def others(self) -> list[str]:
        """The variants but the full model."""
        return [name for name in self.variants if name != self.full]


def read_study(path: Path) -> Study:
    """Returns the study in a YAML file. ValueError names the file and what is wrong in it."""
    values = read_yaml(path, "study")
    if "base" not in values and "trainer" in values:
        raise ValueError(
            f"{path}: is an experiment, and `ablate` takes a study: a YAML with base, full, seeds"
            " and variants, such as experiments/ablations/nano.yaml"
        )
    raw = copy.deepcopy(values)  # the parser changes what it is given
    try:
        variants = {name: value or {} for name, value in (values.get("variants") or {}).items()}
        study = build(Study, values | {"variants": variants})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    # the parser of typed values fills in what a class named in a line would take: lines stay lines
    for name, variant in study.variants.items():
        own = (raw["variants"] or {})[name] or {}
        stated = zip([variant, *variant.before], [own, *(own.get("before") or [])], strict=True)
        for lines, written in stated:
            object.__setattr__(lines, "lines", written.get("lines") or {})
    for part in ("settings", "test"):
        object.__setattr__(study, part, raw.get(part) or {})
    trainings = [one for v in study.variants.values() for one in (v, *v.before)]
    for file in [study.base, *(one.file for one in trainings if one.file)]:
        if not (path.parent / file).is_file():
            raise ValueError(
                f"{path}: names {file}, and there is no {path.parent / file}; mend the name, which"
                " is relative to the study"
            )
    return study


def with_tests_of(study: Study, root: Path) -> Study:
    """Returns the study with the pairs of `root`/test.txt as its test images."""
    if not (root / "test.txt").is_file():
        raise ValueError(
            f"test_root is {root}: it has no test.txt, so there is nothing to test on; write such"
            f" a tree with `python -m lit_mimdit sample-data {root} --photos PHOTOGRAPHS`"
        )
    here = {"data": {"init_args": {"root": str(root.resolve()), "test": "test.txt"}}}
    return replace(study, test=merge(study.test, here))


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """Returns a mapping from a YAML file; classes of earlier versions have their present names."""
    try:
        values = yaml.safe_load(with_new_names(path.read_text(encoding="utf-8-sig")))
    except OSError as error:
        raise ValueError(f"{what} {path}: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        raise ValueError(
            f"{what} {path}: no YAML ({' '.join(str(error).split())}); mend it there"
        ) from error
    if not isinstance(values, dict):
        raise ValueError(f"{what} {path}: holds no settings; write keys with values")
    return values
