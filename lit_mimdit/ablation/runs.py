"""The runs of a study: their folders, their commands, and the frozen files that both rest on."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from lit_mimdit.ablation.study import EarlierRun, Study, read_yaml
from lit_mimdit.ablation.variants import class_of, system_of, whole
from lit_mimdit.evaluation.score_files import SUMMARY
from lit_mimdit.files import write_bytes

FROZEN, RUNS = "study", "runs"  # folders
BEFORE = "before"  # in a run's folder: the trainings before its own, each in one of its name
PLAN, COST = "plan.json", "cost.json"
WHOLE = "whole"  # with a variant's name: all that its runs are configured with


@dataclass(frozen=True)
class Run:
    """One training with its test.

    Args:
        variant: its name.
        seed: of everything.
        study: the study's folder.
    """

    variant: str
    seed: int
    study: Path

    @property
    def name(self) -> str:
        return f"{self.variant}, seed {self.seed}"

    @property
    def folder(self) -> Path:
        return self.study / RUNS / self.variant / f"seed{self.seed}"

    @property
    def done(self) -> bool:
        return (self.folder / COST).is_file() and (
            self.folder / "test" / f"test_{SUMMARY}"
        ).is_file()

    def arguments(self, command: str, study: Study, earlier: EarlierRun | None = None) -> list[str]:
        """Returns the arguments of `python -m lit_mimdit` for "fit" or "test".

        A test lays the study's `test` over the variant.

        Args:
            command: "fit" or "test".
            study: that the run is of.
            earlier: training before the variant's own, if it is that one's.
        """
        before = study.variants[self.variant].before
        done = before if earlier is None else before[: before.index(earlier)]
        folder = self.folder if earlier is None else self.folder_of(earlier)
        args = [command, "-c", str(frozen(self.study, whole_name(self.variant, earlier)))]
        if command == "test":
            args += ["-c", str(frozen(self.study, "test"))]
        values = {
            "seed_everything": self.seed,
            "data.init_args.seed": self.seed,
            "trainer.default_root_dir": folder,
            "trainer.logger.init_args.save_dir": folder,
            "trainer.logger.init_args.name": "",
            "trainer.logger.init_args.version": "log" if command == "fit" else "test",
            "model.init_args.metrics": json.dumps(study.metrics),
        }
        values |= {one.gives: self.folder_of(one) / "checkpoints" / "last.ckpt" for one in done}
        for name, value in values.items():
            args += [f"--{name}", str(value)]
        if command == "fit":
            args += ["--resume", "auto"]
        return args

    def folder_of(self, earlier: EarlierRun) -> Path:
        """Returns the folder of a training before the variant's own."""
        return self.folder / BEFORE / earlier.name

    def write_plan(self, study: Study) -> None:
        """Writes the commands that the run's process reads (ablation/run.py).

        A system that is not trained has no "fit". "before" holds the trainings that come first, by
        folder.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = frozen(self.study, whole_name(self.variant))
        system = system_of(read_yaml(path, "variant"), str(path))
        commands = ("fit", "test") if system.TRAINABLE else ("test",)
        plan: dict[str, Any] = {name: self.arguments(name, study) for name in commands}
        if before := study.variants[self.variant].before:
            plan[BEFORE] = {one.name: self.arguments("fit", study, one) for one in before}
        write_bytes(self.folder / PLAN, (json.dumps(plan, indent=1) + "\n").encode())


def whole_name(variant: str, earlier: EarlierRun | None = None) -> str:
    """Returns the name of the frozen file with all that a training is configured with."""
    return f"{WHOLE}_{variant}" if earlier is None else f"{WHOLE}_{variant}.{earlier.name}"


def frozen(study: Path, name: str) -> Path:
    """Returns a file that the runs of a study rest on."""
    return study / FROZEN / f"{name}.yaml"


def all_runs(study: Study, folder: Path) -> list[Run]:
    """Seed by seed, the full model first: after a kill there is something to compare."""
    variants = (study.full, *study.others)
    return [Run(variant, seed, folder) for seed in study.seeds for variant in variants]


def freeze(study: Study, source: Path, folder: Path) -> dict[str, list[str]]:
    """Copy everything a run depends on into the study's folder; what is there already must be the
    same.

    Args:
        study: as read from `source`.
        source: the study file.
        folder: of the study.

    Returns:
        by variant the callbacks of the base that its system has nothing for, where there are any.
    """
    beside = source.parent
    base = read_yaml(beside / study.base, "base")
    texts = {"base": (beside / study.base).read_text(encoding="utf-8")}
    texts |= {"settings": yaml.safe_dump(study.settings), "test": yaml.safe_dump(study.test)}
    left_out: dict[str, list[str]] = {}
    for name, variant in study.variants.items():
        texts |= {f"variant_{name}": yaml.safe_dump(variant.read(beside))}
        for earlier in (*variant.before, None):
            lines = (earlier or variant).read(beside)
            minutes = variant.minutes(study.minutes, earlier)
            values, dropped = whole(base, study.settings, lines, minutes, f"variant {name}")
            texts |= {whole_name(name, earlier): yaml.safe_dump(values, sort_keys=False)}
        if dropped:
            left_out[name] = dropped
    _write_frozen(texts, folder)
    return left_out


def _write_frozen(texts: dict[str, str], folder: Path) -> None:
    """Write the texts by name, unless one of them is there already and says something else."""
    (folder / FROZEN).mkdir(parents=True, exist_ok=True)
    changed = []
    for name, text in texts.items():
        path = frozen(folder, name)
        if path.is_file() and path.read_text(encoding="utf-8") != text:
            changed.append(name)
    if changed:
        raise ValueError(
            f"{folder}: its runs were made with another {', '.join(changed)} (see"
            f" {folder / FROZEN}); give another --output"
        )
    for name, text in texts.items():
        write_bytes(frozen(folder, name), text.encode())


def require_images(study: Study, folder: Path) -> None:
    """Write the sample data if the study trains on it, and look for all pairs, before the first run
    needs them.
    """
    trained = OmegaConf.load(frozen(folder, f"{WHOLE}_{study.full}"))
    tested = OmegaConf.merge(trained, OmegaConf.load(frozen(folder, "test")))
    for configuration, split in ((trained, "train"), (tested, "test")):
        data = OmegaConf.to_container(configuration.data, resolve=True)
        kind = class_of(data["class_path"], "data")
        images = kind(**data["init_args"])
        images.prepare_data()
        images.source(split)
