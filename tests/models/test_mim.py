"""The two levels of routing: what is computed for whom. Double precision unless said otherwise."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from lit_mimdit.models.branch_config import GROUPS, BranchConfig, InterConfig, IntraConfig
from lit_mimdit.models.decisions import join_rows, rows_of
from lit_mimdit.models.mim import IntraMoE, MiM, choosing, rows_of_experts
from lit_mimdit.models.network import Branch
from lit_mimdit.models.routers import Routing

OUTER, WIDTH, GRID = 12, 8, (3, 5)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def config(**changes) -> BranchConfig:
    settings = {
        "width": WIDTH,
        "heads": 2,
        "window": 2,
        "zero_std": 0.5,
        "intra": IntraConfig(experts=3, top_k=2),
    }
    return BranchConfig(**(settings | changes))


def decisive(module: nn.Module) -> nn.Module:
    """Double precision, and routers so sharp that images choose differently."""
    for name, parameter in module.named_parameters():
        if "router.project.weight" in name:
            nn.init.normal_(parameter, std=1.0)
    return module.double()


def tokens(batch: int = 4, width: int = OUTER) -> Tensor:
    """An offset of its own for every image, so that their mean tokens differ."""
    x = torch.randn(batch, GRID[0] * GRID[1], width) + 2.0 * torch.randn(batch, 1, width)
    return x.double().requires_grad_()


def run(moe: IntraMoE, x: Tensor) -> tuple[Tensor, Routing]:
    """An Intra-MoE by itself, as a MiM runs it."""
    routing = moe.router(x)
    return moe(x, GRID, routing, rows_of_experts(choosing(routing)[None])[0]), routing


def gradients(output: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    probe = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).double()
    return list(torch.autograd.grad((output * probe).sum(), inputs, materialize_grads=True))


def assert_all_close(left: list[Tensor], right: list[Tensor]) -> None:
    for a, b in zip(left, right, strict=True):
        assert_close(a, b)


@pytest.mark.parametrize("kind", GROUPS)
@pytest.mark.parametrize("router", ["topk", "dense"])
@pytest.mark.parametrize("renormalise", [False, True])
def test_one_sub_expert_is_the_plain_module(kind, router, renormalise):
    moe = decisive(
        IntraMoE(kind, config(intra=IntraConfig(1, 1, router, renormalise)), shifted=True)
    )
    x, expert = tokens(width=WIDTH), moe.experts[0]
    output, _ = run(moe, x)
    plain = expert(x, GRID)
    inputs = [x, *expert.parameters()]
    assert_close(output, plain)
    assert_all_close(gradients(output, inputs), gradients(plain, inputs))


@pytest.mark.parametrize("kind", GROUPS)
def test_selecting_all_sub_experts_is_dense(kind):
    sparse = decisive(IntraMoE(kind, config(intra=IntraConfig(3, 3, "topk")), shifted=True))
    dense = IntraMoE(kind, config(intra=IntraConfig(3, 1, "dense")), shifted=True).double()
    dense.load_state_dict(sparse.state_dict())
    x = tokens(width=WIDTH)
    left, right = run(sparse, x)[0], run(dense, x)[0]
    assert torch.equal(left, right)
    assert_all_close(
        gradients(left, [x, *sparse.parameters()]), gradients(right, [x, *dense.parameters()])
    )


@pytest.mark.parametrize("kind", GROUPS)
@pytest.mark.parametrize("top_k", [1, 2, 3])
@pytest.mark.parametrize("renormalise", [False, True])
def test_output_is_the_sum_over_all_experts_with_masked_gates(kind, top_k, renormalise):
    moe = decisive(
        IntraMoE(kind, config(intra=IntraConfig(3, top_k, "topk", renormalise)), shifted=False)
    )
    x = tokens(width=WIDTH)
    output, routing = run(moe, x)

    logits = moe.router.project(x.mean(1).float().double())
    gates = logits.softmax(-1)
    threshold = gates.topk(top_k).values[:, -1:]
    gates = gates * (gates >= threshold)
    if renormalise:
        gates = gates / gates.sum(-1, keepdim=True)
    dense = sum(gates[:, e, None, None] * expert(x, GRID) for e, expert in enumerate(moe.experts))

    assert len(routing.selected.unique(dim=0)) > 1, "the images should not all choose alike here"
    close = {"rtol": 1e-4, "atol": 1e-5}  # our gates are float32
    assert_close(output, dense, **close)
    for a, b in zip(
        gradients(output, [x, *moe.parameters()]),
        gradients(dense, [x, *moe.parameters()]),
        strict=True,
    ):
        assert_close(a, b, **close)


@pytest.mark.parametrize("kind", GROUPS)
@pytest.mark.parametrize("grid", [(3, 5), (4, 4), (2, 2)])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_all_images_at_once_give_what_expert_by_expert_gives(kind, grid, shifted, top_k):
    """A GPU computes them so, each with the weights of its own sub-experts."""
    moe = decisive(IntraMoE(kind, config(width=12, heads=3, intra=IntraConfig(3, top_k)), shifted))
    x = tokens(width=12)[:, : grid[0] * grid[1]].detach()
    x = torch.cat([x, x], dim=1)[:, : grid[0] * grid[1]].requires_grad_()
    routing = moe.router(x)
    left = moe(x, grid, routing, rows_of_experts(choosing(routing)[None])[0])
    right = moe.at_once(x, grid, moe.router(x))
    assert_close(right, left)
    assert_all_close(
        gradients(right, [x, *moe.parameters()]), gradients(left, [x, *moe.parameters()])
    )


@pytest.mark.parametrize("kind", GROUPS)
def test_at_once_gates_stay_exact_in_mixed_precision(kind):
    """Without a rounding of their own.

    Equal outputs of sub-experts come out as expert by expert.
    """
    moe = decisive(IntraMoE(kind, config(), shifted=False)).float()
    x = tokens(width=WIDTH).float().detach()
    routing = moe.router(x)
    with torch.autocast("cpu", torch.bfloat16):
        left = moe(x, GRID, routing, rows_of_experts(choosing(routing)[None])[0])
        right = moe.at_once(x, GRID, routing)
    assert left.dtype == right.dtype == torch.float32
    assert_close(right, left, rtol=1e-2, atol=1e-2)
    fine = [output - output.bfloat16() for output in (left, right)]
    assert all(part.any() for part in fine), (
        "a sum that was rounded to bfloat16 would have no finer part"
    )


def test_decisions_about_each_image_and_of_all_again():
    mim = decisive(MiM(OUTER, config(), shifted=False))
    decisions = (mim(tokens(batch=3), GRID)[2],)
    rows = rows_of(decisions, 3)
    assert [row[0].intra[1].selected.tolist() for row in rows] == [
        [ids] for ids in decisions[0].intra[1].selected.tolist()
    ]
    assert torch.equal(join_rows(rows)[0].inter.weights, decisions[0].inter.weights)
    assert rows_of((), 2) == [(), ()], "a ControlNet has no routers"


@pytest.mark.parametrize("inter,expected", [("dense", True), ("top1", False)])
def test_all_at_once_on_a_gpu_alone_and_where_no_group_is_left_out(inter, expected):
    mim = MiM(OUTER, config(inter=InterConfig(inter)), shifted=False)
    routing = mim.router(torch.randn(2, 4, WIDTH))
    on_gpu = SimpleNamespace(is_cuda=True)
    assert mim._wants_all_at_once(on_gpu, routing) is expected and not mim._wants_all_at_once(
        torch.zeros(1), routing
    )
    assert not MiM(
        OUTER, config(inter=InterConfig(inter), intra=IntraConfig(1, 1)), False
    )._wants_all_at_once(on_gpu, routing), "nothing to choose"
    mim.as_on_gpu = True  # the dry run's word, where no tensor has a place
    assert mim._wants_all_at_once(torch.zeros(1), routing) is expected
    mim.norm.weight.ds_id = (
        0  # DeepSpeed's mark of a parameter that lies in pieces on several processes
    )
    assert not mim._wants_all_at_once(on_gpu, routing)


@pytest.mark.parametrize("training", [False, True])
def test_images_without_an_expert_do_not_run_it(training):
    """Each expert runs once on the images that chose it; one that nobody chose runs on a single
    token, and only for its gradient.
    """
    moe = decisive(IntraMoE("spatial", config(intra=IntraConfig(4, 1)), shifted=False))
    seen = [[] for _ in moe.experts]
    for expert, calls in zip(moe.experts, seen, strict=True):
        expert.register_forward_hook(
            lambda _module, inputs, _output, calls=calls: calls.append(tuple(inputs[0].shape[:2]))
        )
    with torch.set_grad_enabled(training):
        _, routing = run(moe, tokens(batch=2, width=WIDTH))
    counts = [int((routing.selected == e).sum()) for e in range(4)]
    assert 0 in counts
    assert seen == [[(n, GRID[0] * GRID[1])] if n else [(1, 1)] * training for n in counts]


@pytest.mark.parametrize("kind", GROUPS)
@pytest.mark.parametrize("inter", ["dense", "top1"])
def test_what_no_image_chose_has_a_gradient_of_zero(kind, inter):
    """Processes exchange gradients parameter by parameter.

    A missing one would leave the others waiting.
    """
    mim = MiM(
        OUTER,
        config(groups=[kind] * 3, inter=InterConfig(inter), intra=IntraConfig(4, 1)),
        shifted=True,
    ).double()
    condition, hidden, routing = mim(tokens(batch=1, width=OUTER), GRID)
    (condition.square().sum() + hidden.square().sum()).backward()
    assert [name for name, parameter in mim.named_parameters() if parameter.grad is None] == []
    for g, (group, decision) in enumerate(zip(mim.groups, routing.intra, strict=True)):
        for e, expert in enumerate(group.experts):
            chosen = e in decision.selected[0] and (
                inter == "dense" or g in routing.inter.selected[0]
            )
            assert any(bool(parameter.grad.any()) for parameter in expert.parameters()) == chosen


def mim_by_hand(mim: MiM, x: Tensor, previous: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One image after the other.

    Project, dense or top-1 sum over the groups, feed-forward, Zero Linear.
    """
    outputs, hidden = [], []
    for index, image in enumerate(x.split(1)):
        u = mim.project(image)
        if previous is not None:
            u = u + previous[index : index + 1]
        normed = nn.functional.layer_norm(u, (WIDTH,), mim.norm.weight, mim.norm.bias)
        gates = mim.router.project(normed.mean(1).float().double()).softmax(-1)[0]
        for g, group in enumerate(mim.groups):
            if mim.router.top_k == len(mim.groups) or g == gates.argmax():
                inner = group.router.project(normed.mean(1).float().double()).softmax(-1)[0]
                chosen = inner.topk(group.router.top_k).indices.tolist()
                u = u + gates[g] * sum(inner[e] * group.experts[e](normed, GRID) for e in chosen)
        first, second = mim.feed_forward[1], mim.feed_forward[3]
        normed = nn.functional.layer_norm(
            u, (WIDTH,), mim.feed_forward[0].weight, mim.feed_forward[0].bias
        )
        u = u + second(nn.functional.gelu(first(normed), approximate="tanh"))
        outputs.append(u @ mim.zero_linear.weight.T + mim.zero_linear.bias)
        hidden.append(u)
    return torch.cat(outputs), torch.cat(hidden)


