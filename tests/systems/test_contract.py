"""What every system promises, checked for each class that lies in lit_mimdit/systems.

A new system needs one file here: tests/systems/tiny/NAME.yaml, its class path and the arguments of
a small version. BACKBONE and BRANCH in it stand for the small backbone and branch of the tests, and
DIFFIR_STAGE_1 for a file of DiffIR's first stage.
"""

import inspect
import pkgutil
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml
from diffusers.models.attention import JointTransformerBlock
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader

import lit_mimdit.systems
from lit_mimdit.data.pairs import collate
from lit_mimdit.estimate import meta_system, simulate, sizes_of
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.system_class import build_system, class_path_of, state_of
from lit_mimdit.inference.system_file import load_system, read_checkpoint, save_system
from lit_mimdit.models.mim import MiM
from lit_mimdit.settings import build
from lit_mimdit.systems.base import RestorationSystem
from lit_mimdit.training.callbacks import FiniteGuard
from lit_mimdit.training.ema import EMA
from lit_mimdit.training.trainer import Trainer

TINY = Path(__file__).parent / "tiny"
ABSTRACT = {
    "base.RestorationSystem",
    "latent.LatentSystem",
    "pixel.PixelSystem",
    "residual.ResidualSystem",
}
QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}


def classes() -> dict[str, type[RestorationSystem]]:
    """Systems by the last parts of their path, of all files below lit_mimdit/systems."""
    found = {}
    root = lit_mimdit.systems
    for info in pkgutil.walk_packages(root.__path__, f"{root.__name__}."):
        module = import_module(info.name)
        for name, kind in inspect.getmembers(module, inspect.isclass):
            own = issubclass(kind, RestorationSystem) and kind.__module__ == info.name
            if own and not name.startswith("_"):
                found[class_path_of(kind).removeprefix(f"{root.__name__}.")] = kind
    return {name: kind for name, kind in found.items() if name not in ABSTRACT}


SYSTEMS = classes()
RECIPES = {
    values["class_path"].removeprefix("lit_mimdit.systems."): values["init_args"]
    for values in (yaml.safe_load(path.read_text()) for path in sorted(TINY.glob("*.yaml")))
}
TRAINABLE = [name for name, kind in SYSTEMS.items() if kind.TRAINABLE]


def test_every_system_has_a_small_version_here():
    assert SYSTEMS.keys() == RECIPES.keys(), "add tests/systems/tiny/NAME.yaml"


@pytest.fixture(scope="module")
def diffir_stage_1(tmp_path_factory):
    """A file of DiffIR's first stage that fits the small version of the second."""
    recipe = RECIPES["diffir.DiffIR"] | {"stage": 1, "first_stage": None}
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("diffir") / "stage_1.safetensors"
    save_system(path, build(SYSTEMS["diffir.DiffIR"], recipe).system_file())
    return path


@pytest.fixture(scope="module")
def places(backbone_folder, branch_file, diffir_stage_1) -> dict[str, str]:
    """What stands for the files in the recipes."""
    return {
        "BACKBONE": str(backbone_folder),
        "BRANCH": str(branch_file),
        "DIFFIR_STAGE_1": str(diffir_stage_1),
    }


def small_system(name: str, places: dict[str, str]) -> RestorationSystem:
    """The small version of a system by name, the same at each call."""
    arguments = tree_map_only(str, lambda value: places.get(value, value), RECIPES[name])
    torch.manual_seed(0)
    system = build(SYSTEMS[name], arguments)
    system.configure_model()
    return system


@pytest.fixture
def make(places):
    """A system by name, the same at each call."""
    return partial(small_system, places=places)


def samples(count: int, side: int = 16) -> list[dict[str, Any]]:
    draw = torch.Generator().manual_seed(1)
    images = torch.rand(count, 2, 3, side, side, generator=draw)
    about = {"degradation": "01Blur", "dataset": ""}
    return [
        {"lq": lq, "gt": gt, "id": f"01Blur/{i}", "seed": 100 + i} | about
        for i, (lq, gt) in enumerate(images)
    ]


class Keep(L.Callback):
    """Saves checkpoints behind the steps that `paths` has, where ModelCheckpoint does."""

    def __init__(self, paths: dict[int, Path]) -> None:
        self.paths = paths

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step in self.paths:
            trainer.save_checkpoint(self.paths[trainer.global_step])


def fit(
    system: RestorationSystem,
    steps: int,
    data: list | None = None,
    path: Path | None = None,
    keep: dict[int, Path] | None = None,
) -> L.Trainer:
    """Train on batches of two, from the checkpoint `path`; leave some in `keep`, by step."""
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        callbacks=[EMA(0.5), FiniteGuard(), Keep(keep or {})],
        enable_checkpointing=False,
        **QUIET,
    )
    loader = DataLoader(data or samples(8), batch_size=2, collate_fn=collate)
    trainer.fit(system, loader, ckpt_path=path, weights_only=True if path else None)
    return trainer


def restored(restorer: Any, lq: torch.Tensor) -> torch.Tensor:
    seeds = torch.arange(len(lq))
    return restorer(lq, seeds, ids=[str(seed) for seed in seeds.tolist()])[0]


