"""The page of file formats: which keys each file has, and who writes it."""

from dataclasses import is_dataclass
from importlib import import_module
from typing import Any

import file_keys as keys
from describe import about, complete, parts_of, table
from file_keys import Keys

from lit_mimdit.data.shards.manifest import Index, Manifest, Shard
from lit_mimdit.evaluation.record import ImageScores
from lit_mimdit.evaluation.tables import scores_csv
from lit_mimdit.inference.system_file import SystemFile
from lit_mimdit.models.backbone import Identity
from lit_mimdit.systems.base import RestorationSystem
from lit_mimdit.training.callbacks import RunRecord

YOU = "you"
# name -> (who writes it, its module, what else is said: dataclasses, functions and tables of keys)
FORMATS: dict[str, tuple[str, str, list[Any]]] = {
    "Exported system: NAME.safetensors": (
        "export, import-weights",
        "lit_mimdit.inference.system_file",
        [SystemFile, Identity],
    ),
    "Checkpoint: NAME.ckpt": (
        "fit",
        "lit_mimdit.training.checkpoint",
        [RestorationSystem.on_save_checkpoint, keys.CHECKPOINT, keys.DESCRIPTION],
    ),
    "Fidelity network: fidelity.safetensors": (
        "fit",
        "lit_mimdit.inference.fidelity_file",
        [keys.FIDELITY],
    ),
    "Repository on the hub": (
        "export --push_to_hub",
        "lit_mimdit.sharing.repository",
        [keys.REPOSITORY],
    ),
    "Pipeline of diffusers": (
        "export --pipeline",
        "lit_mimdit.inference.pipeline_parts",
        [keys.PIPELINE, keys.INDEX],
    ),
    "Sample data: samples.csv": ("sample-data", "lit_mimdit.data.sample_data", [keys.SAMPLES]),
    "Shards: manifest.json": (
        "data shard, data latents, data teacher",
        "lit_mimdit.data.shards.manifest",
        [Manifest, Shard, keys.IMAGE_SETTINGS],
    ),
    "Shards: shard-000000.tar and shard-000000.npz": (
        "data shard, data latents, data teacher",
        "lit_mimdit.data.shards.writer",
        [keys.MEMBERS, keys.TILE, Index],
    ),
    "Latent shards": (
        "data latents",
        "lit_mimdit.latent_shards",
        [keys.LATENT_TENSORS, keys.LATENT_SETTINGS],
    ),
    "Teacher shards": ("data teacher", "lit_mimdit.teacher_shards", []),
    "Captions: NAME.csv or NAME.jsonl": (YOU, "lit_mimdit.models.captions", [keys.CAPTIONS]),
    "Restored folder: restoration.json": (
        "restore, predict, classical",
        "lit_mimdit.inference.run_record",
        [keys.RESTORATION, keys.RESTORATION_CHECKPOINT, keys.RESTORATION_FILE],
    ),
    "Evaluation: record.jsonl and features.f32": (
        "evaluate",
        "lit_mimdit.evaluation.record",
        [keys.HEADER, keys.SETTINGS, ImageScores],
    ),
    "Evaluation: summary.json": (
        "evaluate, validate, test",
        "lit_mimdit.evaluation.summary",
        [keys.SUMMARY, keys.METRIC, keys.GROUP, keys.VALUE, keys.FAILED],
    ),
    "Evaluation: scores.csv and routing.json": (
        "evaluate, validate, test",
        "lit_mimdit.evaluation.score_files",
        [scores_csv, keys.SCORES, keys.ROUTING_OF_IMAGES],
    ),
    "Run: run.json and run.diff": (
        "fit",
        "lit_mimdit.training.callbacks.record",
        [RunRecord, keys.RUN],
    ),
    "Run: quarantine.csv": (
        "fit, data shard",
        "lit_mimdit.data.quarantine",
        [keys.QUARANTINE],
    ),
    "Study: results.csv, results.md and results.tex": (
        "ablate",
        "lit_mimdit.ablation.result_files",
        [keys.RESULTS, keys.CURVES],
    ),
    "Routing: routing.json and its tables": (
        "routing",
        "lit_mimdit.routing.study_files",
        [keys.ROUTING, keys.ROUTING_FILE, keys.AGREEMENT, *keys.ROUTING_TABLES.values()],
    ),
}


def formats() -> str:
    """Returns the sections of the page, one a file."""
    sections = ["JSON is UTF-8; every file appears whole or not at all."]
    for name, (writers, path, sources) in FORMATS.items():
        module = import_module(path)
        commands = [w if w == YOU else f"`{w}`" for w in writers.split(", ")]
        lines = [f"## {name}", f"Written by {', '.join(commands)}."]
        tags = vars(module).get("FORMATS") or filter(None, [vars(module).get("FORMAT")])
        if named := ", ".join(f"`{tag}`" for tag in tags):
            lines.append(f"Format: {named}.")
        lines += [about(module), *(_keys(source) for source in sources)]
        sections.append("\n\n".join(filter(None, lines)))
    return "\n\n".join(sections)


def _keys(source: Any) -> str:
    """A table of keys, or what a class or function says of a file."""
    if isinstance(source, Keys):
        rows = [[f"`{key}`", meaning] for key, meaning in source.meanings.items()]
        return f"### {source.title}\n\n{table([source.first, 'Meaning'], rows)}"
    if not is_dataclass(source):
        return about(source)
    parts = complete(source, parts_of(source))
    rows = [[f"`{part.name}`", part.kind, part.meaning] for part in parts]
    head = table(["Key", "Type", "Meaning"], rows)
    return f"### {source.__name__}\n\n{about(source)}\n\n{head}"
