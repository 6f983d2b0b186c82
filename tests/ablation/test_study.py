"""Study files.

What they may say, and that each variant differs from the full model in its own lines and no others.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_mimdit import cli
from lit_mimdit.ablation.runs import FROZEN, Run, all_runs, freeze, frozen, whole_name
from lit_mimdit.ablation.study import Variant, read_study, read_yaml, with_tests_of
from lit_mimdit.ablation.variants import budget_of, merge
from lit_mimdit.estimate import meta_system, simulate
from lit_mimdit.evaluation.published import ABLATIONS, read_ablation
from lit_mimdit.training.dry_run import typed

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "experiments" / "ablations"
STUDIES = ("first", "nano", "grid", "learning", "sd35_medium")
FILES = sorted(path for path in FOLDER.glob("*.yaml") if path.stem not in STUDIES)
BASES = {"nano": "quickstart.yaml", "sd35": "foundir_sd35_medium.yaml"}


def leaves(values: Any, place: str = "") -> dict[str, Any]:
    """ "a.b.c" -> value; lists are values."""
    if not isinstance(values, dict) or not values:
        return {place: values}
    return {
        key: value
        for name, part in values.items()
        for key, value in leaves(part, f"{place}.{name}" if place else name).items()
    }


def resolved(capsys, *args: str) -> dict[str, Any]:
    """What `fit` would run with, flat; without callbacks, whose checks take half of the time."""
    with pytest.raises(SystemExit) as left:
        cli.main(["fit", *args, "--trainer.callbacks", "null", "--print_config"])
    assert left.value.code == 0
    return leaves(yaml.safe_load(capsys.readouterr().out))


def difference(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What `other` says of the keys that differ; an empty mapping that is no longer empty shows as
    its keys.
    """
    keys = {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}
    return {key: other.get(key) for key in keys if one.get(key) != {} or key in other}


@pytest.fixture(scope="module")
def bases() -> dict[str, dict[str, Any]]:
    return {}


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_variant_differs_in_its_named_lines_only(path, base, bases, capsys):
    """With nano and with SD3.5-medium, by the very command that trains it."""
    full = str(ROOT / "experiments" / BASES[base])
    if base not in bases:
        bases[base] = resolved(capsys, "-c", full)
    named = leaves(yaml.safe_load(path.read_text(encoding="utf-8")))
    changed = difference(bases[base], resolved(capsys, "-c", full, "-c", str(path)))
    assert changed == named and all(key.startswith("model.init_args.branch.") for key in changed)


@pytest.mark.parametrize("name", STUDIES)
def test_runs_of_a_study_differ_in_the_variants_lines_only(name, tmp_path, capsys):
    """Beside the budget, all runs of a seed share everything; those of another seed differ in the
    seed and the folder.
    """
    source = FOLDER / f"{name}.yaml"
    study = read_study(source)
    freeze(study, source, tmp_path)
    runs = {(run.variant, run.seed): run for run in all_runs(study, tmp_path)}
    least = 2 if name == "first" else 3  # that one only shows how a study works
    assert len(runs) == len(study.variants) * len(study.seeds) and len(study.seeds) >= least
    first = resolved(capsys, *runs[study.full, 0].arguments("fit", study)[1:])
    again = difference(first, resolved(capsys, *runs[study.full, 1].arguments("fit", study)[1:]))
    assert {key for key in again if "dir" not in key} == {
        "seed_everything",
        "data.init_args.seed",
    }
    for variant in [name for name in study.others if study.variants[name].lines]:
        changed = difference(first, resolved(capsys, *runs[variant, 0].arguments("fit", study)[1:]))
        of_folder = {key for key in changed if "dir" in key}
        assert {key: value for key, value in changed.items() if key not in of_folder} == leaves(
            study.variants[variant].lines
        )


LEAGUE = ROOT / "experiments" / "systems" / "league.yaml"


