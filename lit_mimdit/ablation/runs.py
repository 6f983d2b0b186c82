"""The runs of a study: their folders, their commands, and the frozen files that both rest on."""

import json
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import yaml
from omegaconf import OmegaConf

from lit_mimdit.ablation.study import Study, read_yaml
from lit_mimdit.evaluation.outputs import SUMMARY
from lit_mimdit.files import write_bytes

FROZEN, RUNS, PLAN, COST = "study", "runs", "plan.json", "cost.json"


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

    def arguments(self, command: str, metrics: list[str]) -> list[str]:
        """Of `python -m lit_mimdit`, for "fit" or "test": base, budget, variant, in this order; the
        later one wins.
        """
        names = ["base", "settings", f"variant_{self.variant}"] + ["test"] * (command == "test")
        args = [
            command,
            *(part for name in names for part in ("-c", str(self.study / FROZEN / f"{name}.yaml"))),
        ]
        args += ["--seed_everything", str(self.seed), "--data.init_args.seed", str(self.seed)]
        args += [
            "--trainer.default_root_dir",
            str(self.folder),
            "--trainer.logger.init_args.save_dir",
            str(self.folder),
        ]
        args += [
            "--trainer.logger.init_args.name",
            "",
            "--trainer.logger.init_args.version",
            "log" if command == "fit" else "test",
        ]
        args += ["--model.init_args.metrics", json.dumps(metrics)]
        return args + (["--resume", "auto"] if command == "fit" else [])

    def write_plan(self, metrics: list[str]) -> None:
        """What the run's process reads (ablation/run.py)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        plan = {command: self.arguments(command, metrics) for command in ("fit", "test")}
        write_bytes(self.folder / PLAN, (json.dumps(plan, indent=1) + "\n").encode())


def all_runs(study: Study, folder: Path) -> list[Run]:
    """Seed by seed, the full model first: after a kill there is something to compare."""
    return [
        Run(variant, seed, folder)
        for seed in study.seeds
        for variant in (study.full, *study.others)
    ]


def freeze(study: Study, source: Path, folder: Path) -> None:
    """Copy everything a run depends on into the study's folder; what is there already must be the
    same.

    Args:
        study: as read from `source`.
        source: the study file.
        folder: of the study.
    """
    beside = source.parent
    texts = {"base": (beside / study.base).read_text(encoding="utf-8")}
    texts |= {"settings": yaml.safe_dump(study.settings), "test": yaml.safe_dump(study.test)}
    for name, variant in study.variants.items():
        lines = read_yaml(beside / variant.file, "variant") if variant.file else variant.lines
        texts[f"variant_{name}"] = yaml.safe_dump(lines)
    place = folder / FROZEN
    place.mkdir(parents=True, exist_ok=True)
    there = {name: place / f"{name}.yaml" for name in texts}
    changed = [
        name
        for name, path in there.items()
        if path.is_file() and path.read_text(encoding="utf-8") != texts[name]
    ]
    if changed:
        raise ValueError(
            f"{folder}: its runs were made with another {', '.join(changed)} (see {place}); give"
            " another --output"
        )
    for name, path in there.items():
        write_bytes(path, texts[name].encode())


def require_images(folder: Path) -> None:
    """Write the sample data if the study trains on it, and look for all pairs, before the first run
    needs them.
    """
    for names, split in ((("base", "settings"), "train"), (("base", "settings", "test"), "test")):
        merged = OmegaConf.merge(
            *(OmegaConf.load(folder / FROZEN / f"{name}.yaml") for name in names)
        )
        data = OmegaConf.to_container(merged.data, resolve=True)
        module, kind = data["class_path"].rsplit(".", 1)
        images = getattr(import_module(module), kind)(**data["init_args"])
        images.prepare_data()
        images.source(split)
