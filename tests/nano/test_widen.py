"""Widening a fidelity network: the same at first, and more to learn with."""

import pytest
import torch

from lit_mimdit.models.fidelity import Fidelity
from lit_mimdit.nano.widen import holds, widen


def trained(*sizes):
    """A network none of whose weights are 0."""
    torch.manual_seed(0)
    network = Fidelity(*sizes)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape) / parameter[0].numel() ** 0.5)
    return network


def images(seed):
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "small, large",
    [
        (((6, 8, 10), 1, False), ((6, 8, 10), 1, False)),
        (((6, 8, 10), 1, False), ((9, 8, 16), 1, True)),
        (((6, 8, 10), 1, True), ((7, 12, 11), 2, True)),
    ],
)
def test_a_wider_network_computes_the_same(small, large):
    old = trained(*small)
    torch.manual_seed(1)
    new = Fidelity(*large)
    widen(old, new)
    restored, lq = images(1), images(2)
    with torch.no_grad():
        assert (old(restored, lq) - restored).abs().max() > 0.1
        assert torch.allclose(new(restored, lq), old(restored, lq), atol=1e-5)
        assert torch.allclose(
            new.correct(restored, lq, statistics=new.statistics(restored, lq)),
            old.correct(restored, lq, statistics=old.statistics(restored, lq)),
            atol=1e-5,
        )


def test_new_channels_learn():
    new = Fidelity((9, 8, 16), 1, True)
    widen(trained((6, 8, 10), 1, False), new)
    (new(images(1), images(2)) - images(3)).square().mean().backward()
    level = new.correction.before[2][0].first.weight.grad
    assert level[:10, 10:].abs().max() > 0  # old channels begin to hear of the new ones
    assert new.correction.leave.weight.grad.view(8, 4, -1)[5:].abs().max() > 0  # gains


@pytest.mark.parametrize(
    "large", [((6, 8), 1, False), ((6, 7, 10), 1, False), ((6, 8, 10), 1, False)]
)
def test_what_does_not_hold_another(large):
    assert not holds(Fidelity((6, 8, 10), 1, True), Fidelity(*large))


def test_cleaners_are_left_alone():
    old = trained((6, 8), 1, False, ((4, 4), 1, False))
    new = Fidelity((8, 8), 1, True)
    widen(old, new)
    restored, lq = images(1), images(2)
    with torch.no_grad():
        expected = old(restored, lq)
        old.cleaner = None
        assert not torch.allclose(old(restored, lq), expected, atol=1e-3)
        assert torch.allclose(new(restored, lq), old(restored, lq), atol=1e-5)
