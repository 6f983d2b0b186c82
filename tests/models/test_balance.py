import math

import pytest
import torch
from torch.testing import assert_close

from lit_mimdit.models.balance import load_balance_loss, z_loss
from lit_mimdit.models.routers import Routing


def routing(logits: list[list[float]], selected: list[list[int]]) -> Routing:
    values = torch.tensor(logits, requires_grad=True)
    chosen = torch.tensor(selected)
    gates = values.softmax(-1)
    return Routing(
        torch.zeros_like(gates).scatter(1, chosen, gates.gather(1, chosen)), chosen, values
    )


LN2, LN3 = math.log(2.0), math.log(3.0)


def test_load_balance_loss_top_1():
    # gates (3/4, 1/4) and (1/2, 1/2), both images choose expert 0: f = (1, 0), P = (5/8, 3/8), 2 *
    # 5/8
    assert_close(
        load_balance_loss(routing([[LN3, 0.0], [0.0, 0.0]], [[0], [0]])), torch.tensor(1.25)
    )


def test_load_balance_loss_top_2():
    # gates (1/2, 1/4, 1/4) and (1/4, 1/2, 1/4); f = (1/2, 1/2, 0), P = (3/8, 3/8, 1/4); 3 * 3/8
    decisions = routing([[LN2, 0.0, 0.0], [0.0, LN2, 0.0]], [[0, 1], [1, 0]])
    assert_close(load_balance_loss(decisions), torch.tensor(1.125))


@pytest.mark.parametrize(("experts", "top_k"), [(4, 1), (4, 2), (3, 3)])
def test_load_balance_loss_is_one_at_uniform(experts, top_k):
    selected = [[(image + k) % experts for k in range(top_k)] for image in range(experts)]
    assert_close(
        load_balance_loss(routing([[0.7] * experts] * experts, selected)), torch.tensor(1.0)
    )


def test_load_balance_loss_pushes_the_crowded_expert_down():
    decisions = routing([[LN3, 0.0], [LN3, 0.0]], [[0], [0]])
    (gradient,) = torch.autograd.grad(load_balance_loss(decisions), decisions.logits)
    assert (gradient[:, 0] > 0).all() and (gradient[:, 1] < 0).all()


def test_z_loss():
    # logsumexp(ln 3, 0) = ln 4, logsumexp(0, 0) = ln 2
    expected = (math.log(4.0) ** 2 + math.log(2.0) ** 2) / 2
    assert_close(z_loss(routing([[LN3, 0.0], [0.0, 0.0]], [[0], [0]])), torch.tensor(expected))
    assert_close(z_loss(routing([[-LN2, -LN2]], [[0]])), torch.tensor(0.0))
