"""Writes the pages of docs/reference/ from the code that they describe.

python docs/tools/reference.py            # write them
python docs/tools/reference.py --check    # fail if one of them is stale

Commands come from their signatures, YAML keys from the constructors and dataclasses that a YAML
names, meanings from docstrings. A parameter without a meaning is an error.
"""

import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from types import ModuleType
from typing import Any

import lightning as L
import run_keys
import variables
import yaml
from describe import (
    Part,
    about,
    cell,
    complete,
    keys_of,
    nested,
    parts_of,
    parts_table,
    table,
)
from file_formats import formats

from lit_mimdit import cli, nano, systems, trainer_help
from lit_mimdit.ablation.study import Study
from lit_mimdit.evaluation.metrics import DEFAULT, METRICS
from lit_mimdit.evaluation.perceptual import MAX_PIXELS
from lit_mimdit.function_command import SHORT
from lit_mimdit.signatures import signature_of
from lit_mimdit.training import callbacks
from lit_mimdit.training.strategies import StrategyRegistry, ZeRO

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "reference"
NOTE = "<!-- docs/tools/reference.py wrote this from the code: change the code and run it. -->"
NEEDS = {"pair": "image and reference", "image": "image alone", "set": "all images of both sides"}
BACKENDS = {"pixel": "lit_mimdit", "pyiqa": "pyiqa", "set": "lit_mimdit on pyiqa's features"}


def page(title: str, *parts: str) -> str:
    """Returns a whole page."""
    return "\n\n".join([NOTE, f"# {title}", *filter(None, parts)]) + "\n"


# -- commands


def commands() -> str:
    """Returns the page of every command with its options."""
    first = (
        "Type `lit-mimdit COMMAND` or `python -m lit_mimdit COMMAND`."
        " An option that takes several values takes them one after the other."
    )
    parts = [_trainer_command(name, about) for name, about in cli.TRAINER_COMMANDS.items()]
    parts += [_function_command(name, *where[:2]) for name, where in cli.COMMANDS.items()]
    return page("Commands", first, *parts)


def _trainer_command(name: str, text: str) -> str:
    rows = [*trainer_help.ROWS, *(trainer_help.ROWS_OF_FIT if name == "fit" else ())]
    known = "A YAML holds everything else: see [the keys of a run](settings.md#run)."
    options = table(["Option", "Meaning"], [[f"`{o}`", cell(m)] for o, m in rows])
    return "\n\n".join([f"## {name}", cell(text), known, options])


