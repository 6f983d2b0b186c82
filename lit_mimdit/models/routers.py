"""Routers: from the tokens of an image to weights over experts. One path for training and
evaluation, no noise.

B = batch, N = tokens, d = width, E = experts, K = experts selected an image.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Routing(NamedTuple):
    """The decision of a router.

    weights: (B, E) float32, 0 where an expert was not selected.
    selected: (B, K) int64 expert ids, the heaviest first.
    logits: (B, E) float32 before the softmax.
    """

    weights: Tensor
    selected: Tensor
    logits: Tensor

    @property
    def load(self) -> Tensor:
        """Share of the images that selected each expert, (E,) float32; sums to K."""
        chosen = torch.zeros_like(self.weights).scatter_(1, self.selected, 1.0)
        return chosen.mean(0)


class Router(nn.Module):
    """softmax(W mean_n(x_n) + b), then the `top_k` largest (MiM-DiT, arXiv 2603.02710; gates as in
    Shazeer et al., arXiv 1701.06538).

    With top_k = experts it is the dense Inter router; with less, the sparse Intra router.

    Args:
        width: d of the tokens.
        experts: E.
        top_k: K, between 1 and E.
        renormalise: divide the selected weights by their sum.
    """

    def __init__(self, width: int, experts: int, top_k: int, renormalise: bool = False) -> None:
        super().__init__()
        if experts < 1:
            raise ValueError(f"experts is {experts}: a router needs at least 1")
        if not 1 <= top_k <= experts:
            raise ValueError(
                f"top_k is {top_k} with {experts} experts: it must lie between 1 and the number of"
                " experts"
            )
        self.top_k, self.renormalise = top_k, renormalise
        self.project = nn.Linear(width, experts)

    def forward(self, x_BNd: Tensor) -> Routing:
        with torch.autocast(
            x_BNd.device.type, enabled=False
        ):  # a rounded softmax would flip close decisions
            logits_BE = F.linear(
                x_BNd.mean(1, dtype=torch.float32),
                self.project.weight.float(),
                self.project.bias.float(),
            )
            gates_BE = logits_BE.softmax(-1)
        top_BK, selected_BK = gates_BE.topk(self.top_k, dim=-1)
        if self.renormalise:
            top_BK = top_BK / top_BK.sum(-1, keepdim=True)
        return Routing(
            torch.zeros_like(gates_BE).scatter(1, selected_BK, top_BK), selected_BK, logits_BE
        )
