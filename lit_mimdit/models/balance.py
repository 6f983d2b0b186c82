"""Auxiliary losses of sparse routers are pure functions of one router's decisions.

The paper mentions none; their weight is 0 by default.
"""

import torch
from torch import Tensor

from lit_mimdit.models.routers import Routing


def load_balance_loss(routing: Routing) -> Tensor:
    """E * sum_e f_e P_e: f_e the share of selections that went to expert e, P_e its mean gate. 1
    when both are uniform.

    Fedus et al., Switch Transformers, arXiv 2101.03961, eq. 4 (f here counts all K selections of an
    image and sums to 1).
    """
    experts, top_k = routing.logits.shape[1], routing.selected.shape[1]
    return experts * (routing.load / top_k * routing.logits.softmax(-1).mean(0)).sum()


def z_loss(routing: Routing) -> Tensor:
    """mean_b logsumexp(logits_b)^2, which keeps logits small.

    Source: Zoph et al., ST-MoE, arXiv 2202.08906, eq. 5.
    """
    return torch.logsumexp(routing.logits, dim=-1).square().mean()
