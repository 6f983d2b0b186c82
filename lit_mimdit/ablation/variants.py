"""The configuration of a variant's runs: base, budget and variant in one mapping.

A variant may be another system. Then nothing of the base's arguments holds for it, and callbacks
that look at routers or times the system does not have are left out.
"""

from importlib import import_module
from typing import Any

from lit_mimdit.systems.base import RestorationSystem
from lit_mimdit.systems.latent import LatentSystem
from lit_mimdit.systems.mimdit import MiMDiT
from lit_mimdit.training.callbacks import LossByTime, ResultTable, TrainingTime
from lit_mimdit.training.callbacks.window import RoutingCallback

Values = dict[str, Any]
WATCH = f"{TrainingTime.__module__}.{TrainingTime.__name__}"
TABLE = f"{ResultTable.__module__}.{ResultTable.__name__}"
LOGGER = "lightning.pytorch.loggers.CSVLogger"


def merge(base: Values, over: Values) -> Values:
    """Returns the values of `base` with those of `over` laid on them, key by key; lists are
    replaced.

    Where `over` names another `class_path`, its mapping replaces the whole of the base's: arguments
    of one class mean nothing to another.
    """
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, dict) and not _other_class(below, value):
            merged[key] = merge(below, value)
        else:
            merged[key] = value
    return merged


def _other_class(below: Values, over: Values) -> bool:
    return "class_path" in over and over["class_path"] != below.get("class_path")


def class_of(path: str, where: str) -> type:
    """Returns the class of a path such as lit_mimdit.systems.regression.Regression.

    Raises ValueError, which names `where`, if there is none.
    """
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{where}: class_path is {path!r}, and it cannot be imported ({error}); give the whole"
            " path, such as lit_mimdit.systems.regression.Regression"
        ) from error
    if not isinstance(kind, type):
        raise ValueError(
            f"{where}: class_path is {path!r}, and that is no class; give the whole path of one,"
            " such as lit_mimdit.systems.regression.Regression"
        )
    return kind


def system_of(values: Values, where: str) -> type[RestorationSystem]:
    """Returns the system's class of a whole configuration; ValueError if it is none."""
    path = (values.get("model") or {}).get("class_path")
    if path is None:
        raise ValueError(f"{where}: model.class_path is missing; name the system's class")
    kind = class_of(path, f"{where}: model")
    if not issubclass(kind, RestorationSystem):
        raise ValueError(
            f"{where}: model.class_path is {path!r}, which is no system; derive it from"
            " lit_mimdit.systems.base.RestorationSystem"
        )
    return kind


def fits(callback: type, system: type[RestorationSystem]) -> bool:
    """Returns whether a callback finds in a system what it shows: routers, or times of the
    samples.
    """
    if issubclass(callback, RoutingCallback):
        return issubclass(system, MiMDiT)
    if issubclass(callback, LossByTime):
        return issubclass(system, LatentSystem)
    return True


def without_unfit(
    callbacks: list[Values], system: type[RestorationSystem], where: str
) -> tuple[list[Values], list[str]]:
    """Returns the callbacks of a trainer that fit a system, and the class names of the others."""
    kept, dropped = [], []
    for callback in callbacks:
        kind = class_of(callback["class_path"], f"{where}: trainer.callbacks")
        if fits(kind, system):
            kept.append(callback)
        else:
            dropped.append(kind.__name__)
    return kept, dropped


def whole(
    base: Values, settings: Values, lines: Values, minutes: float | None, where: str
) -> tuple[Values, list[str]]:
    """Returns all that a variant's runs are configured with.

    Args:
        base: the full model's experiment.
        settings: of the study, laid over it.
        lines: of the variant, laid over both.
        minutes: budget of training time; None leaves the end to the trainer's max_steps.
        where: names the variant in errors.

    Returns:
        the configuration, and the class names of the callbacks that were left out because the
        variant is another system.
    """
    full = merge(base, settings)
    values = merge(full, lines)
    system = system_of(values, where)
    trainer = dict(values.get("trainer") or {})
    callbacks, dropped = list(trainer.get("callbacks") or []), []
    if _other_class(full["model"], values["model"]):
        callbacks, dropped = without_unfit(callbacks, system, where)
    watch = {"class_path": WATCH, "init_args": {"minutes": minutes}}
    trainer["callbacks"] = [watch, *callbacks]
    # a study reads the scores and the settings that its runs write, so every run writes them
    kinds = [class_of(one["class_path"], f"{where}: trainer.callbacks") for one in callbacks]
    if ResultTable not in kinds:
        trainer["callbacks"].append({"class_path": TABLE})
    if not isinstance(trainer.get("logger"), dict):
        trainer["logger"] = {"class_path": LOGGER}
    if minutes is not None:
        trainer |= {"max_steps": -1, "max_epochs": -1, "max_time": None}
    return values | {"trainer": trainer}, dropped


def budget_of(values: Values) -> float | None:
    """Returns minutes that a run may train, from its whole configuration; None if steps end it."""
    for callback in values["trainer"]["callbacks"]:
        if callback["class_path"] == WATCH:
            return callback["init_args"]["minutes"]
    return None
