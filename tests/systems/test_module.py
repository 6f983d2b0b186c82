"""The training step by itself.

What trains, what does not, and that every setting of the objective changes it.
"""

import copy
from typing import Any

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from lit_mimdit.data.pairs import collate
from lit_mimdit.estimate import meta_system, sizes_of
from lit_mimdit.inference.sampler import SamplingConfig
from lit_mimdit.models.branch_config import BranchConfig, IntraConfig
from lit_mimdit.models.flow import FlowConfig
from lit_mimdit.systems.base import RestorationSystem
from lit_mimdit.systems.latent import LatentSystem
from lit_mimdit.systems.mimdit import BalanceConfig, MiMDiT
from lit_mimdit.systems.optim import OptimizerConfig
from lit_mimdit.systems.pixel import PixelSystem
from lit_mimdit.training.callbacks import FiniteGuard
from lit_mimdit.training.ema import EMA


def samples(count: int) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 2, 3, 16, 24, generator=generator)
    about = {"degradation": "01Blur", "dataset": ""}
    return [
        {"lq": lq, "gt": gt, "id": f"01Blur/{i}", "seed": 100 + i} | about
        for i, (lq, gt) in enumerate(images)
    ]


def make(backbone, **changes) -> MiMDiT:
    torch.manual_seed(0)
    settings = {
        "branch": BranchConfig(
            width=16, heads=2, window=2, intra=IntraConfig(experts=3, top_k=2), zero_std=0.5
        ),
        "optimizer": OptimizerConfig(lr=1e-2),
        "flow": FlowConfig(),
        "sampling": SamplingConfig(steps=2, tile=32, overlap=8),
    }
    module = MiMDiT(str(backbone), **(settings | changes))
    module.configure_model()
    module.log = module.log_dict = lambda *args, **options: None
    return module


def loss(module: MiMDiT, count: int = 4) -> float:
    return module.training_step(collate(samples(count)), 0)["loss"].item()


def fit(module: MiMDiT, data: list, steps: int = 3, callbacks: tuple = (), **options) -> L.Trainer:
    module.__dict__.pop("log"), module.__dict__.pop("log_dict")
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        callbacks=list(callbacks),
        **quiet,
        **options,
    )
    trainer.fit(module, DataLoader(data, batch_size=2, collate_fn=collate))
    return trainer


def test_a_batch_is_the_mean_of_its_samples(backbone_folder):
    module = make(backbone_folder)
    together = module.training_step(collate(samples(4)), 0)
    alone = [module.training_step(collate([sample]), 0) for sample in samples(4)]
    torch.testing.assert_close(
        together["per_sample"],
        torch.cat([out["per_sample"] for out in alone]),
        rtol=1e-4,
        atol=1e-4,
    )
    torch.testing.assert_close(together["t"], torch.cat([out["t"] for out in alone]))
    torch.testing.assert_close(
        together["loss"], torch.stack([out["loss"] for out in alone]).mean(), rtol=1e-4, atol=1e-4
    )


def test_training_and_evaluation_mode_compute_the_same(backbone_folder):
    module = make(backbone_folder)
    assert loss(module.train()) == loss(module.eval()) == loss(module.train())
    assert (
        not module.vae.training
        and not module.network.backbone.training
        and module.network.branch.training
    )


def test_only_the_branch_trains_and_all_of_it(backbone_folder):
    module = make(backbone_folder)
    frozen = copy.deepcopy(
        {name: p for name, p in module.named_parameters() if not p.requires_grad}
    )
    trained = {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}
    assert (
        all(name.startswith(("vae.", "network.backbone.")) for name in frozen) and len(frozen) > 100
    )
    assert all(name.startswith("network.branch.") for name in trained)
    trainer = fit(module, samples(8))
    after = dict(module.named_parameters())
    assert all(torch.equal(after[name], p) for name, p in frozen.items()), (
        "frozen weights are bit-identical"
    )
    assert all(after[name].grad is None for name in frozen)
    (optimizer,) = trainer.optimizers
    listed = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert (
        listed
        == {id(after[name]) for name in trained}
        == {id(p) for p in module.network.branch.parameters()}
    )
    # a sub-expert that no image chose, and its bias before the softmax, may stand still
    still = [name for name, p in trained.items() if torch.equal(after[name], p)]
    assert len(still) < len(trained) / 3, still
    assert module.state_dict().keys() == trained.keys()


def test_what_callbacks_receive_holds_no_graph(backbone_folder):
    out = make(backbone_folder).training_step(collate(samples(2)), 0)
    assert out["loss"].requires_grad and not out["per_sample"].requires_grad
    assert all(
        not tensor.requires_grad
        for mim in out["routing"]
        for router in (mim.inter, *mim.intra)
        for tensor in router
    )
    assert out["degradation"] == ["01Blur"] * 2


@pytest.mark.parametrize(
    "change",
    [{"time_mean": 1.0}, {"time_std": 0.5}, {"time_shift": 3.0}, {"weighting": "clean"}],
    ids=lambda change: next(iter(change)),
)
def test_every_setting_of_the_flow_changes_the_loss(backbone_folder, change):
    assert loss(make(backbone_folder, flow=FlowConfig(**change))) != loss(make(backbone_folder))


