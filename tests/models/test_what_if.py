"""Weights in the routers' place: what a user may write, and what the branch then computes."""

import pytest
import torch
from torch.utils._pytree import tree_leaves

from lit_mimdit.models.branch_config import BranchConfig, InterConfig, IntraConfig
from lit_mimdit.models.mim import MiM
from lit_mimdit.models.network import Branch
from lit_mimdit.models.routers import Routing
from lit_mimdit.models.what_if import forced_inter, forced_intra, titles, what_if

OUTER, GRID, BLOCKS = 12, (3, 5), 2


def config(**changes) -> BranchConfig:
    settings = {
        "width": 8,
        "heads": 2,
        "window": 2,
        "zero_std": 0.5,
        "intra": IntraConfig(experts=4, top_k=2),
    }
    return BranchConfig(**(settings | changes))


def given_for(of: BranchConfig, inter=None, intra=None):
    return what_if(of.groups, of.intra.experts, BLOCKS, inter, intra)


def branch_and_tokens(of: BranchConfig, batch: int = 1) -> tuple[Branch, torch.Tensor]:
    torch.manual_seed(0)
    branch = Branch(of, OUTER, 1, BLOCKS).eval()
    for name, parameter in branch.named_parameters():
        if "router.project.weight" in name:
            torch.nn.init.normal_(parameter)
    return branch, torch.randn(batch, 15, OUTER) + 2.0 * torch.randn(batch, 1, OUTER)


def as_given(decisions, groups) -> tuple[dict, dict]:
    """What the routers decided about one image, as a user would write it."""
    names = titles(groups)
    inter = {
        name: [mim.inter.weights[0, index].item() for mim in decisions]
        for index, name in enumerate(names)
    }
    intra = {
        name: [
            {int(e): mim.intra[index].weights[0, e].item() for e in mim.intra[index].selected[0]}
            for mim in decisions
        ]
        for index, name in enumerate(names)
    }
    return inter, intra


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"inter": InterConfig("top1")},
        {"intra": IntraConfig(experts=4, top_k=2, renormalise=True)},
        {"intra": IntraConfig(experts=3, router="dense")},
        {"groups": ["swin", "swin", "se"], "chained": True},
    ],
    ids=["paper", "top1", "renormalised", "dense", "twice"],
)
def test_what_the_routers_decided_changes_no_bit(changes):
    branch, x = branch_and_tokens(config(**changes))
    expected, decisions = branch(x, GRID)
    inter, intra = as_given(decisions, branch.config.groups)
    kept = {name: [list(gates) for gates in each] for name, each in intra.items()}
    for given in ({"inter": inter}, {"intra": intra}, {"intra": kept}):
        forced = given_for(branch.config, **given)
        found, again = branch(x, GRID, forced)
        assert all(map(torch.equal, found, expected)), given
        assert all(map(torch.equal, tree_leaves(again), tree_leaves(decisions))), given


# u + sum_g w_g IntraMoE_g(norm(u)) with w given: one group alone is that group's own output
def test_one_group_alone_is_its_output_times_its_weight():
    branch, x = branch_and_tokens(config())
    mim: MiM = branch.mims[0]
    given = given_for(branch.config, "swin=0.3,others=0").at(0)
    hidden = mim(x, GRID, None, given)[1]
    u = mim.project(x)
    group, normed = mim.groups[2], mim.norm(u)
    routing = group.router(normed)
    u = u + 0.3 * group(normed, GRID, routing, [None] * 4)
    torch.testing.assert_close(hidden, u + mim.feed_forward(u))