def image(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", TRAINABLE)
def test_trained_saved_exported_and_restored_agree_to_the_bit(make, name, tmp_path):
    system = make(name)
    before = {key: tensor.clone() for key, tensor in state_of(system.trained).items()}
    trainer = fit(system, 2, keep={2: tmp_path / "last.ckpt"})
    after = state_of(system.trained)
    assert any(not torch.equal(after[key], before[key]) for key in before), "it learns"
    checkpoint = read_checkpoint(tmp_path / "last.ckpt")
    assert set(checkpoint["state_dict"]) == {f"{system.prefix}{key}" for key in after}
    exported = load_system(tmp_path / "last.ckpt")
    save_system(tmp_path / "file.safetensors", exported)
    lq = image(2, 3, 17, 23)
    from_run = restored(load_restorer(tmp_path / "last.ckpt", device="cpu"), lq)
    from_file = restored(load_restorer(tmp_path / "file.safetensors", device="cpu"), lq)
    assert torch.equal(from_run, from_file) and from_run.shape == lq.shape
    averaged = next(callback for callback in trainer.callbacks if isinstance(callback, EMA))
    averaged.copy_to(system)
    assert torch.equal(restored(system.eval().restorer(), lq), from_run)
    rebuilt = build_system(load_system(tmp_path / "file.safetensors"), "file")
    assert rebuilt.system_file().description() == exported.description()


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_killed_run_resumes_to_the_bit(make, name, tmp_path):
    one = samples(2)  # an epoch is a step: the order of samples is tested elsewhere
    whole, cut, resumed = (tmp_path / f"{part}.ckpt" for part in ("whole", "cut", "resumed"))
    fit(make(name), 3, one, keep={1: cut, 3: whole})
    system = make(name)
    torch.manual_seed(99)  # whatever the new process did before
    fit(system, 3, one, path=cut, keep={3: resumed})
    expected, kept = (read_checkpoint(path)["state_dict"] for path in (whole, resumed))
    different = [key for key in expected if not torch.equal(expected[key], kept[key])]
    assert not different, different[:5]


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_nan_stops_before_the_optimizers_step(make, name):
    data = samples(2)
    for side in ("lq", "gt"):  # a student of a teacher does not look at the clean image
        data[1][side] = torch.full_like(data[1][side], float("nan"))
    system = make(name)
    before = {key: tensor.clone() for key, tensor in system.trained.named_parameters()}
    # the frozen branch behind which a fidelity network learns notices it even earlier
    early = name == "fidelity.FidelitySystem"
    said = (
        "of the degraded image is not finite" if early else "is not finite .*weights are untouched"
    )
    with pytest.raises(ValueError, match=said):
        fit(system, 1, data)
    assert all(torch.equal(p, before[key]) for key, p in system.trained.named_parameters())


@pytest.mark.parametrize("name", TRAINABLE)
def test_losses_are_those_of_the_contract(make, name):
    system = make(name)
    losses = system.losses(collate(samples(3)))
    assert losses.total.ndim == 0 and losses.total.requires_grad
    assert losses.per_sample.shape == (3,) and losses.terms
    losses.total.backward()
    idle = [key for key, p in system.trained.named_parameters() if p.grad is None]
    assert not idle or len(idle) < len(list(system.trained.parameters())), "something trains"
    outside = {id(p) for p in system.trained.parameters()}
    assert all(id(p) in outside for p in system.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", sorted(SYSTEMS))
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (37, 3), (16, 70)])
def test_any_image_size(make, name, size):
    lq = image(1, 3, *size)
    found = restored(make(name).eval().restorer(), lq)
    assert found.shape == lq.shape and found.isfinite().all()
    assert found.min() >= 0 and found.max() <= 1 and found.dtype == torch.float32


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_a_batch_of_four_equals_four_batches_of_one(make, name):
    restorer, lq, seeds = make(name).eval().restorer(), image(4, 3, 16, 16), torch.arange(4)
    together, routing = restorer(lq, seeds, ids=list("abcd"))
    alone = [restorer(lq[i : i + 1], seeds[i : i + 1], ids=["abcd"[i]])[0] for i in range(4)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)
    assert len(routing) == 4


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_progress_counts_what_it_announces(make, name):
    restorer, counted = make(name).eval().restorer(), []
    restorer(image(1, 3, 40, 50), torch.zeros(1, dtype=torch.int64), counted.append, ["a"])
    assert sum(counted) == restorer.evaluations(40, 50)


@pytest.mark.parametrize("name", TRAINABLE)
def test_the_dry_run_counts_its_parameters_and_its_memory(make, name):
    system = make(name)
    arguments = dict(system.arguments)
    trained = sum(p.numel() for p in system.parameters() if p.requires_grad)
    meta = meta_system(type(system), arguments)
    assert sizes_of(meta).trained == trained > 0
    assert all(p.device.type == "meta" for p in meta.trained.parameters())
    step = simulate(type(system), arguments, batch=2, crop=16, precision="32-true")
    assert step.activations > 0 and step.flops > 0


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_its_record_is_plain_and_says_what_decides(make, name):
    record = make(name).restorer().record()
    assert record == yaml.safe_load(yaml.safe_dump(record)) and len(record["config_hash"]) == 16


@pytest.mark.parametrize("name", sorted(SYSTEMS.keys() - set(TRAINABLE)))
def test_what_is_not_trained_says_so_in_one_line(make, name):
    with pytest.raises(ValueError, match="not trained; use validate, test") as caught:
        fit(make(name), 1)
    assert "\n" not in str(caught.value)


COMPILED = [name for name in SYSTEMS if "compile" in inspect.signature(SYSTEMS[name]).parameters]


@pytest.mark.parametrize("name", COMPILED)
def test_compile_reaches_every_block_and_only_if_it_is_asked_for(name, make, monkeypatch):
    """Blocks are compiled when they are first called, which takes a compiler and is not done."""
    for asked in (False, True):
        monkeypatch.setitem(RECIPES[name], "compile", asked)
        system = make(name)
        system.on_fit_start()
        blocks = [
            module
            for module in system.network.modules()
            if isinstance(module, JointTransformerBlock | MiM)
        ]
        assert blocks and all((b._compiled_call_impl is not None) == asked for b in blocks)
