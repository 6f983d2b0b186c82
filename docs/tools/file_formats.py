"""The page of file formats: which keys each file has, by the code that writes it."""

import ast
import inspect
from dataclasses import is_dataclass
from importlib import import_module
from textwrap import dedent
from typing import Any

from describe import about, complete, parts_of, table

from lit_mimdit.data.shards.manifest import Index, Manifest, Shard
from lit_mimdit.evaluation.record import ImageScores
from lit_mimdit.evaluation.summary import summarise
from lit_mimdit.evaluation.tables import scores_csv
from lit_mimdit.inference.run_record import describe_run
from lit_mimdit.inference.system_file import SystemFile
from lit_mimdit.models.backbone import Identity
from lit_mimdit.routing.study_files import summary_of
from lit_mimdit.systems.base import RestorationSystem
from lit_mimdit.training.callbacks import RunRecord

# name -> (who writes it, its module, the dataclasses or functions that its keys come from)
FORMATS: dict[str, tuple[str, str, list[Any]]] = {
    "Exported system: NAME.safetensors": (
        "export, import-weights",
        "lit_mimdit.inference.system_file",
        [SystemFile, Identity],
    ),
    "Checkpoint: NAME.ckpt": (
        "fit",
        "lit_mimdit.training.checkpoint",
        [RestorationSystem.on_save_checkpoint, SystemFile.description],
    ),
    "Fidelity network: fidelity.safetensors": ("export", "lit_mimdit.inference.fidelity_file", []),
    "Shards: manifest.json": (
        "data shard, data latents",
        "lit_mimdit.data.shards.manifest",
        [Manifest, Shard],
    ),
    "Shards: shard-000000.tar and shard-000000.npz": (
        "data shard, data latents",
        "lit_mimdit.data.shards.writer",
        [Index],
    ),
    "Latent shards": ("data latents", "lit_mimdit.latent_shards", []),
    "Restored folder: restoration.json": (
        "restore, predict, classical",
        "lit_mimdit.inference.run_record",
        [describe_run],
    ),
    "Evaluation: record.jsonl and features.f32": (
        "evaluate",
        "lit_mimdit.evaluation.record",
        [ImageScores],
    ),
    "Evaluation: summary.json": (
        "evaluate, validate, test",
        "lit_mimdit.evaluation.summary",
        [summarise],
    ),
    "Evaluation: scores.csv": (
        "evaluate, validate, test",
        "lit_mimdit.evaluation.score_files",
        [scores_csv],
    ),
    "Run: run.json and run.diff": (
        "fit",
        "lit_mimdit.training.callbacks.record",
        [RunRecord, RunRecord.on_fit_start],
    ),
    "Run: quarantine.csv": ("fit, data shard", "lit_mimdit.data.quarantine", []),
    "Study: results.csv, results.md and results.tex": (
        "ablate",
        "lit_mimdit.ablation.result_files",
        [],
    ),
    "Routing: routing.json and its tables": (
        "routing",
        "lit_mimdit.routing.study_files",
        [summary_of],
    ),
}


def formats() -> str:
    """Returns the sections of the page, one a file."""
    sections = ["JSON is UTF-8; every file appears whole or not at all."]
    for name, (writers, path, sources) in FORMATS.items():
        module = import_module(path)
        lines = [f"## {name}", f"Written by {', '.join(f'`{w}`' for w in writers.split(', '))}."]
        tags = [v for n, v in sorted(vars(module).items()) if n == "FORMAT"]
        lines += [f"Format: `{tag}`." for tag in tags]
        lines += [about(module), *(_keys(source) for source in sources)]
        sections.append("\n\n".join(lines))
    return "\n\n".join(sections)


def _keys(source: Any) -> str:
    """What a dataclass or a function says of a file, and the keys that it gives it."""
    if isinstance(source, type) and not is_dataclass(source):
        return about(source)
    if isinstance(source, type):
        parts = complete(source, parts_of(source))
        rows = [[f"`{part.name}`", part.kind, part.meaning] for part in parts]
        head = table(["Key", "Type", "Meaning"], rows)
        return f"### {source.__name__}\n\n{about(source)}\n\n{head}"
    found = [_text_keys(node) for node in ast.walk(ast.parse(dedent(inspect.getsource(source))))]
    keys = ", ".join(f"`{key}`" for key in max(found, key=len))
    return "\n\n".join(filter(None, [about(source), f"Keys: {keys}." if "," in keys else ""]))


def _text_keys(node: ast.AST) -> list[str]:
    """The text keys of a dictionary display."""
    keys = node.keys if isinstance(node, ast.Dict) else []
    return [k.value for k in keys if isinstance(k, ast.Constant) and isinstance(k.value, str)]