def test_balance_losses_are_added_with_their_weights(backbone_folder):
    plain = loss(make(backbone_folder))
    load, z = (
        loss(make(backbone_folder, balance=BalanceConfig(**{name: 1.0}))) - plain
        for name in ("load", "z")
    )
    assert (
        load > 0.5 and z > 0.5
    )  # about 1 for balanced routers; log(3)^2 and log(4)^2 for logits of 0
    both = loss(make(backbone_folder, balance=BalanceConfig(load=0.5, z=2.0)))
    assert both == pytest.approx(plain + 0.5 * load + 2.0 * z, rel=1e-5)
    with pytest.raises(ValueError, match="balance.load is -1 and balance.z 0.0"):
        BalanceConfig(load=-1)


def test_memory_saving_and_kernels_change_nothing_but_rounding(backbone_folder):
    plain = make(backbone_folder)
    reference = loss(plain)
    saving = make(backbone_folder, gradient_checkpointing=True)
    assert (
        saving.network.backbone.is_gradient_checkpointing
        and not plain.network.backbone.is_gradient_checkpointing
    )
    assert loss(saving.train()) == pytest.approx(reference, rel=1e-5)
    assert loss(make(backbone_folder, attention="math")) == pytest.approx(reference, rel=1e-4)
    assert make(backbone_folder, attention="math").kernels != plain.kernels
    half = make(backbone_folder, backbone_dtype="bfloat16")
    assert (
        half.network.backbone.dtype == torch.bfloat16
        and next(half.network.branch.parameters()).dtype == torch.float32
    )
    assert loss(half) == pytest.approx(reference, rel=0.1) and loss(half) != reference


def test_a_nan_in_a_batch_stops_the_run_before_the_step(backbone_folder):
    module, data = make(backbone_folder), samples(4)
    data[3]["gt"] = torch.full_like(data[3]["gt"], float("nan"))
    weights: list[dict] = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            weights.append(
                {
                    name: p.detach().clone()
                    for name, p in pl_module.network.branch.named_parameters()
                }
            )

    with pytest.raises(
        ValueError,
        match=(
            r"the loss \(velocity\) is not finite \(rank 0, step 1, samples 01Blur/3\); the weights"
            r" are untouched"
        ),
    ):
        fit(module, data, callbacks=(FiniteGuard(), Watch()))
    assert len(weights) == 1 and all(
        torch.equal(p, weights[0][name]) for name, p in module.network.branch.named_parameters()
    )


def test_the_average_is_not_left_in_the_weights_when_validation_breaks(backbone_folder):
    module, ema = make(backbone_folder), EMA(0.99)
    seen: dict[str, torch.Tensor] = {}

    def broken(batch, batch_idx):
        seen["validation"] = module.network.branch.mims[0].project.weight.detach().clone()
        raise RuntimeError("broken validation")

    module.validation_step = broken
    module.val_dataloader = lambda: DataLoader(samples(2), batch_size=2, collate_fn=collate)
    with pytest.raises(RuntimeError, match="broken validation"):
        fit(module, samples(4), callbacks=(ema,), num_sanity_val_steps=0, val_check_interval=2)
    weight = module.network.branch.mims[0].project.weight
    assert torch.equal(
        seen["validation"], ema.average["network.branch.mims.0.project.weight"]
    ) and not torch.equal(seen["validation"], weight)
    assert ema.backup == {}


def test_validation_restores_with_other_noise_than_training(backbone_folder):
    module = make(backbone_folder)
    module.on_validation_epoch_start()
    batch = collate(samples(2))
    out = module.validation_step(batch, 0)
    expected, _ = module.restorer()(batch["lq"], batch["seed"] + 1)
    assert torch.equal(out["restored"], expected)
    assert {(row.id, row.version) for row in module.table.rows} == {
        (f"01Blur/{i}", version)
        for i in range(2)
        for version in ("degraded", "restored", "vae_round_trip")
    }


def system_with(**parts: Any) -> type[RestorationSystem]:
    """A system of a user, whose constructor knows nothing but the optimizer."""

    def init(self, optimizer: OptimizerConfig | None = None) -> None:
        RestorationSystem.__init__(self, optimizer)
        self.network = torch.nn.Conv2d(3, 3, 1)

    return type("Own", (RestorationSystem,), {"__init__": init} | parts)


SAYS = {
    "losses": lambda self, batch: None,
    "restorer": lambda self: None,
    "trained": property(lambda self: self.network),
}


@pytest.mark.parametrize("part", SAYS)
def test_a_class_that_lacks_one_of_the_three_is_named(part):
    kind = system_with(**{name: value for name, value in SAYS.items() if name != part})
    with pytest.raises(ValueError, match=rf"Own has no {part}: .*; add it to the class") as caught:
        kind()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "part"), [(PixelSystem, "network"), (LatentSystem, "build_network")]
)
def test_a_class_of_a_family_that_lacks_its_part_is_named(kind, part, backbone_folder):
    own = type("Own", (kind,), {"losses": SAYS["losses"]})
    given = () if kind is PixelSystem else (str(backbone_folder), SamplingConfig())
    with pytest.raises(ValueError, match=rf"Own has no {part}: .*") as caught:
        system = own(*given)
        system.configure_model()
        system.trained.train()
    assert "\n" not in str(caught.value)


def test_a_dry_run_needs_no_argument_that_a_constructor_does_not_know():
    kind = system_with(**SAYS)
    system = meta_system(kind, {"optimizer": None})
    assert sizes_of(system).trained == 12 and system.init is None
