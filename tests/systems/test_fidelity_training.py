"""The fidelity network's training: triples cut alike, a file at the end."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.optim import Adam

from lit_mimdit.cli import main
from lit_mimdit.inference.restorer import Restorer
from lit_mimdit.models.backbone import nano_folder
from lit_mimdit.models.fidelity import Fidelity
from lit_mimdit.systems.fidelity import KEPT, FidelitySystem
from lit_mimdit.systems.optim import OptimizerConfig
from lit_mimdit.systems.pixel import error_per_image

YAML = Path(__file__).parents[2] / "experiments" / "nano" / "fidelity.yaml"


class Brighter:
    """In a restorer's place: adds each image's seed, so that what became of a batch can be told."""

    def to(self, device):
        return self

    def __call__(self, lq, seeds, ids):
        return lq + seeds[:, None, None, None], None


def training(reuse: int) -> FidelitySystem:
    module = FidelitySystem(
        reuse=reuse,
        optimizer=OptimizerConfig(lr=1e-3),
        output="f.safetensors",
        widths=(4, 4),
        blocks=1,
    )
    module.behind = Brighter()
    return module


def batch(seed: int) -> dict:
    lq = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    return {"lq": lq, "gt": -lq, "seed": torch.arange(3) + 10 * seed, "id": ["a", "b", "c"]}


def test_a_batch_is_restored_once_and_drawn_whole_with_its_own_images():
    module = training(reuse=3)
    for seed in range(KEPT + 4):
        module.on_train_batch_start(batch(seed), seed)
    seen = set()
    for _ in range(60):
        drawn = module.drawn()
        assert drawn["lq"].shape == (3, 3, 16, 16) and torch.equal(drawn["gt"], -drawn["lq"])
        added = (drawn["restored"] - drawn["lq"]).mean((1, 2, 3))
        assert torch.equal(
            (drawn["restored"] - drawn["lq"]).round(),
            added.round()[:, None, None, None].expand(3, 3, 16, 16),
        )
        seen |= {round(float(value)) // 10 for value in added}
    assert seen == set(range(4, KEPT + 4)), "the last batches, and all of them"


def test_used_once_batches_come_as_they_are():
    module = training(reuse=1)
    for seed in (1, 2):
        module.on_train_batch_start(batch(seed), seed)
    assert torch.equal(module.drawn()["lq"], batch(2)["lq"])
    with pytest.raises(ValueError, match="model.reuse is 0"):
        training(reuse=0)


def test_the_branch_restores_in_float32_under_any_precision():
    module, seen = training(reuse=1), []

    class Watched(Brighter):
        def __call__(self, lq, seeds, ids):
            seen.append(torch.is_autocast_enabled("cpu"))
            return lq, None

    module.behind = Watched()
    with torch.autocast("cpu", torch.bfloat16):
        module.restored(batch(0))
    assert seen == [False]


def test_the_error_of_each_image_by_hand():
    reference = torch.zeros(2, 3, 2, 2)
    image = reference.clone()
    image[0, :, 0, 0] = 0.4  # one of four pixels; of two differences a direction, one is 0.4
    torch.testing.assert_close(
        error_per_image(image, reference, 0.5), torch.tensor([0.1 + 0.5 * (0.2 + 0.2), 0.0])
    )


def test_the_loss_is_the_mean_logarithm_of_the_errors():
    module = training(reuse=1)
    lq = torch.full((2, 3, 16, 16), 0.5)
    gt = torch.stack([torch.full((3, 16, 16), value) for value in (0.4, 0.1)])
    module.kept.append({"lq": lq, "gt": gt, "restored": lq})  # untrained it keeps its input
    found = module.losses({})
    torch.testing.assert_close(found.per_sample, torch.tensor([0.1, 0.4]))
    torch.testing.assert_close(found.total, torch.tensor(math.log(0.101 * 0.401) / 2))


def fit(
    folder: Path, monkeypatch, data_root: Path, photos: Path, backbone_branch: Path, *more: str
) -> dict[str, torch.Tensor]:
    monkeypatch.chdir(folder)
    args = [
        "--data.init_args.photos",
        str(photos),
        "--data.init_args.root",
        str(data_root),
        "--data.init_args.crop",
        "32",
    ]
    args += [
        "--data.init_args.batch_size",
        "2",
        "--data.init_args.eval_crop",
        "32",
        "--data.init_args.eval_batch_size",
        "2",
    ]
    args += ["--data.init_args.workers", "0"]
    args += [
        "--trainer.val_check_interval",
        "2",
        "--trainer.max_steps",
        "4",
        "--model.init_args.output",
        "out/f.safetensors",
    ]
    assert (
        main(
            ["fit", "-c", str(YAML), *args, "--model.init_args.branch", str(backbone_branch), *more]
        )
        == 0
    )
    return load_file(folder / "out" / "f.safetensors")


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)).save(
        folder / "a.png"
    )
    return folder


def test_fit_restores_by_the_branch_and_writes_the_averaged_network(
    data_root, photos, branch_file, tmp_path, monkeypatch
):
    small = ["--model.init_args.widths", "[4,4]", "--model.init_args.blocks", "1"]
    calls = []
    steps = []
    monkeypatch.setattr(Restorer, "__call__", watched(Restorer.__call__, calls))
    monkeypatch.setattr(Adam, "step", watched_step(Adam.step, steps))
    tensors = fit(tmp_path, monkeypatch, data_root, photos, branch_file, *small)
    assert calls == [2] * (4 + 2), "four training batches, each once; validation twice"
    assert len(steps) == 4 * 3, "model.reuse steps of Adam for each"
    assert all(tensor.dtype == torch.float16 for tensor in tensors.values())
    assert any(tensor.abs().max() > 0 for name, tensor in tensors.items() if "leave" in name)
    Fidelity((4, 4), 1).load_state_dict(tensors)


def watched_step(call, steps: list[int]):
    def step(self, *args, **options):
        steps.append(1)
        return call(self, *args, **options)

    return step


def watched(call, calls: list[int]):
    def restore(self, lq, *args, **options):
        calls.append(len(lq))
        return call(self, lq, *args, **options)

    return restore


def shipped_correction():
    """The tensors of the shipped file; a training leaves its cleaner and its light out."""
    every = load_file(nano_folder() / "fidelity.safetensors")
    return {name: tensor for name, tensor in every.items() if name.startswith("correction.")}


def test_it_can_start_from_a_finished_network(
    data_root, photos, branch_file, tmp_path, monkeypatch
):
    tensors = fit(
        tmp_path,
        monkeypatch,
        data_root,
        photos,
        branch_file,
        "--model.init_args.init",
        "package",
        "--trainer.max_steps",
        "1",
    )
    shipped = shipped_correction()
    assert tensors.keys() == shipped.keys()
    apart = max((tensors[name].float() - shipped[name].float()).abs().max() for name in shipped)
    assert 0 < apart < 0.01, "near the start"
    with pytest.raises(
        ValueError, match=r"model.init package has .widths, blocks. .* make them the same"
    ):
        FidelitySystem(
            init="package",
            optimizer=OptimizerConfig(lr=1e-3),
            output="f.safetensors",
            widths=(4, 4),
        )


def test_the_finished_network_lies_between_the_start_and_what_was_trained(tmp_path):
    """A quarter of the way."""
    options = {"optimizer": OptimizerConfig(lr=1e-3), "output": "f.safetensors", "init": "package"}
    module = FidelitySystem(blend=0.25, **options)
    with torch.no_grad():
        for parameter in module.network.parameters():
            parameter.add_(1.0)
    module.write(tmp_path / "f.safetensors")
    found, shipped = load_file(tmp_path / "f.safetensors"), shipped_correction()
    assert found.keys() == shipped.keys()
    for name, tensor in shipped.items():
        torch.testing.assert_close(found[name].float(), tensor.float() + 0.25, rtol=0, atol=2e-3)
    for blend, init in ((0.0, "package"), (1.5, "package"), (0.5, None)):
        with pytest.raises(
            ValueError, match=rf"model.blend is {blend} and model.init {init}: give a share in"
        ):
            FidelitySystem(blend=blend, **(options | {"init": init}))
