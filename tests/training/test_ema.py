"""The average by hand, where it is used, and that the weights always come back."""

from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import nn

from lit_mimdit.training.ema import EMA


class Module(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.frozen = nn.Parameter(torch.tensor([5.0]), requires_grad=False)


def trainer(step: int) -> SimpleNamespace:
    return SimpleNamespace(global_step=step, strategy=SingleDeviceStrategy("cpu"))


def started(decay: float = 0.9) -> tuple[EMA, Module]:
    ema, module = EMA(decay), Module()
    ema.on_fit_start(trainer(0), module)
    ema.on_train_start(trainer(0), module)
    return ema, module


def set_to(module: Module, value: float) -> None:
    module.a.data.fill_(value)


def test_the_formula_by_hand():
    """Decays min(0.15, (1 + n) / (10 + n)): 1/10, then 2/11 is cut to 0.15."""
    ema, module = started(decay=0.15)
    set_to(module, 11.0)
    ema.on_train_batch_end(trainer(1), module)
    torch.testing.assert_close(
        ema.average["a"], torch.tensor([0.1 * 1 + 0.9 * 11, 0.1 * 2 + 0.9 * 11])
    )
    set_to(module, 3.0)
    before = ema.average["a"].clone()
    ema.on_train_batch_end(trainer(2), module)
    torch.testing.assert_close(ema.average["a"], 0.15 * before + 0.85 * 3.0)
    assert ema.average.keys() == {"a"} and ema.updates == 2


def test_one_update_an_optimizer_step():
    ema, module = started()
    for step in (0, 1, 1, 1, 2):  # the step count while gradients are accumulated
        ema.on_train_batch_end(trainer(step), module)
    assert ema.updates == 2


def test_a_resumed_run_counts_from_the_step_it_resumes_at():
    """Lightning restores the step count between on_fit_start and on_train_start."""
    ema, module = EMA(0.9), Module()
    ema.load_state_dict({"average": {"a": torch.zeros(2)}, "updates": 7})
    ema.on_fit_start(trainer(0), module)
    ema.on_train_start(trainer(3), module)
    ema.on_train_batch_end(trainer(3), module)
    assert ema.updates == 7 and torch.equal(ema.average["a"], torch.zeros(2))


@pytest.mark.parametrize("stage", ["validation", "test", "predict"])
def test_evaluation_uses_the_average_and_gives_the_weights_back(stage):
    ema, module = started()
    set_to(module, 9.0)
    ema.on_train_batch_end(trainer(1), module)
    getattr(ema, f"on_{stage}_epoch_start")(trainer(1), module)
    assert torch.equal(module.a, ema.average["a"]) and module.frozen.item() == 5.0
    getattr(ema, f"on_{stage}_end")(trainer(1), module)
    assert torch.equal(module.a, torch.full((2,), 9.0)) and ema.backup == {}


def test_an_exception_in_evaluation_gives_the_weights_back():
    ema, module = started()
    set_to(module, 9.0)
    ema.on_validation_epoch_start(trainer(1), module)
    ema.on_exception(trainer(1), module, RuntimeError())
    assert torch.equal(module.a, torch.full((2,), 9.0)) and ema.backup == {}
    ema.on_exception(trainer(1), module, RuntimeError())
    assert torch.equal(module.a, torch.full((2,), 9.0))


def test_the_state_is_the_average_of_the_trained_parameters_alone():
    ema, module = started()
    state = ema.state_dict()
    assert state["average"].keys() == {"a"} and state["updates"] == 0
    other = EMA(0.9)
    other.load_state_dict({"average": {"b": torch.zeros(1)}, "updates": 1})
    with pytest.raises(ValueError, match=r"averages other parameters: \['a', 'b'\]"):
        other.on_fit_start(trainer(0), module)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_impossible_decay(decay):
    with pytest.raises(ValueError, match=f"EMA decay is {decay}"):
        EMA(decay)