@pytest.mark.parametrize("inter", ["dense", "top1"])
@pytest.mark.parametrize("chained", [False, True])
def test_branch_equals_its_formula_image_by_image(inter, chained):
    branch = decisive(Branch(config(inter=InterConfig(inter), chained=chained), OUTER, 2, blocks=3))
    x = tokens()
    outputs, _ = branch(x, GRID)
    previous, by_hand = None, []
    for mim in branch.mims:
        c, hidden = mim_by_hand(mim, x, previous)
        previous = hidden if chained else None
        by_hand.append(c)
    for ours, expected in zip(outputs, by_hand, strict=True):
        assert_close(ours, expected, rtol=1e-4, atol=1e-5)


COMBINATIONS = [
    {
        "groups": groups,
        "inter": InterConfig(inter),
        "intra": IntraConfig(3, 2, intra),
        "chained": chained,
    }
    for groups in (["spatial"], ["channel"], ["swin"], ["se"], list(GROUPS), ["swin", "swin"])
    for inter in ("dense", "top1")
    for intra in ("topk", "dense")
    for chained in (False, True)
]


@pytest.mark.parametrize("changes", COMBINATIONS, ids=str)
def test_a_batch_of_four_is_four_batches_of_one(changes):
    branch = decisive(Branch(config(**changes), OUTER, 2, blocks=2))
    x = tokens()
    together, decisions = branch(x, GRID)
    alone = [branch(image, GRID) for image in x.split(1)]
    for block, tokens_of_block in enumerate(together):
        assert_close(
            tokens_of_block,
            torch.cat([outputs[block] for outputs, _ in alone]),
            rtol=1e-6,
            atol=1e-6,
        )
        inter = torch.cat([routing[block].inter.weights for _, routing in alone])
        assert_close(decisions[block].inter.weights, inter)
        for group, intra in enumerate(decisions[block].intra):
            assert torch.equal(
                intra.selected,
                torch.cat([routing[block].intra[group].selected for _, routing in alone]),
            )
    left = gradients(torch.stack(together), [x])
    right = gradients(
        torch.stack([torch.cat([outputs[block] for outputs, _ in alone]) for block in range(2)]),
        [x],
    )
    assert_close(left, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("inter", ["dense", "top1"])
@pytest.mark.parametrize("intra", ["topk", "dense"])
def test_training_mode_changes_nothing_and_calls_repeat(inter, intra):
    branch = Branch(
        config(inter=InterConfig(inter), intra=IntraConfig(3, 2, intra), chained=True),
        OUTER,
        2,
        blocks=2,
    )
    x = tokens().float()
    reference, _ = branch.eval()(x, GRID)
    for outputs in (branch(x, GRID)[0], branch.train()(x, GRID)[0], branch(x, GRID)[0]):
        assert all(torch.equal(a, b) for a, b in zip(outputs, reference, strict=True))


@pytest.mark.parametrize("inter", ["dense", "top1"])
@pytest.mark.parametrize("intra", ["topk", "dense"])
def test_bfloat16_by_autocast_or_by_weights(inter, intra):
    """Both are close to float32 and route alike, as long as no decision is close."""
    branch = decisive(
        Branch(config(inter=InterConfig(inter), intra=IntraConfig(3, 2, intra)), OUTER, 2, blocks=2)
    ).float()
    x = tokens().float().detach()
    reference, _ = branch(x, GRID)
    scale = max(c.abs().max() for c in reference)
    with torch.autocast("cpu", torch.bfloat16):
        autocast, _ = branch(x, GRID)
    rounded, _ = copy.deepcopy(branch).bfloat16()(x.bfloat16(), GRID)
    for a, b, c in zip(reference, autocast, rounded, strict=True):
        assert (a - b.float()).abs().mean() < 0.02 * scale
        assert c.dtype == torch.bfloat16 and (a - c.float()).abs().mean() < 0.04 * scale


def test_shared_routers_are_one_set_asked_by_all_blocks():
    """Equal to routers of its own in every block, with the same weights; their gradients are the
    sum.
    """
    shared = decisive(Branch(config(routers="shared"), OUTER, 2, blocks=3))
    own = Branch(config(), OUTER, 2, blocks=3).double()
    own.load_state_dict(shared.state_dict())  # which has the shared ones under every name
    x = tokens()
    left, right = (torch.stack(branch(x, GRID)[0]) for branch in (shared, own))
    assert torch.equal(left, right)
    for each in (left, right):
        (
            each * torch.randn(each.shape, generator=torch.Generator().manual_seed(1))
        ).sum().backward()
    for index, group in enumerate([None, *range(len(GROUPS))]):
        routers = [
            [mim.router if group is None else mim.groups[group].router for mim in branch.mims]
            for branch in (shared, own)
        ]
        assert len(set(routers[0])) == 1 and len(set(routers[1])) == 3, index
        assert_close(
            routers[0][0].project.weight.grad,
            sum(router.project.weight.grad for router in routers[1]),
        )
    count = [sum(p.numel() for p in branch.parameters()) for branch in (shared, own)]
    assert count[1] - count[0] == 2 * (
        (WIDTH + 1) * 4 + 4 * (WIDTH + 1) * 3
    )  # two blocks less of an Inter and four Intra routers


def test_zero_linear_starts_at_zero_unless_told_otherwise():
    for zero_std in (0.0, 0.5):
        mims = Branch(config(zero_std=zero_std), OUTER, 2, blocks=3).mims
        assert all(not mim.zero_linear.bias.any() for mim in mims)
        weights = torch.cat([mim.zero_linear.weight.flatten() for mim in mims])
        assert_close(weights.std().item(), zero_std, rtol=0.15, atol=0.0)


def test_every_second_block_shifts_its_windows():
    branch = Branch(config(groups=["swin", "se"]), OUTER, 2, blocks=4)
    shifted = [[expert.shifted for expert in mim.groups[0].experts] for mim in branch.mims]
    assert shifted == [[False] * 3, [True] * 3, [False] * 3, [True] * 3]


def test_groups_have_weights_of_their_own():
    mim = MiM(OUTER, config(groups=["spatial", "spatial"]), shifted=False)
    weights = [expert.qkv.weight for group in mim.groups for expert in group.experts]
    assert len(weights) == 6
    assert all((a - b).abs().max() > 0.01 for i, a in enumerate(weights) for b in weights[:i])


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        (
            {"groups": ["spatial", "chanel"]},
            ["branch.groups", "chanel", "spatial, channel, swin, se"],
        ),
        ({"groups": []}, ["branch.groups", "nothing", "spatial, channel, swin, se"]),
        ({"width": 0}, ["branch.width is 0"]),
        ({"width": 10, "heads": 4}, ["branch.width is 10", "branch.heads 4", "multiple"]),
        ({"heads": 0}, ["branch.heads 0", "multiple"]),
        ({"window": 0}, ["branch.window is 0", "at least 1"]),
        ({"ff_ratio": 0.0}, ["branch.ff_ratio 0", "at least 1"]),
        ({"ff_ratio": -1.0}, ["branch.ff_ratio -1", "at least 1"]),
        ({"se_reduction": 0}, ["branch.se_reduction is 0", "between 1 and the width 8"]),
        ({"se_reduction": 9}, ["branch.se_reduction is 9", "between 1 and the width 8"]),
        ({"zero_std": -0.1}, ["branch.zero_std is -0.1", "0 or more"]),
        (
            {"intra": IntraConfig(experts=2, top_k=3)},
            ["branch.intra.top_k is 3", "branch.intra.experts 2", "1 to 2"],
        ),
        ({"intra": IntraConfig(experts=2, top_k=0)}, ["branch.intra.top_k is 0", "1 to 2"]),
        ({"intra": IntraConfig(experts=0, top_k=0)}, ["branch.intra.experts is 0", "at least 1"]),
        (
            {"intra": IntraConfig(experts=0, router="dense")},
            ["branch.intra.experts is 0", "at least 1"],
        ),
        ({"intra": IntraConfig(router="TopK")}, ["branch.intra.router is 'TopK'", "topk, dense"]),
        ({"inter": InterConfig("top-1")}, ["branch.inter.router is 'top-1'", "dense, top1"]),
        (
            {"base": "references"},
            ["branch.base is 'references'", "zero, embed, position, reference"],
        ),
        ({"fusion": "gated"}, ["branch.fusion is 'gated'", "concat, concat_latent, zero_gated"]),
        ({"routers": "one"}, ["branch.routers is 'one'", "block, shared"]),
    ],
    ids=str,
)
def test_impossible_settings_name_the_key_and_the_remedy(changes, names):
    with pytest.raises(ValueError) as error:
        Branch(config(**changes), OUTER, 2, blocks=1)
    for name in names:
        assert name in str(error.value)
