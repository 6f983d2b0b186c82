"""What few-step distillation adds to the contract: three branches on one backbone, taking turns."""

import copy
from dataclasses import replace
from typing import Any

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from lit_mimdit.data.pairs import collate
from lit_mimdit.estimate import simulate
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.sampler import SamplingConfig
from lit_mimdit.inference.system_class import state_of
from lit_mimdit.inference.system_file import load_system, save_system
from lit_mimdit.models.branch_config import BranchConfig, IntraConfig
from lit_mimdit.models.latents import decoded
from lit_mimdit.models.quantize import quantized_as
from lit_mimdit.systems import latent
from lit_mimdit.systems.few_step import FewStep
from lit_mimdit.systems.few_step.config import DistillationConfig, TeacherConfig
from lit_mimdit.systems.optim import OptimizerConfig
from lit_mimdit.training import strategies  # noqa: F401
from lit_mimdit.training.trainer import Trainer

BRANCH = BranchConfig(
    width=16, heads=2, window=2, intra=IntraConfig(experts=2, top_k=1), zero_std=0.5
)
SAMPLING = SamplingConfig(steps=2, tile=32, overlap=8, tile_batch=2)


@pytest.fixture
def make(backbone_folder, branch_file):
    """A student of the small branch, with changes of its distillation."""

    def build(
        teacher_steps: int = 2,
        own_steps: int | None = None,
        init: str | None = None,
        quantize: str | None = None,
        **changes: Any,
    ) -> FewStep:
        distillation = DistillationConfig(**({"steps": [2]} | changes))
        made = FewStep(
            str(backbone_folder),
            BRANCH,
            replace(SAMPLING, steps=own_steps or distillation.steps[-1]),
            TeacherConfig(str(branch_file), teacher_steps),
            distillation,
            OptimizerConfig(lr=1e-2),
            init=init,
            backbone_quantize=quantize,
        )
        made.configure_model()
        return made

    return build


def samples(count: int = 4) -> list[dict[str, Any]]:
    images = torch.rand(count, 2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    about = {"degradation": "01Blur", "dataset": "", "id": "01Blur/1"}
    return [{"lq": lq, "gt": gt, "seed": 100 + i} | about for i, (lq, gt) in enumerate(images)]


def fit(student: FewStep, steps: int) -> None:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, max_epochs=-1, enable_checkpointing=False, **quiet
    )
    trainer.fit(student, DataLoader(samples(), batch_size=2, collate_fn=collate))


def parts(student: FewStep) -> dict[str, dict[str, torch.Tensor]]:
    """Copies of the weights of each branch."""
    every = copy.deepcopy(state_of(student.trained))
    assert student.teacher is not None
    return {
        "student": {n: t for n, t in every.items() if not n.startswith("fake.")},
        "fake": {n: t for n, t in every.items() if n.startswith("fake.")},
        "teacher": copy.deepcopy(state_of(student.teacher.branch)),
        "backbone": copy.deepcopy(state_of(student.network.backbone)),
    }


def changed(before: dict, after: dict) -> set[str]:
    """Parts with any other bit."""
    return {
        part
        for part in before
        if any(not torch.equal(before[part][name], after[part][name]) for name in before[part])
    }


def test_three_branches_stand_on_one_backbone_that_is_loaded_once(make, monkeypatch):
    loads, load = [], latent.load_backbone
    monkeypatch.setattr(latent, "load_backbone", lambda *a: loads.append(a) or load(*a))
    student = make(distribution=1.0)
    student.configure_model()
    assert len(loads) == 1
    assert student.network.backbone is student.teacher.backbone is student.fake.backbone
    numbers = {
        part: sum(t.numel() for t in tensors.values()) for part, tensors in parts(student).items()
    }
    assert numbers["student"] == numbers["fake"] == numbers["teacher"]
    vae = sum(p.numel() for p in student.vae.parameters())
    frozen = student.network.backbone.parameters()
    whole = sum(p.numel() for p in frozen) + 3 * numbers["student"] + vae
    assert sum(p.numel() for p in student.parameters()) == whole
    assert make(distribution=0.0).fake is None


def test_its_one_backbone_may_be_quantized(make):
    student = make(quantize="int8")
    assert quantized_as(student.network.backbone) == "int8"
    assert student.system_file().backbone.quantize == "int8"