def test_the_league_gives_every_system_the_same_data_and_time(tmp_path, capsys):
    """Each variant parses as `fit` reads it, and has a system of its own."""
    study = read_study(LEAGUE)
    freeze(study, LEAGUE, tmp_path)
    models, shared = set(), []
    for variant in study.variants:
        args = Run(variant, 0, tmp_path).arguments("fit", study)[1:]
        with pytest.raises(SystemExit):
            cli.main(["fit", *args, "--print_config"])
        values = yaml.safe_load(capsys.readouterr().out)
        models.add(values["model"]["class_path"])
        if variant == "airnet":  # it cuts its two crops out of one
            assert (
                values["data"]["init_args"].pop("crop") == 2 * values["model"]["init_args"]["patch"]
            )
            values["data"]["init_args"]["crop"] = 64
        spent = [budget_of(values)]
        for earlier in study.variants[variant].before:
            name = whole_name(variant, earlier)
            spent.append(budget_of(yaml.safe_load(frozen(tmp_path, name).read_text())))
        shared.append((values["data"], values["trainer"]["max_steps"], pytest.approx(sum(spent))))
    assert len(models) == len(study.variants) and len(study.seeds) == 2
    assert all(one == (shared[0][0], -1, study.minutes) for one in shared)


def test_the_league_has_every_small_version():
    """A new file in experiments/systems/nano needs a line in league.yaml.

    DA-CLIP's controller restores nothing, and the league's DA-CLIP trains its own.
    """
    files = {path.stem for path in (LEAGUE.parent / "nano").glob("*.yaml")} - {"daclip_controller"}
    variants = read_study(LEAGUE).variants.values()
    trainings = [one for variant in variants for one in (variant, *variant.before)]
    assert files <= {Path(one.file).stem for one in trainings if one.file}


SD35_TRAINED = {"wo_intra": 87.32, "sparse_dense": 221.43}  # millions


def sd35_variant(name: str) -> tuple[type, dict]:
    """Class and arguments of a variant of the paper's size."""
    base, variant = (
        yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in (ROOT / "experiments" / BASES["sd35"], FOLDER / f"{name}.yaml")
    )
    return typed(merge(base, variant)["model"])


@pytest.mark.parametrize("name", SD35_TRAINED)
def test_variants_of_sd35_train_fewer_parameters_with_fewer_sub_experts(name):
    system = meta_system(*sd35_variant(name))
    trained = sum(parameter.numel() for parameter in system.trained.parameters())
    assert trained / 1e6 == pytest.approx(SD35_TRAINED[name], abs=0.005)


@pytest.mark.usefixtures("takes_minutes")
def test_a_step_of_a_variant_is_estimated_with_sd35():
    """Without its weights. Its backbone's products alone, by hand: 24 blocks of width 1536 with a
    feed-forward of 4 times that, 1024 tokens, forward and back to their input.
    """
    kind, arguments = sd35_variant("wo_intra")
    own = arguments | {"gradient_checkpointing": False}
    step = simulate(kind, own, batch=1, crop=512, precision="bf16-mixed", gpu=True)
    backbone = 2 * 2 * 24 * 1024 * 12 * 1536**2
    assert backbone < step.flops < 5 * backbone  # the branch, the text, the VAE
    assert 1 < step.activations / 2**30 < 40


def test_the_three_tables_are_all_there():
    study = read_study(FOLDER / "nano.yaml")
    named = {(v.paper.table, v.paper.row) for v in study.variants.values() if v.paper}
    assert named == {
        (table, row)
        for table, (_, full) in ABLATIONS.items()
        for row in read_ablation(table)
        if row != full
    }
    assert (
        read_ablation(3)["w/o Intra-MoE"]["LPIPS"] == 0.1873
        and read_ablation(5)["Dense Inter + Sparse Intra"]["NIQE"] == 4.2502
    )


def test_the_leagues_systems_are_about_the_branchs_size(tmp_path):
    """2 to 3.3 M trained parameters; DiT4SR's stream is as wide as the nano backbone."""
    study = read_study(LEAGUE)
    freeze(study, LEAGUE, tmp_path)
    sizes = {}
    for variant in study.variants:
        values = yaml.safe_load((tmp_path / "study" / f"whole_{variant}.yaml").read_text())
        system = meta_system(*typed(values["model"]))
        sizes[variant] = sum(p.numel() for p in system.trained.parameters()) / 1e6
    assert 1.3 < sizes.pop("dit4sr") < 1.5
    assert all(2.0 < size < 3.3 for size in sizes.values()), sizes


