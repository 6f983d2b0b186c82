"""The environment variables that the package reads, found in its code, and what each means."""

import ast
from collections.abc import Iterator
from pathlib import Path

from describe import table

OWN = {
    "LIT_MIMDIT_CACHE": (
        "`~/.cache/lit_mimdit`",
        "Folder in which embeddings of prompts are kept.",
    ),
    "LIT_MIMDIT_MAX_MEGAPIXELS": (
        "`250`",
        "Images with more megapixels are refused. `--max_megapixels` wins.",
    ),
    "LIT_MIMDIT_TRACEBACK": (
        "empty",
        "Any text shows the whole traceback of an error, not one line.",
    ),
    "LIT_MIMDIT_WARNINGS": (
        "`0`",
        "`1` shows the remarks of libraries, which are hidden.",
    ),
    "LIT_MIMDIT_WEIGHTS": (
        "empty",
        "Folder of metric weights, looked into after that of `--weights`.",
    ),
}
# what a launcher or Slurm sets, and a run reads
LAUNCHERS = {
    "RANK": "Number of the process, by torchrun. An error of a lost process names it.",
    "SLURMD_NODENAME": "Name of the host, for run.json.",
    "SLURM_ARRAY_JOB_ID": "Id of an array of jobs, to put a job back into the queue.",
    "SLURM_ARRAY_TASK_ID": "Number of the job in the array.",
    "SLURM_JOB_ID": "Id of the job, to put it back into the queue, and for run.json.",
    "SLURM_LOCALID": "Number of the process on its host. Process 0 puts the job back.",
    "SLURM_PROCID": "Number of the process. An error of a lost process names it.",
    "SLURM_RESTART_COUNT": "How often Slurm started the job again, for run.json.",
    "TORCHELASTIC_RESTART_COUNT": "How often torchrun started the job again, for run.json.",
}
LIBRARIES = (
    "Libraries read variables of their own. `HF_HUB_OFFLINE=1` takes backbones and branches from"
    " the hub's cache alone. `HF_TOKEN` logs in to the hub, and `HF_HOME` moves its cache."
    " `TORCH_HOME` moves the folder in which metric weights are looked for last."
)


def read_in(source: str) -> set[str]:
    """Returns the names of the environment variables that a module reads."""
    tree = ast.parse(source)
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    names = set()
    for key in _keys(tree):
        name = key.value if isinstance(key, ast.Constant) else constants.get(getattr(key, "id", ""))
        if isinstance(name, str):
            names.add(name)
    return names


def _keys(tree: ast.AST) -> Iterator[ast.expr]:
    """What `environ` is asked for: environ[key], environ.get(key), getenv(key), key in environ."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and _is_environ(node.value):
            if isinstance(node.ctx, ast.Load):
                yield node.slice
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            asks = node.func.attr in ("get", "pop", "setdefault") and _is_environ(node.func.value)
            if asks or node.func.attr == "getenv":
                yield node.args[0]
        elif isinstance(node, ast.Compare) and any(map(_is_environ, node.comparators)):
            yield node.left


def _is_environ(node: ast.expr) -> bool:
    return "environ" in (getattr(node, "attr", None), getattr(node, "id", None))


def section(package: Path) -> str:
    """Returns the section of the page.

    Raises:
        ValueError: a variable that the package reads is not explained, or one is that it does not.
    """
    read: set[str] = set()
    for path in package.rglob("*.py"):
        read |= read_in(path.read_text(encoding="utf-8"))
    if differ := read ^ (OWN.keys() | LAUNCHERS.keys()):
        raise ValueError(
            f"environment variables {', '.join(sorted(differ))}: the package and the tables of"
            " docs/tools/variables.py differ; add or remove them there"
        )
    own = [[f"`{name}`", default, meaning] for name, (default, meaning) in OWN.items()]
    set_by_others = [[f"`{name}`", meaning] for name, meaning in LAUNCHERS.items()]
    parts = [
        "## Environment variables",
        "Set them before a command starts.",
        table(["Variable", "Default", "Meaning"], own),
        LIBRARIES,
        "Slurm and torchrun set these.",
        table(["Variable", "Meaning"], set_by_others),
    ]
    return "\n\n".join(parts)