def _function_command(name: str, module: str, function: str) -> str:
    light = signature_of(module, function)
    named = inspect.signature(light).parameters
    options = [n for n, p in named.items() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    required = [o for o in options if named[o].default is inspect.Parameter.empty]
    words = [n.upper() for n in named if n not in options]
    words += [f"--{option} {option.upper()}" for option in required] + ["[options]"]
    rows = [_command_row(part, part.name in options) for part in complete(light, parts_of(light))]
    usage = f"```\nlit-mimdit {name} {' '.join(words)}\n```"
    head = ["Option", "Type", "Default", "Meaning"]
    return "\n\n".join([f"## {name}", usage, about(light), table(head, rows)])


def _command_row(part: Part, option: bool) -> list[str]:
    name = f"`--{part.name}`" if option else f"`{part.name.upper()}`"
    if option and part.name in SHORT:
        name = f"`{SHORT[part.name]}`, {name}"
    return [name, part.kind, part.default, part.meaning]


# -- YAML keys


def named_classes() -> list[type]:
    """Returns the classes of this package that YAMLs can name, sorted by path."""
    paths = {
        path
        for file in sorted((ROOT / "experiments").rglob("*.yaml"))
        for path in _class_paths(yaml.safe_load(file.read_text(encoding="utf-8")))
        if path.startswith("lit_mimdit.")
    }
    paths |= {f"lit_mimdit.training.callbacks.{name}" for name in callbacks.__all__}
    paths |= {f"{system.__module__}.{system.__name__}" for system in systems_of(systems, nano)}
    split = sorted(path.rsplit(".", 1) for path in paths)
    # a YAML may name a class by its package or by its module
    return list(dict.fromkeys(getattr(import_module(module), name) for module, name in split))


def systems_of(*packages: ModuleType) -> set[type]:
    """Returns the systems that packages define: Lightning's modules that no other one extends."""
    for package in packages:
        for module in walk_packages(package.__path__, f"{package.__name__}."):
            import_module(module.name)
    names = tuple(f"{package.__name__}." for package in packages)
    found, left = set(), [L.LightningModule]
    while left:
        extended = left.pop().__subclasses__()
        left += extended
        found |= {one for one in extended if one.__module__.startswith(names)}
    return {one for one in found if not any(under in found for under in one.__subclasses__())}


def _class_paths(values: Any) -> Iterator[str]:
    inner = values.values() if isinstance(values, dict) else values
    if isinstance(values, dict) and isinstance(values.get("class_path"), str):
        yield values["class_path"]
    if isinstance(values, (dict, list)):
        for value in inner:
            yield from _class_paths(value)


def class_section(path: str, thing: type, links: dict[type, str]) -> str:
    """Returns a class's heading, path, text and keys."""
    parts = complete(thing, parts_of(thing, links))
    lines = [f"## {thing.__name__}", f"`{path}`", about(thing), parts_table(parts)]
    return "\n\n".join(lines)


def yaml_pages() -> dict[str, str]:
    """Returns the pages of everything that a YAML names."""
    classes = named_classes()
    inner = list(dict.fromkeys(one for thing in [*classes, Study] for one in nested(thing)))
    links = {one: f"settings.md#{one.__name__.lower()}" for one in inner}
    systems = [c for c in classes if issubclass(c, L.LightningModule)]
    data = [c for c in classes if issubclass(c, L.LightningDataModule)]
    others = [c for c in classes if c not in systems and c not in data]
    return {
        "systems.md": _class_page("Systems", SYSTEMS, systems, links),
        "data_modules.md": _class_page("Data modules", DATA, data, links),
        "callbacks.md": _class_page("Callbacks and plugins", CALLBACKS, others, links),
        "settings.md": page(
            "Settings",
            SETTINGS,
            *run_keys.sections(),
            variables.section(ROOT / "lit_mimdit"),
            *(_settings_section(one, [*classes, Study, *inner], links) for one in inner),
        ),
        "strategies.md": _strategies(links),
        "study.md": page(
            "Study files",
            "A study file drives [`ablate`](commands.md#ablate).",
            about(Study),
            parts_table(complete(Study, parts_of(Study, links))),
        ),
    }


SYSTEMS = "A YAML names one system as `model.class_path`; its keys stand below `model.init_args`."
DATA = "A YAML names one data module as `data.class_path`; its keys stand below `data.init_args`."
SETTINGS = (
    "The first tables show the keys of a run, those of its trainer, and environment variables."
    " Each table after them is a group of keys below a key of a system, or of a study."
)
CALLBACKS = (
    "A YAML lists callbacks below `trainer.callbacks`, and plugins below `trainer.plugins`."
    " Each has a `class_path` and `init_args`. Lightning's own callbacks work too."
)
STRATEGIES = (
    "`trainer.strategy` takes one of the names below, or `ddp`."
    " To set more, give `class_path` and `init_args`."
)


def _path_of(thing: type) -> str:
    """The shortest path by which YAMLs name a class."""
    short = getattr(callbacks, thing.__name__, None) is thing
    return f"{callbacks.__name__ if short else thing.__module__}.{thing.__name__}"


def _class_page(title: str, first: str, classes: list[type], links: dict[type, str]) -> str:
    return page(title, first, *(class_section(_path_of(c), c, links) for c in classes))


def _settings_section(thing: type, users: Iterable[type], links: dict[type, str]) -> str:
    used = [f"- `{key}` of {user.__name__}" for user in users for key in keys_of(user, thing)]
    where = "\n".join(["Found at:", "", *used])
    keys = parts_table(complete(thing, parts_of(thing, links)))
    return "\n\n".join([f"## {thing.__name__}", about(thing), where, keys])


def _strategies(links: dict[type, str]) -> str:
    rows = [
        [f"`{name}`", str(data["init_params"]["stage"]), _yes(data["init_params"]["offload"]),
         "CPU" if data["strategy"] is not ZeRO else "GPU"]
        for name, data in StrategyRegistry.items()
        if issubclass(data["strategy"], ZeRO)
    ]  # fmt: skip
    names = table(["Name", "ZeRO stage", "Optimizer's state in host memory", "Devices"], rows)
    return page(
        "Strategies",
        STRATEGIES,
        names,
        class_section(f"{ZeRO.__module__}.{ZeRO.__name__}", ZeRO, links),
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"


# -- metrics and files


def metrics() -> str:
    """Returns the page of metrics: direction, weights and limits."""
    rows = [
        [
            f"`{metric.key}`",
            metric.label,
            metric.direction,
            NEEDS[metric.needs],
            BACKENDS[metric.backend],
            f"{metric.min_side} px" if metric.min_side > 1 else "any",
            _yes(metric.tiled),
            ", ".join(f"`{alias}`" for alias in metric.aliases),
        ]
        for metric in METRICS.values()
    ]
    files = {file.name: (file, []) for metric in METRICS.values() for file in metric.files}
    for metric in METRICS.values():
        for file in metric.files:
            files[file.name][1].append(f"`{metric.key}`")
    head = ["Key", "In tables", "Direction", "Needs", "Computed by", "Smallest side", "In tiles",
            "Also called"]  # fmt: skip
    head_of_files = ["File", "Needed by", "First digits of its sha256", "Address"]
    weights = [
        [f"`{name}`", ", ".join(keys), f"`{file.prefix[:8]}`" if file.prefix else "unknown",
         f"<{file.source}>"]
        for name, (file, keys) in files.items()
    ]  # fmt: skip
    default = (
        f"`evaluate` computes these unless told otherwise: {', '.join(f'`{k}`' for k in DEFAULT)}."
    )
    cap = (
        f"A metric that goes in tiles scores an image above {MAX_PIXELS:,} pixels tile by tile"
        " and takes the mean. Change the limit with `--max_pixels`."
    )
    return page(
        "Metrics",
        default,
        table(head, rows),
        cap,
        "## Weights",
        "Run `lit-mimdit metrics` to see where each file is looked for, and which are missing.",
        table(head_of_files, weights),
    )


# -- all of it


def index(pages: dict[str, str]) -> str:
    """Returns the first page, a link to each other page."""
    titles = {name: re.search("^# (.*)", text, re.MULTILINE)[1] for name, text in pages.items()}
    lines = [f"- [{title}]({name})" for name, title in titles.items()]
    return page(
        "Reference", "Everything that can be typed or set, from the code.", "\n".join(lines)
    )


def pages() -> dict[str, str]:
    """Returns every page by file name."""
    found = {"commands.md": commands()} | yaml_pages()
    found |= {"metrics.md": metrics(), "file_formats.md": page("File formats", formats())}
    return {"index.md": index(found)} | found


def stale(folder: Path, wanted: dict[str, str]) -> list[str]:
    """Returns the names of pages that are missing, differ from the wanted ones, or are too many."""
    there = {path.name for path in folder.glob("*.md")}
    common = wanted.keys() & there
    differ = {n for n in common if (folder / n).read_text(encoding="utf-8") != wanted[n]}
    return sorted(differ | (wanted.keys() ^ there))


def main(args: list[str]) -> int:
    """Writes the pages, or checks them."""
    if args == ["--check"]:
        if names := stale(FOLDER, pages()):
            print(f"stale: {', '.join(names)}; run python docs/tools/reference.py", file=sys.stderr)
        return int(bool(names))
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