def test_a_sub_expert_is_forced_with_its_own_gate_or_a_given_one():
    logits = torch.tensor([[3.0, 1.0, 2.0, 0.0]])
    routing = Routing(torch.zeros(1, 4), torch.tensor([[0, 2]]), logits)
    gates = logits.softmax(-1)[0]
    own = forced_intra(routing, {3: None, 1: None}, False)
    assert own.selected.tolist() == [[1, 3]]  # the heaviest first
    torch.testing.assert_close(own.weights[0], torch.tensor([0, gates[1], 0, gates[3]]))
    total = gates[1] + gates[3]
    shares = forced_intra(routing, {3: None, 1: None}, True).weights[0]
    torch.testing.assert_close(shares, torch.tensor([0, gates[1] / total, 0, gates[3] / total]))
    assert forced_intra(routing, {3: 0.25}, False).weights.tolist() == [[0, 0, 0, 0.25]]


def test_a_group_that_is_not_named_keeps_its_weight():
    weights = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]])
    routing = Routing(weights, weights.topk(4).indices, weights.log())
    forced = forced_inter(routing, (None, 0.0, None, 2.0)).weights
    expected = torch.tensor([[0.1, 0.0, 0.3, 2.0], [0.4, 0.0, 0.2, 2.0]])
    assert torch.equal(forced, expected)


def test_groups_that_a_top1_router_left_out_work_when_forced():
    branch, x = branch_and_tokens(config(inter=InterConfig("top1")), batch=3)
    forced = given_for(branch.config, dict.fromkeys(branch.config.groups, 0.25))
    _, decisions = branch(x, GRID, forced)
    assert decisions[0].inter.selected.shape == (3, 4)
    assert (decisions[0].inter.weights == 0.25).all()
    alone = branch(x, GRID, given_for(branch.config, "se=1,others=0"))[1]
    assert alone[1].inter.selected.tolist() == [[3]] * 3


@pytest.mark.parametrize(
    ("text", "block", "expected"),
    [
        ("spatial=0", 1, (0.0, None, None, None)),
        ("spatial=0, others=1", 0, (0.0, 1.0, 1.0, 1.0)),
        ("se@1=0.5", 0, (None, None, None, None)),
        ("se@1=0.5", 1, (None, None, None, 0.5)),
    ],
)
def test_weights_as_text(text, block, expected):
    assert given_for(config(), text).at(block).inter == expected


def test_sub_experts_as_text():
    given = given_for(config(), intra="swin=0+2,se@1=3:0.5").at(1)
    assert given.intra == (None, None, {0: None, 2: None}, {3: 0.5})
    assert given.inter == (None,) * 4
    assert given_for(config()) is None


def test_the_record_names_what_was_given():
    forced = given_for(config(), {"spatial": 0, "se": [0.5, None]}, {"swin": [1, 2]})
    assert forced.record() == {
        "inter": {"spatial": 0.0, "se": [0.5, None]},
        "intra": {"swin": {"1": None, "2": None}},
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"inter": "spatail=1"}, "no group 'spatail': choose among spatial, channel, swin, se"),
        ({"inter": "spatial=-1"}, "spatial is '-1': a weight must be a number of 0 or more"),
        ({"inter": {"se": float("nan")}}, "se is nan: a weight must be"),
        ({"inter": "spatial"}, "write GROUP=VALUE with commas"),
        ({"inter": ""}, "write GROUP=VALUE with commas"),
        ({"inter": "se=1,se=2"}, "names se twice"),
        ({"inter": "se@2=1"}, "no block '2': this branch has blocks 0 to 1"),
        ({"inter": "others=0"}, "all weights of block 0 are 0"),
        ({"inter": {"se": [1.0]}}, "se has 1 values, and this branch 2 blocks"),
        ({"intra": "swin=4"}, "swin has no sub-expert 4: choose among 0 to 3"),
        ({"intra": "swin=0+0"}, "names a sub-expert twice"),
        ({"intra": "swin=a"}, "write the numbers of sub-experts"),
        ({"intra": "swin=0:0"}, "has no sub-expert left"),
        ({"intra": "swin=0:-2"}, "swin 0 is '-2': a weight must be"),
        ({"intra": {"swin": []}}, "has no sub-expert left"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(given, message):
    with pytest.raises(ValueError) as error:
        given_for(config(), **given)
    assert message in str(error.value) and "\n" not in str(error.value)
