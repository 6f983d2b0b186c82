"""Sparse computation is the same computation under torch.compile and gradient checkpointing, and
the host waits once a MiM at most.
"""

import copy

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.testing import assert_close

from lit_mimdit.models.branch_config import BranchConfig, InterConfig, IntraConfig
from lit_mimdit.models.mim import MiM
from lit_mimdit.models.network import Branch

GRID, WIDTH, OUTER = (3, 5), 8, 12


def config(**changes) -> BranchConfig:
    settings = {
        "width": WIDTH,
        "heads": 2,
        "window": 2,
        "zero_std": 0.5,
        "intra": IntraConfig(experts=4, top_k=2),
    }
    return BranchConfig(**(settings | changes))


def sharp(module: torch.nn.Module) -> torch.nn.Module:
    """Routers that tell images apart."""
    torch.manual_seed(0)
    for name, parameter in module.named_parameters():
        if "router.project.weight" in name:
            torch.nn.init.normal_(parameter, std=1.0)
    return module


def tokens(seed: int, batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 15, OUTER, generator=generator) + 2.0 * torch.randn(
        batch, 1, OUTER, generator=generator
    )


def results(module, x: Tensor, parameters: list) -> list[Tensor]:
    """Condition tokens, and the gradients of a probe of them."""
    c = module(x, GRID)[0]
    c = c if isinstance(c, Tensor) else torch.stack(c)
    probe = torch.randn(c.shape, generator=torch.Generator().manual_seed(9))
    return [c.detach(), *torch.autograd.grad((c * probe).sum(), parameters, materialize_grads=True)]


@pytest.mark.usefixtures("takes_seconds")  # the compiler's
def test_compiled_it_computes_the_same_for_every_choice_of_experts():
    """Numbers of images an expert works on.

    0, 1, several; graphs are not made for every combination of them.
    """
    torch._dynamo.reset()
    mim = sharp(MiM(OUTER, config(groups=["swin", "se"]), shifted=True))
    compiled, parameters = torch.compile(mim, backend="aot_eager"), list(mim.parameters())
    seen = set()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        for seed, batch in ((0, 5), (2, 1), (3, 6)):
            x = tokens(seed, batch)
            for a, b in zip(
                results(compiled, x, parameters), results(mim, x, parameters), strict=True
            ):
                assert_close(a, b, rtol=1e-4, atol=1e-5)
            seen |= {
                int(n * batch) for routing in mim(x, GRID)[2].intra for n in routing.load.tolist()
            }
    assert {0, 1} <= seen and len(seen) > 3


@pytest.mark.usefixtures("takes_seconds")  # the compiler's
def test_all_images_at_once_are_one_graph_for_every_choice_of_experts(monkeypatch):
    monkeypatch.setattr(MiM, "_wants_all_at_once", lambda *_: True)
    torch._dynamo.reset()
    mim = sharp(MiM(OUTER, config(), shifted=True))
    counter = CompileCounterWithBackend("aot_eager")
    compiled, parameters = (
        torch.compile(mim, backend=counter, fullgraph=True),
        list(mim.parameters()),
    )
    for seed in (0, 2, 3):
        x = tokens(seed, 5)
        for a, b in zip(results(compiled, x, parameters), results(mim, x, parameters), strict=True):
            assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert counter.frame_count == 1


@pytest.mark.parametrize("chained", [False, True])
def test_gradient_checkpointing_recomputes_the_same(chained):
    plain = sharp(Branch(config(chained=chained), OUTER, 2, blocks=3))
    saving = copy.deepcopy(plain)
    saving.gradient_checkpointing = True
    calls = []
    for branch in (plain, saving):
        for mim in branch.mims:
            mim.project.register_forward_hook(
                lambda *_, branch=branch: calls.append(branch is saving)
            )
    x = tokens(0, 4)
    left, right = (
        results(plain, x, list(plain.parameters())),
        results(saving, x, list(saving.parameters())),
    )
    assert calls.count(False) == 3 and calls.count(True) == 6, (
        "each MiM runs again in the backward pass"
    )
    assert all(torch.equal(a, b) for a, b in zip(left, right, strict=True))
    assert any(gradient.any() for gradient in left[1:])
    with torch.no_grad():
        saving(x, GRID)
    assert calls.count(True) == 9, "not without gradients"


WAITS = (
    "tolist",
    "item",
    "nonzero",
    "cpu",
    "numpy",
    "__bool__",
    "__int__",
    "__float__",
    "__index__",
)


@pytest.mark.parametrize(
    "changes, at_once, waits",
    [
        ({}, False, ["tolist"]),
        ({"inter": InterConfig("top1")}, False, ["tolist"]),
        ({"intra": IntraConfig(4, 4)}, False, []),
        ({"intra": IntraConfig(1, 1)}, False, []),
        ({}, True, []),
    ],
    ids=["sparse", "top1", "dense", "one expert", "sparse, all images at once"],
)
def test_the_host_waits_for_the_device_once_a_mim_at_most(monkeypatch, changes, at_once, waits):
    mim, found = sharp(MiM(OUTER, config(**changes), shifted=True)), []
    monkeypatch.setattr(MiM, "_wants_all_at_once", lambda *_: at_once)
    for name in WAITS:
        original = getattr(Tensor, name)

        def counted(self, *args, name=name, original=original, **options):
            found.append(name)
            return original(self, *args, **options)

        monkeypatch.setattr(Tensor, name, counted)
    mim(tokens(0, 4), GRID)[0].square().mean().backward()
    assert found == waits