def test_fake_score_and_student_take_turns_and_the_rest_stays(make):
    student = make(distribution=1.0, matching=0.0, fake_updates=2)
    before = parts(student)
    fit(student, 2)
    between = parts(student)
    assert changed(before, between) == {"fake"}
    turn = make(distribution=1.0, matching=0.0, fake_updates=2)
    fit(turn, 3)
    assert changed(between, parts(turn)) == {"student"}


def test_a_student_that_is_its_teacher_has_nothing_to_learn(make):
    student = make(teacher_steps=2, steps=[2], matching=3.0, distribution=2.0, fake_updates=1)
    student.only_student = True
    losses = student.losses(collate(samples()))
    assert losses.terms["matching"].abs().max() < 1e-9
    assert losses.terms["distribution"].abs().max() < 1e-9
    other = make(teacher_steps=3, steps=[1], matching=1.0)
    error = other.losses(collate(samples())).terms["matching"]
    assert error.min() > 1e-6
    twice = make(teacher_steps=3, steps=[1], matching=2.0).losses(collate(samples()))
    torch.testing.assert_close(twice.terms["matching"], 2 * error)


def test_its_steps_are_those_that_its_exported_file_restores_by(make):
    student = make(steps=[1, 2], teacher_steps=4).eval()
    lq, seeds = torch.stack([one["lq"] for one in samples()]), torch.arange(4)
    z_lq, prompt = student._given({"lq": lq, "id": ["a"] * 4, "seed": seeds})
    noise = student._noise(seeds, z_lq)[0]
    with torch.no_grad():
        for update, steps in ((0, 1), (1, 2), (2, 1)):
            z, _ = student._few_steps(z_lq, prompt, noise, update)
            restorer = student.restorer()
            restorer.config = SamplingConfig(steps=steps, tile=32, overlap=8)
            expected = restorer(lq, seeds)[0]
            shown = decoded(student.vae, z).clamp(0, 1)
            torch.testing.assert_close(shown, expected, rtol=0, atol=1e-5)


def test_stored_results_train_as_those_made_on_the_spot(make):
    batch = collate(samples())
    student = make(teacher_steps=4, steps=[1])
    on_the_spot = student.losses(batch).per_sample
    z_lq, prompt = student._given(batch)
    noise = student._noise(batch["seed"], z_lq)[0]
    taught = student._many_steps(z_lq, prompt, noise)
    stored = {"z_teacher": taught, "noise_seed": batch["seed"], "seed": batch["seed"] + 1}
    torch.testing.assert_close(student.losses(batch | stored).per_sample, on_the_spot)


def test_the_exported_student_is_an_ordinary_mimdit_of_few_steps(make, branch_file, tmp_path):
    student = make(distribution=1.0, fake_updates=1)
    fit(student, 2)
    save_system(tmp_path / "student.safetensors", student.system_file())
    file, taught = load_system(tmp_path / "student.safetensors"), load_system(branch_file)
    assert file.class_path == "lit_mimdit.systems.mimdit.MiMDiT"
    assert file.tensors.keys() == taught.tensors.keys()
    assert file.arguments.keys() == {"branch"}
    restorer = load_restorer(tmp_path / "student.safetensors", device="cpu")
    assert restorer.config.steps == 2
    once = load_restorer(tmp_path / "student.safetensors", device="cpu", steps=1)
    assert (restorer.evaluations(16, 16), once.evaluations(16, 16)) == (2, 1)
    following = make(init=str(tmp_path / "student.safetensors"), distribution=1.0)
    kept = parts(following)
    assert all(torch.equal(kept["student"][name], t) for name, t in file.tensors.items())
    assert all(torch.equal(kept["fake"][f"fake.{n}"], t) for n, t in taught.tensors.items())


def test_the_dry_run_takes_the_costlier_step_of_three_branches(make):
    """The student's, with the most steps it learns; its memory and work grow with them. On a GPU,
    where each branch collects its sub-experts' weights.
    """
    costs = {}
    for name, changes in {
        "one": {"steps": [1]},
        "four": {"steps": [1, 4]},
        "three branches": {"steps": [1], "matching": 0.0, "distribution": 1.0},
    }.items():
        student = make(own_steps=1, **changes)
        sizes = {"batch": 2, "crop": 16, "precision": "32-true", "gpu": True}
        costs[name] = simulate(FewStep, dict(student.arguments), **sizes)
    assert costs["four"].flops > 1.6 * costs["one"].flops
    assert costs["four"].activations > 1.6 * costs["one"].activations
    assert costs["three branches"].flops > 1.3 * costs["one"].flops


