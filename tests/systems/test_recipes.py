"""Every recipe in experiments/systems: its parameters are the published ones, and it dry-runs."""

import re
from pathlib import Path

import pytest
import yaml

from lit_mimdit import cli
from lit_mimdit.estimate import Step, meta_system, simulate
from lit_mimdit.systems.diffuir import objective as diffuir
from lit_mimdit.systems.foundir import objective as foundir
from lit_mimdit.training import dry_run
from lit_mimdit.training.dry_run import typed

FOLDER = Path(__file__).parents[2] / "experiments" / "systems"
CLIP = 246_213_634  # both towers, the text and the controller of DA-CLIP
# parameters of the authors' networks, counted on their code (../shared/systems)
PUBLISHED = {
    "airnet": 8_930_313,
    "dgunet": 17_331_512,
    "transweather": 38_052_078,
    "promptir": 35_592_263,
    "diffir_stage1": 26_742_206,
    "diffir_prior": 26_911_934,
    "diffir": 26_911_934,
    "diffuir": 36_261_187,
    "daclip_controller": CLIP,
    "daclip": 48_975_747 + CLIP,
    "autodir": 1_486_787_503,
    "foundir": 36_261_187,
    "dit4sr": 350_877_696,  # beside SD3.5-medium's own
}
PLUS = {"plus": "true", "n_feat": 40, "scale_unetfeats": 20, "scale_orsnetfeats": 16}
PLUS_PARAMETERS = 12_176_107  # of DGUNet+ for deraining


def test_every_recipe_has_a_published_number():
    assert {path.stem for path in FOLDER.glob("*.yaml")} - {"league"} == PUBLISHED.keys()


@pytest.mark.parametrize(
    ("name", "count", "options"),
    [
        *((name, count, {}) for name, count in PUBLISHED.items()),
        ("dgunet", PLUS_PARAMETERS, PLUS),
    ],
)
def test_a_dry_run_has_the_published_number_of_parameters(
    name, count, options, monkeypatch, capsys
):
    """The step's simulation, which takes long at these sizes, is left out."""
    made = []

    def kept(*args):
        made.append(meta_system(*args))
        return made[-1]

    monkeypatch.setattr(dry_run, "meta_system", kept)
    monkeypatch.setattr(dry_run, "simulate", lambda *_, **__: Step(0, 0))
    given = [f"--model.init_args.{key}={value}" for key, value in options.items()]
    assert cli.main(["fit", "-c", str(FOLDER / f"{name}.yaml"), "--dry-run", *given]) == 0
    said, (system,) = capsys.readouterr().out, made
    built = sum(parameter.numel() for parameter in system.trained.parameters())
    trained = sum(p.numel() for p in system.parameters() if p.requires_grad)
    idle = system.IDLE.get(trained, 0)
    assert built + idle == count
    assert f"\ntrained {trained / 1e6:,.2f} M, frozen " in said
    assert (f"network has {count:,}, of which {idle:,} act on" in said) == bool(idle)


@pytest.mark.parametrize(
    ("name", "published", "batch"),
    [
        ("diffuir", diffuir, sum(diffuir.BATCH.values())),
        ("foundir", foundir, foundir.BATCH),
    ],
)
def test_the_recipes_of_residual_diffusion_have_the_published_numbers(name, published, batch):
    recipe = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    trainer, data = recipe["trainer"], recipe["data"]["init_args"]
    optimizer = recipe["model"]["init_args"]["optimizer"]
    assert (optimizer["lr"], *optimizer["betas"]) == (published.LEARNING_RATE, *published.BETAS)
    assert trainer["gradient_clip_val"] == published.CLIP_NORM
    assert trainer["max_steps"] == published.STEPS
    assert trainer["accumulate_grad_batches"] == published.ACCUMULATE
    assert (data["crop"], data["batch_size"]) == (published.PATCH, published.ACCUMULATE * batch)
    decay = next(c["init_args"]["decay"] for c in trainer["callbacks"] if "EMA" in c["class_path"])
    # an average of every step spans as many steps as the published one of every tenth
    assert decay**published.EMA_EVERY == pytest.approx(published.EMA_BETA, rel=1e-4)


def test_dgunets_page_and_recipe_give_dgunet_plus_its_published_widths():
    page = (FOLDER.parents[1] / "docs" / "systems" / "dgunet.md").read_text()
    for text in (page, (FOLDER / "dgunet.yaml").read_text()):
        given = dict(re.findall(r"--model\.init_args\.(\w+) (\w+)", text))
        assert {key: given.get(key) for key in PLUS} == {k: str(v) for k, v in PLUS.items()}


def test_the_dry_run_of_diffir_counts_its_largest_patches():
    """Of 16 crops of 512 px, 8 of 192: as many pixels as the published phase with the most has."""
    values = yaml.safe_load((Path(__file__).parent / "tiny" / "diffir.yaml").read_text())
    values["init_args"] |= {"progressive": True}
    kind, arguments = typed(values)
    assert kind.taken(arguments, 16, 512) == (8, 192)
    assert kind.taken(arguments, 2, 512) == (2, 384)
    assert kind.taken(arguments | {"progressive": False}, 16, 256) == (16, 256)
    assert simulate(kind, arguments, batch=1, crop=512, precision="32-true").activations > 0
    with pytest.raises(ValueError, match=re.escape("data.crop is 256, and model.progressive")):
        kind.taken(arguments, 8, 256)
