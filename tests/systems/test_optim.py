"""Optimizer, groups and schedule by hand."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from lightning.fabric.plugins.precision.amp import _optimizer_handles_unscaling
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import nn

from lit_mimdit.systems.optim import (
    OptimizerConfig,
    configure,
    lr_factor,
    parameter_groups,
    share_of_time,
)
from lit_mimdit.training.callbacks import TrainingTime


@pytest.fixture
def model() -> nn.Module:
    model = nn.ModuleDict(
        {
            "router": nn.Linear(2, 2),
            "mims": nn.ModuleDict({"zero_linear": nn.Linear(2, 2), "router": nn.Linear(2, 2)}),
        }
    )
    model["frozen"] = nn.Linear(2, 2).requires_grad_(False)
    return model


def test_groups_hold_every_trained_parameter_once_with_its_rate(model):
    groups = parameter_groups(
        model.named_parameters(),
        OptimizerConfig(lr=2.0, lr_scale={"router": 0.5, "zero_linear": 10}),
    )
    rates = {group["name"]: group["lr"] for group in groups}
    assert rates == {"router": 1.0, "zero_linear": 20.0}
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    (rest,) = parameter_groups(model.named_parameters(), OptimizerConfig(lr=2.0))
    assert rest["name"] == "rest" and rest["lr"] == 2.0 and len(rest["params"]) == 6


def test_a_scale_that_matches_nothing_is_an_error(model):
    with pytest.raises(
        ValueError, match=r"optimizer.lr_scale names \['zero'\], which no trained parameter has"
    ):
        parameter_groups(model.named_parameters(), OptimizerConfig(lr=1.0, lr_scale={"zero": 3}))
    with pytest.raises(ValueError, match="nothing to train"):
        parameter_groups(model["frozen"].named_parameters(), OptimizerConfig(lr=1.0))


def test_warm_up_and_cosine_by_hand():
    constant = [
        lr_factor(s, warmup_steps=4, schedule="constant", total_steps=math.inf) for s in range(6)
    ]
    assert constant == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    cosine = [lr_factor(s, warmup_steps=2, schedule="cosine", total_steps=6) for s in range(8)]
    assert cosine == pytest.approx(
        [0.5, 1.0, 1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0.0, 0.0]
    )


def test_the_schedule_multiplies_every_groups_rate(model):
    made = configure(
        model.named_parameters(),
        OptimizerConfig(lr=1.0, warmup_steps=2, lr_scale={"router": 0.1}),
        total_steps=9,
    )
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    assert made["lr_scheduler"]["interval"] == "step"
    seen = []
    for _ in range(3):
        seen.append({group["name"]: group["lr"] for group in optimizer.param_groups})
        optimizer.step()
        schedule.step()
    assert seen == [
        {"router": 0.05, "rest": 0.5},
        {"router": 0.1, "rest": 1.0},
        {"router": 0.1, "rest": 1.0},
    ]


def step(**changes) -> torch.Tensor:
    parameter = nn.Parameter(torch.tensor([1.0, -2.0]))
    made = configure([("a", parameter)], OptimizerConfig(**({"lr": 0.1} | changes)), total_steps=10)
    for gradient in (torch.tensor([3.0, 0.5]), torch.tensor([-1.0, 0.5])):
        parameter.grad = gradient
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    return parameter.detach()


def test_adam_by_hand():
    """Two steps of eq. 1 of arXiv 1412.6980 on the first element."""
    m = v = 0.0
    x = 1.0
    for t, g in ((1, 3.0), (2, -1.0)):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        x -= 0.1 * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
    assert step()[0].item() == pytest.approx(x, rel=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 0.2},
        {"betas": (0.5, 0.999)},
        {"betas": (0.9, 0.5)},
        {"weight_decay": 0.3},
        {"warmup_steps": 2},
        {"schedule": "cosine"},
    ],
)
def test_every_setting_changes_the_step(change):
    assert not torch.equal(step(**change), step())


def test_decoupled_weight_decay_is_another_one():
    assert not torch.equal(step(name="adamw", weight_decay=0.3), step(weight_decay=0.3))
    torch.testing.assert_close(step(name="adamw", weight_decay=0.0), step())


@pytest.mark.parametrize("wrong", [{"lr": 0.0}, {"warmup_steps": -1}, {"betas": (0.9, 1.0)}])
def test_impossible_settings(wrong):
    with pytest.raises(ValueError, match=f"optimizer.{next(iter(wrong))} is"):
        OptimizerConfig(**({"lr": 0.1} | wrong))


def test_cosine_needs_an_end():
    with pytest.raises(ValueError, match="set trainer.max_steps or trainer.max_epochs"):
        step_without_end = OptimizerConfig(lr=0.1, schedule="cosine")
        configure([("a", nn.Parameter(torch.zeros(1)))], step_without_end, math.inf)


def test_cosine_falls_over_the_budget_of_time_where_steps_have_no_end():
    """Half the time is half the rate, whatever the step; warm-up still counts steps."""
    cosine = {"warmup_steps": 4, "schedule": "cosine", "total_steps": math.inf}
    assert lr_factor(1, **cosine, share_of_time=0.9) == pytest.approx(0.5)
    shares = [0.0, 1 / 3, 0.5, 1.0]
    factors = [lr_factor(1000, **cosine, share_of_time=share) for share in shares]
    assert factors == pytest.approx([1.0, 0.75, 0.5, 0.0])
    weight = torch.nn.Parameter(torch.ones(1))
    config = OptimizerConfig(lr=2.0, schedule="cosine")
    parts = configure([("w", weight)], config, math.inf, share_of_time=lambda: 0.5)
    assert parts["optimizer"].param_groups[0]["lr"] == pytest.approx(1.0)


def test_cosine_falls_to_whichever_end_comes_first():
    cosine = {"warmup_steps": 0, "schedule": "cosine", "total_steps": 100}
    assert lr_factor(50, **cosine, share_of_time=0.1) == pytest.approx(0.5)
    assert lr_factor(1, **cosine, share_of_time=0.5) == pytest.approx(0.5)


def test_max_time_and_training_time_are_budgets():
    """Six of ten seconds, over all cuts of the run; a timer without an end is none."""
    timer = Timer(duration={"seconds": 10})
    timer.load_state_dict({"time_elapsed": {"train": 6.0}})
    budget = TrainingTime(minutes=1)
    budget.load_state_dict({"seconds": 15.0})
    strategy = SingleDeviceStrategy()
    for callbacks, share in (([Timer(), timer], 0.6), ([timer, budget], 0.25)):
        used = share_of_time(SimpleNamespace(callbacks=callbacks, strategy=strategy))
        assert used() == pytest.approx(share, abs=0.01)
    endless = SimpleNamespace(callbacks=[Timer(), TrainingTime()], strategy=strategy)
    assert share_of_time(endless) is None


def test_the_clock_is_asked_once_a_step_and_by_a_cosine_alone(model):
    asked = []
    named = list(model.named_parameters())
    for schedule, times in (("cosine", 2), ("constant", 0)):
        asked.clear()
        scale = {"router": 0.5}  # two groups
        config = OptimizerConfig(lr=0.1, schedule=schedule, warmup_steps=1, lr_scale=scale)
        clock = lambda: asked.append(1) or 0.5  # noqa: E731
        made = configure(named, config, 10, share_of_time=clock)
        for _ in range(2):
            made["optimizer"].step()
            made["lr_scheduler"]["scheduler"].step()
        assert len(asked) == times, "not in the warm-up either"


@pytest.mark.parametrize("callback", [Timer(duration={"seconds": 10}), TrainingTime(minutes=1)])
def test_processes_share_one_clock(callback):
    """Else their rates would differ, and with them what they train."""
    first = SimpleNamespace(broadcast=lambda _: 0.3)
    assert share_of_time(SimpleNamespace(callbacks=[callback], strategy=first))() == 0.3


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_on_a_cpu_is_one_pass_that_gives_what_the_loop_gives(model, name):
    other = nn.ModuleDict(copy.deepcopy(dict(model.items())))
    config = OptimizerConfig(lr=0.1, name=name, weight_decay=0.01)
    ours = configure(model.named_parameters(), config, 10)["optimizer"]
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    loop = kind(
        [p for p in other.parameters() if p.requires_grad], 0.1, weight_decay=0.01, foreach=False
    )
    for step in range(5):
        for optimizer, network in ((ours, model), (loop, other)):
            optimizer.zero_grad()
            sum(((p + step) ** 3).sum() for p in network.parameters()).backward()
            optimizer.step()
    assert ours.defaults["fused"] is True
    assert not _optimizer_handles_unscaling(ours), "else Lightning clips no gradients"
    torch.testing.assert_close(model.state_dict(), other.state_dict())
    with torch.device("meta"):
        elsewhere = nn.Linear(2, 2)
    found = configure(elsewhere.named_parameters(), config, 10)["optimizer"]
    assert found.defaults["fused"] is None