def test_lines_of_a_variant_are_laid_over_its_file(tmp_path):
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"model": {"a": 1, "b": 2}, "data": {"c": 3}}))
    variant = Variant(file="a.yaml", take=["model"], lines={"model": {"b": 4}, "data": {"d": 5}})
    assert variant.read(tmp_path) == {"model": {"a": 1, "b": 4}, "data": {"d": 5}}


def test_a_study_is_tested_on_another_tree(tmp_path):
    """Its other lines for the test stay; a folder without test.txt is named."""
    study = read_study(LEAGUE)
    with pytest.raises(ValueError, match="it has no test.txt"):
        with_tests_of(study, tmp_path)
    (tmp_path / "test.txt").touch()
    data = with_tests_of(study, tmp_path).test["data"]["init_args"]
    before = study.test["data"]["init_args"]
    assert data == before | {"root": str(tmp_path), "test": "test.txt"} and data != before


BROKEN = {
    "variants ": ({"full": {}, "degraded": {}}, "degraded is the line of the input in the tables"),
    "full": ("fool", "full is 'fool': it must be a variant without file, lines and before"),
    "seeds": ([1, 1], "seeds are [1, 1]: give at least one, each once"),
    "metrics": (["lpip"], "metrics: no metric 'lpip'"),
    "base": ("gone.yaml", "names gone.yaml, and there is no"),
    "sedes": ([1], "sedes"),
    "variants": ({"full": {}, "a/b": {}}, "'a/b' names a folder too"),
}


@pytest.mark.parametrize("key", BROKEN)
def test_a_broken_study_names_what_is_wrong(key, tmp_path, capsys):
    value, message = BROKEN[key]
    (tmp_path / "base.yaml").write_text("{}")
    study = {
        "base": "base.yaml",
        "full": "full",
        "seeds": [0],
        "metrics": ["psnr"],
        "variants": {"full": {}},
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study | {key.strip(): value}))
    assert cli.main(["ablate", "-c", str(path), "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert str(path) in error and message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ({"take": ["model"], "lines": {"model": {}}}, "no file is given"),
        ({"paper": {"table": 6, "row": "x"}}, "paper.table is 6: choose among 3, 4, 5"),
        ({"paper": {"table": 4, "row": "(a) Spatial"}}, "table 4 has '(a) Spatial-only'"),
    ],
)
def test_a_broken_variant_names_what_is_wrong(variant, message, tmp_path):
    (tmp_path / "base.yaml").write_text("{}")
    values = {
        "base": "base.yaml",
        "full": "full",
        "seeds": [0],
        "metrics": ["psnr"],
        "variants": {"full": {}, "other": variant},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError, match="study.yaml") as error:
        read_study(tmp_path / "study.yaml")
    assert message in str(error.value)


def test_another_study_does_not_mix_with_finished_runs(tmp_path):
    source = FOLDER / "grid.yaml"
    study = read_study(source)
    freeze(study, source, tmp_path)
    freeze(study, source, tmp_path)
    assert (tmp_path / FROZEN / "variant_parallel.yaml").is_file()
    study.settings["trainer"]["max_steps"] += 1
    with pytest.raises(ValueError, match="made with another settings"):
        freeze(study, source, tmp_path)


def test_a_study_reads_classes_of_earlier_versions_as_their_present_names(tmp_path):
    """Study, base and variant: as `fit` reads them, also with a byte order mark in front."""
    old = "lit_mimdit.baselines.regression.Regression"
    path = tmp_path / "any.yaml"
    path.write_text(f"model: {{class_path: {old}}}\n", encoding="utf-8-sig")
    assert read_yaml(path, "base") == {
        "model": {"class_path": "lit_mimdit.systems.regression.Regression"}
    }
