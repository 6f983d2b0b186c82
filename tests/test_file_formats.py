"""The tables of docs/reference/file_formats.md have the keys of files that commands wrote."""

import csv
import json
import re
import tarfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import file_keys as keys
import numpy as np
import pytest
import torch
from ablation.test_results import write_test
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load
from torch.utils.tensorboard import SummaryWriter

from lit_mimdit import cli
from lit_mimdit.ablation.result_files import write_results
from lit_mimdit.ablation.results import read_runs
from lit_mimdit.ablation.runs import all_runs
from lit_mimdit.ablation.study import Study, Variant
from lit_mimdit.data.quarantine import write_quarantine
from lit_mimdit.data.shards.write import shard
from lit_mimdit.inference.fidelity_file import save_fidelity
from lit_mimdit.inference.system_file import load_system, system_path
from lit_mimdit.latent_shards import latents
from lit_mimdit.models.captions import read_captions
from lit_mimdit.models.fidelity import Fidelity
from lit_mimdit.sharing.repository import Facts, write_repository
from lit_mimdit.teacher_shards import teacher


def pattern(key: str) -> str:
    """A regular expression of a key, whose words in capitals stand for anything."""
    return ".+".join(map(re.escape, re.split("[A-Z]{4,}", key)))


def differences(table: keys.Keys, *files: Iterable[str]) -> list[str]:
    """What the table lacks, what a file lacks, and what is in no file but said to be optional."""
    found = [set(file) for file in files]
    every = set().union(*found)
    own = {
        key: {name for name in every if re.fullmatch(pattern(key), name)} for key in table.meanings
    }
    missing = [
        key
        for key in table.meanings
        if key not in table.optional
        for names in found
        if not names & own[key]
    ]
    return sorted(every - set().union(*own.values())) + missing


