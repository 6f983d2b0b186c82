"""What DeepSpeed is told, and how parameters travel together."""

import torch
from lightning.pytorch.utilities.model_summary import model_summary_deepspeed
from torch import nn

from lit_mimdit.training import sharded_states
from lit_mimdit.training.strategies import REUSE_DISTANCE, ZeRO


def test_zero_3_looks_a_little_ahead_and_a_users_own_distance_wins():
    name = "stage3_max_reuse_distance"
    assert ZeRO(stage=3).config["zero_optimization"][name] == REUSE_DISTANCE
    own = ZeRO(stage=3, config={"zero_optimization": {name: 7}}).config["zero_optimization"]
    assert own[name] == 7 and own["stage"] == 3
    assert name not in ZeRO(stage=2).config["zero_optimization"]


def test_the_summary_asks_for_a_version_once():
    ask = model_summary_deepspeed.RequirementCache
    assert ask("deepspeed<0.6.6") is ask("deepspeed<0.6.6") and not ask("deepspeed<0.6.6")


def test_bundles_hold_each_parameter_once_in_order_and_no_more_than_allowed(monkeypatch):
    monkeypatch.setattr(sharded_states, "BUNDLE", 7)
    parameters = [nn.Parameter(torch.zeros(size)) for size in (3, 4, 10, 1, 5, 2)]
    found = [[p.numel() for p in bundle] for bundle in sharded_states.bundles(parameters)]
    assert found == [[3, 4], [10], [1, 5], [2]], "one that is too large travels alone"
    assert list(sharded_states.bundles([])) == []