def test_lpips_of_the_decoded_results_reaches_the_student(make, tmp_path, monkeypatch):
    """With random weights in files of the published form."""
    from torchvision.models import alexnet

    folder = tmp_path / "weights"
    folder.mkdir()
    torch.save(alexnet().state_dict(), folder / "alexnet-owt-7be5be79.pth")
    lins = {
        f"lin{i}.model.1.weight": torch.rand(1, width, 1, 1)
        for i, width in enumerate((64, 192, 384, 256, 256))
    }
    monkeypatch.setenv("LIT_MIMDIT_WEIGHTS", str(tmp_path / "nowhere"))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    said = r"model.distillation.lpips needs weights that are missing \(.*set it to 0"
    with pytest.raises(ValueError, match=said):
        make(lpips=1.0)
    torch.save(lins, folder / "LPIPS_v0.1_alex-df73285e.pth")
    monkeypatch.setenv("LIT_MIMDIT_WEIGHTS", str(folder))
    student = make(teacher_steps=3, steps=[1], matching=0.0, lpips=1.0)
    images = torch.rand(2, 3, 64, 64)
    about = {"id": ["a", "b"], "seed": torch.arange(2), "lq": images, "gt": images}
    losses = student.train().losses(about)
    assert losses.terms.keys() == {"lpips"} and losses.per_sample.shape == (2,)
    assert losses.per_sample.min() > 0
    losses.total.backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in student.trained.parameters())
    assert all(p.grad is None for p in student.lpips.parameters())


def test_processes_that_would_wait_for_the_others_gradients_are_refused(make):
    """One process alone waits too, under a strategy made for several."""
    matching, both = make(), make(distribution=1.0)
    for devices, strategy, refused in (
        (1, "auto", False),
        (1, "ddp", True),
        (1, "zero1_cpu", True),
        (1, "ddp_find_unused_parameters_true", False),
        (2, "ddp", True),
        (2, "ddp_find_unused_parameters_true", False),
    ):
        trainer: Any = L.Trainer(
            accelerator="cpu", devices=devices, strategy=strategy, logger=False
        )
        trainer.datamodule, matching.trainer, both.trainer = None, trainer, trainer
        matching.on_train_start()
        if refused:
            with pytest.raises(ValueError, match="set trainer.strategy to ddp_find_unused"):
                both.on_train_start()
        else:
            both.on_train_start()


WRONG = [
    ({"steps": []}, "distillation.steps is"),
    ({"steps": [0]}, "distillation.steps is"),
    ({"steps": [1, 4], "own_steps": 2}, r"sampling.steps is 2, and the student learns \[1, 4\]"),
    ({"matching": -1.0}, "weights matching -1"),
    ({"matching": 0.0}, "one must be more"),
    ({"fake_updates": 0}, "fake_updates is 0"),
    ({"times": (0.5, 0.5)}, "times are 0.5 and 0.5"),
    ({"teacher_steps": 0}, "teacher.steps is 0"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_impossible_settings(make, changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


@pytest.mark.parametrize("changes", [{"solver": "unipc"}, {"start": "lq"}, {"guidance": 2.0}])
def test_the_student_samples_as_it_learns(backbone_folder, changes):
    (name,) = changes
    with pytest.raises(ValueError, match=f"model.sampling.{name} is .*: set it to"):
        FewStep(str(backbone_folder), BRANCH, SamplingConfig(steps=4, **changes))


def test_the_times_of_the_noise_keep_to_their_ends(make):
    student = make(distribution=1.0, times=(0.4, 0.5))
    z = torch.zeros(64, 16, 4, 4)
    x_t, noise, t = student._noisy({"seed": torch.arange(64)}, z)
    assert 0.4 <= t.min() < 0.42 and 0.48 < t.max() <= 0.5
    torch.testing.assert_close(x_t, t.view(-1, 1, 1, 1) * noise)


def test_a_teacher_that_is_no_mimdit_is_refused(make, tmp_path, branch_file):
    file = load_system(branch_file)
    file.class_path = "lit_mimdit.systems.controlnet.ControlNet"
    save_system(tmp_path / "other.safetensors", file)
    with pytest.raises(ValueError, match="model.init .*ControlNet, and distillation is for a MiM"):
        make(init=str(tmp_path / "other.safetensors"))