def head(path: Path) -> list[str]:
    with open(path, newline="", encoding="utf-8") as file:
        return next(csv.reader(file))


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def photo(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_a_difference_is_found():
    table = keys.Keys("", {"id": "", "VERSION_METRIC": "", "more": ""}, frozenset({"more"}))
    assert differences(table, ["id", "restored_psnr"]) == []
    assert differences(table, ["id", "restored_psnr", "more"], ["id", "a_b"]) == []
    assert differences(table, ["id", "restored_psnr", "new"]) == ["new"]
    assert differences(table, ["id"]) == ["VERSION_METRIC"]


def test_files_of_a_run(tiny):
    changes = {"trainer.max_steps": 3, "model.init_args.versions": ["degraded", "restored"]}
    assert cli.main(["fit", "-c", tiny(**changes)]) == 0
    folder = next(Path("runs").rglob("run.json")).parent
    assert differences(keys.RUN, read(folder / "run.json")) == []
    assert differences(keys.SUMMARY, read(folder / "val_summary.json")) == []
    assert differences(keys.SCORES, head(folder / "val_scores.csv")) == []
    assert differences(keys.ROUTING_OF_IMAGES, read(folder / "val_routing.json")) == []
    path = next(Path("runs").rglob("last.ckpt"))
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    assert differences(keys.CHECKPOINT, checkpoint) == []
    assert differences(keys.DESCRIPTION, checkpoint["lit_mimdit"]) == []
    assert {"prefix", "run"} <= checkpoint["lit_mimdit"].keys()


def test_restored_folders(branch_file, tmp_path):
    photos = [photo(tmp_path / "in" / f"{name}.png", seed) for seed, name in enumerate("ab")]
    own = ["--checkpoint", str(branch_file), "--device", "cpu"]
    places = [tmp_path / name for name in ("plain", "mixed", "classical")]
    calls = [
        ["restore", photos[0], *own, "-o", places[0], "--inter", "spatial=0", "--routing", "true"],
        ["restore", photos[0], *own, "-o", places[1]],
        ["restore", photos[1], *own, "-o", places[1], "--steps", "1"],
        ["classical", photos[0], "--method", "gamma", "-o", places[2]],
    ]
    for place in places:  # else a single photograph goes into a file
        place.mkdir()
    for call in calls:
        assert cli.main(list(map(str, call))) == 0
    plain, mixed, classical = (read(place / "restoration.json") for place in places)
    assert differences(keys.RESTORATION, plain, classical) == []
    seen = plain.keys() | mixed.keys() | classical.keys()
    assert keys.RESTORATION.meanings.keys() - seen == {"vae"}
    assert differences(keys.RESTORATION_CHECKPOINT, plain["checkpoint"]) == []
    files = [one for made in (plain, mixed) for one in made["files"].values()]
    assert differences(keys.RESTORATION_FILE, *files) == []
    assert any("run" in one for one in files)


def test_files_of_an_evaluation(tmp_path):
    for number in range(3):
        for place in ("restored", "reference", "degraded"):
            photo(tmp_path / place / f"{number}.png", number + len(place))
    broken = tmp_path / "restored" / "2.png"
    broken.write_bytes(broken.read_bytes()[:-400])
    folders = [f"--{name}={tmp_path / name}" for name in ("restored", "reference", "degraded")]
    out = tmp_path / "out"
    small = ["--metrics", "psnr", "--resamples", "20", "--device", "cpu"]
    assert cli.main(["evaluate", *folders, "-o", str(out), *small]) == 1
    summary = read(out / "summary.json")
    assert differences(replace(keys.SUMMARY, optional=frozenset()), summary) == []
    assert differences(keys.METRIC, *summary["metrics"].values()) == []
    assert differences(keys.GROUP, *summary["groups"]) == []
    values = [group["versions"]["restored"]["psnr"] for group in summary["groups"]]
    gains = [group["gain"]["psnr"] for group in summary["groups"]]
    assert differences(keys.VALUE, *values, *gains) == [] and "tied" in gains[0]
    assert differences(keys.FAILED, *summary["failed"]) == []
    assert differences(replace(keys.SCORES, optional=frozenset()), head(out / "scores.csv")) == []
    header = json.loads((out / "record.jsonl").read_text().splitlines()[0])
    assert differences(keys.HEADER, header) == []
    assert differences(keys.SETTINGS, header["settings"]) == []


def test_files_of_a_study(tmp_path):
    variants = {"full": Variant(), "same": Variant(lines={"a": 1})}
    study = Study("base.yaml", "full", variants, [0, 1], ["psnr"])
    runs = all_runs(study, tmp_path / "study")
    for run in runs:
        write_test(run, study)
        with SummaryWriter(run.folder / "log") as writer:
            writer.add_scalar("train/loss", 1.0, 9)
    (tmp_path / "out").mkdir()
    write_results(study, read_runs(runs), tmp_path / "out", {})
    assert differences(keys.RESULTS, head(tmp_path / "out" / "results.csv")) == []
    assert differences(keys.CURVES, head(tmp_path / "out" / "curves.csv")) == []


def test_files_of_a_routing_study(branch_file, data_root, tmp_path):
    where = ["--data", str(data_root / "train"), "--checkpoint", str(branch_file)]
    small = ["--permutations", "9", "--device", "cpu"]
    assert cli.main(["routing", *where, "-o", str(tmp_path), *small]) == 0
    study = read(tmp_path / "routing.json")
    assert differences(replace(keys.ROUTING, optional=frozenset()), study) == []
    assert differences(keys.ROUTING_FILE, *study["files"]) == []
    assert differences(keys.AGREEMENT, study["agreement_with_table6"]) == []
    written = {path.stem: head(path) for path in tmp_path.glob("*.csv")}
    assert written.keys() == keys.ROUTING_TABLES.keys()
    assert [differences(keys.ROUTING_TABLES[name], cells) for name, cells in written.items()] == (
        [[]] * len(written)
    )


def test_data_sets_and_shards(data_root, backbone_folder, branch_file, tmp_path):
    assert differences(keys.SAMPLES, head(data_root / "samples.csv")) == []
    places = [tmp_path / name for name in ("tiles", "latents", "taught")]
    shard(data_root, places[0], meta=Path("val.txt"), tile=16, workers=1)
    latents(places[0], places[1], backbone=str(backbone_folder), device="cpu")
    teacher(places[1], places[2], checkpoint=str(branch_file), steps=1, device="cpu")
    tensors = []
    for place in places:
        settings = read(place / "manifest.json")["settings"]
        table = keys.IMAGE_SETTINGS if place is places[0] else keys.LATENT_SETTINGS
        assert differences(table, settings) == []
        with tarfile.open(next(place.glob("*.tar"))) as tar:
            names = [member.name for member in tar]
            contents = {name.split(".", 1)[1]: tar.extractfile(name).read() for name in names}
        assert differences(keys.MEMBERS, contents) == []
        assert differences(keys.TILE, json.loads(contents["json"])) == []
        tensors += [load(data) for name, data in contents.items() if name.endswith("tensors")]
    assert differences(keys.LATENT_TENSORS, *tensors) == []
    assert "noise_seed" in tensors[-1] and "noise_seed" in settings


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_captions(tmp_path, ending):
    """With just these columns, and not without one of them."""
    values = dict.fromkeys(keys.CAPTIONS.meanings, "rain")
    for names in (values, *([name] for name in values)):
        row = {name: values[name] for name in names}
        lines = {"csv": f"{','.join(row)}\n{','.join(row.values())}\n", "jsonl": json.dumps(row)}
        path = tmp_path / f"{len(row)}{next(iter(row))}.{ending}"
        path.write_text(lines[ending])
        if len(row) == len(values):
            assert read_captions(path) == {"rain": "rain"}
        else:
            with pytest.raises(ValueError, match="id"):
                read_captions(path)


def test_repositories_pipelines_and_fidelity_networks(tmp_path):
    for name in ("repository", "pipeline"):
        (tmp_path / name).mkdir()
    folder = tmp_path / "repository"
    write_repository(folder, system_path("package"), Facts("me/mim"))
    assert differences(keys.REPOSITORY, [path.name for path in folder.iterdir()]) == []
    assert differences(keys.DESCRIPTION, read(folder / "config.json")) == []
    imported = replace(load_system(folder), official=["a.pth"]).description()
    assert differences(keys.DESCRIPTION, imported) == [] and "official" in imported

    folder = tmp_path / "pipeline"
    assert cli.main(["export", "package", "--pipeline", "-o", str(folder)]) == 0
    assert differences(keys.PIPELINE, [path.name for path in folder.iterdir()]) == []
    assert differences(keys.INDEX, read(folder / "model_index.json")) == []

    one = (4,), 1, False
    network = Fidelity((4,), 1, cleaner=one, light=(4, 1), deblurrer=one)
    save_fidelity(tmp_path / "a.safetensors", network)
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert differences(keys.FIDELITY, json.loads(file.metadata()["lit_mimdit"])) == []


def test_quarantine(tmp_path):
    write_quarantine(tmp_path / "quarantine.csv", [("a", "no image", 0, 3)])
    assert differences(keys.QUARANTINE, head(tmp_path / "quarantine.csv")) == []
