import pytest
import torch
from torch.testing import assert_close

from lit_mimdit.models.routers import Router

BATCH, TOKENS, WIDTH, EXPERTS = 5, 6, 4, 4


@pytest.fixture
def x():
    torch.manual_seed(0)
    return 3.0 * torch.randn(BATCH, TOKENS, WIDTH)


def gates_by_hand(router: Router, x: torch.Tensor) -> torch.Tensor:
    """exp(l_e) / sum exp(l), l = W mean + b, written out."""
    mean = x.sum(1) / x.shape[1]
    exponentials = (
        (mean[:, None, :] * router.project.weight[None]).sum(-1) + router.project.bias
    ).exp()
    return exponentials / exponentials.sum(1, keepdim=True)


def test_dense_router_is_the_softmax_of_a_projection_of_the_mean_token(x):
    router = Router(WIDTH, EXPERTS, EXPERTS)
    routing = router(x)
    gates = gates_by_hand(router, x)
    assert_close(routing.weights, gates)
    assert_close(routing.logits.softmax(-1), gates)
    assert_close(routing.weights.sum(-1), torch.ones(BATCH))
    assert_close(routing.selected, gates.argsort(dim=-1, descending=True))


@pytest.mark.parametrize("top_k", [1, 2, 3])
@pytest.mark.parametrize("renormalise", [False, True])
def test_top_k_keeps_the_largest_gates(x, top_k, renormalise):
    router = Router(WIDTH, EXPERTS, top_k, renormalise)
    routing = router(x)
    gates = gates_by_hand(router, x)
    for image in range(BATCH):
        order = sorted(range(EXPERTS), key=lambda e: -gates[image, e].item())
        assert routing.selected[image].tolist() == order[:top_k]
        total = gates[image, order[:top_k]].sum() if renormalise else 1.0
        for expert in range(EXPERTS):
            if expert in order[:top_k]:
                assert_close(routing.weights[image, expert], gates[image, expert] / total)
            else:
                assert routing.weights[image, expert] == 0.0
    assert len({tuple(row) for row in routing.selected.tolist()}) > 1, (
        "the images should not all choose alike here"
    )


def test_gradients_reach_the_selected_gates_and_the_projection(x):
    router = Router(WIDTH, EXPERTS, 2)
    x.requires_grad_()
    routing = router(x)
    probe = torch.randn_like(routing.weights)
    mask = torch.zeros_like(probe).scatter(1, routing.selected, 1.0)
    inputs = [x, router.project.weight, router.project.bias]
    ours = torch.autograd.grad((routing.weights * probe).sum(), inputs)
    by_hand = torch.autograd.grad((gates_by_hand(router, x) * mask * probe).sum(), inputs)
    for a, b in zip(ours, by_hand, strict=True):
        assert_close(a, b)
        assert a.abs().max() > 0


def test_routing_stays_float32_inside_autocast_and_with_bfloat16_weights(x):
    router = Router(WIDTH, EXPERTS, 2)
    expected = router(x)
    with torch.autocast("cpu", torch.bfloat16):
        routing = router(x)
    for ours, reference in zip(routing, expected, strict=True):
        assert torch.equal(ours, reference)

    rounded = Router(WIDTH, EXPERTS, 2)
    rounded.load_state_dict(router.state_dict())
    rounded.bfloat16()  # what DeepSpeed's bf16 mode does to a module
    routing = rounded(x.bfloat16())
    assert routing.weights.dtype == routing.logits.dtype == torch.float32
    assert_close(
        routing.weights.sum(-1),
        gates_by_hand(rounded.float(), x.bfloat16().float()).topk(2).values.sum(-1),
    )


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_load_is_the_share_of_images_and_sums_to_top_k(x, top_k):
    routing = Router(WIDTH, EXPERTS, top_k)(x)
    counts = [sum(e in row for row in routing.selected.tolist()) / BATCH for e in range(EXPERTS)]
    assert_close(routing.load, torch.tensor(counts))
    assert_close(routing.load.sum(), torch.tensor(float(top_k)))


def test_one_expert_always_weighs_one(x):
    routing = Router(WIDTH, 1, 1)(x)
    assert torch.equal(routing.weights, torch.ones(BATCH, 1)) and torch.equal(
        routing.selected, torch.zeros(BATCH, 1, dtype=torch.long)
    )


def test_training_mode_changes_nothing_and_calls_repeat(x):
    router = Router(WIDTH, EXPERTS, 2)
    reference = router.eval()(x)
    for routing in (router(x), router.train()(x), router(x)):
        assert all(torch.equal(a, b) for a, b in zip(routing, reference, strict=True))


@pytest.mark.parametrize(
    ("experts", "top_k", "names"),
    [
        (0, 1, ["experts is 0", "at least 1"]),
        (4, 0, ["top_k is 0", "4"]),
        (4, 5, ["top_k is 5", "4"]),
    ],
)
def test_impossible_settings_name_the_setting_and_the_limit(experts, top_k, names):
    with pytest.raises(ValueError) as error:
        Router(WIDTH, experts, top_k)
    for name in names:
        assert name in str(error.value)
