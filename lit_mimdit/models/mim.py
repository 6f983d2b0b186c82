"""MoE-in-MoE (MiM): a dense router over groups of experts, a sparse router inside each group
(MiM-DiT, arXiv 2603.02710).

B = batch, N = tokens, d = branch width, D = backbone width, G = groups, E = sub-experts of a group,
K = sub-experts selected.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# torch.compiler.disable for code that must not wait for the compiler to load
from torch._compile import _disable_dynamo

from lit_mimdit.models.attention_experts import (
    ChannelAttention,
    Grid,
    SEAttention,
    Selected,
    SpatialAttention,
    SwinAttention,
)
from lit_mimdit.models.branch_config import BranchConfig
from lit_mimdit.models.decisions import MiMRouting
from lit_mimdit.models.module_list import module_list
from lit_mimdit.models.routers import Router, Routing
from lit_mimdit.models.what_if import BlockWhatIf, forced_inter, forced_intra


def _expert(kind: str, config: BranchConfig, shifted: bool) -> nn.Module:
    match kind:
        case "spatial":
            return SpatialAttention(config.width, config.heads)
        case "channel":
            return ChannelAttention(config.width, config.heads)
        case "swin":
            return SwinAttention(config.width, config.heads, config.window, shifted)
        case "se":
            return SEAttention(config.width, config.se_reduction)
    raise AssertionError(kind)


# for each sub-expert the images that chose it, (b,) int64, in order; None: all of the batch
Rows = list[Tensor | None]


@_disable_dynamo  # the lengths are known at run time only
def rows_of_experts(chosen_GEB: Tensor) -> list[Rows]:
    """Returns which images each sub-expert of each group works on, from a mask.

    The only place where the host waits for the device.
    """
    order_GEB = chosen_GEB.logical_not().to(torch.uint8).argsort(dim=-1, stable=True)
    counts_GE, batch = chosen_GEB.sum(-1).tolist(), chosen_GEB.shape[-1]
    groups: list[Rows] = []
    for counts_E, order_EB in zip(counts_GE, order_GEB, strict=True):
        pairs = zip(counts_E, order_EB, strict=True)
        groups.append([None if count == batch else order[:count] for count, order in pairs])
    return groups


def choosing(routing: Routing) -> Tensor:
    """Returns whether an image chose a sub-expert, (E, B) bool."""
    return torch.zeros_like(routing.weights, dtype=torch.bool).scatter(1, routing.selected, True).T


class IntraMoE(nn.Module):
    """y = sum over the selected sub-experts e of gate_e * expert_e(x), selected an image."""

    def __init__(self, kind: str, config: BranchConfig, shifted: bool) -> None:
        super().__init__()
        intra = config.intra
        self.experts = module_list(_expert(kind, config, shifted) for _ in range(intra.experts))
        self.router = Router(config.width, intra.experts, intra.used, intra.renormalise)

    @_disable_dynamo(recursive=False)
    # compiled a sub-expert: else every combination of numbers of images is a graph of its own
    def forward(self, x_BNd: Tensor, grid: Grid, routing: Routing, rows: Rows) -> Tensor:
        """Run each sub-expert once, on the images that chose it.

        A sub-expert that no image chose runs on one token, times 0, so that its gradient is 0 and
        not missing. Training over several processes needs that: DDP exchanges gradients parameter
        by parameter, ZeRO-3 parameters module by module. Each process waits for the others,
        whichever experts its own images chose.

        Args:
            x_BNd: normalised tokens (B, N, d).
            grid: (h, w) with h w = N.
            routing: the decisions of this group's router.
            rows: the images of each sub-expert.

        Returns:
            y (B, N, d), 0 for images in no row.
        """
        y_BNd = torch.zeros_like(x_BNd)
        gates_BE11 = routing.weights[:, :, None, None]
        for index, (expert, own) in enumerate(zip(self.experts, rows, strict=True)):
            if own is None:
                y_BNd = y_BNd + (expert(x_BNd, grid) * gates_BE11[:, index]).to(y_BNd.dtype)
            elif len(own):
                gates = gates_BE11[:, index].index_select(0, own)
                output = expert(x_BNd.index_select(0, own), grid) * gates
                y_BNd = y_BNd.index_add(0, own, output.to(y_BNd.dtype))
            elif torch.is_grad_enabled():
                nothing = 0.0 * expert(x_BNd[:1, :1], (1, 1)).sum() * gates_BE11[0, index]
                y_BNd = y_BNd + nothing.to(y_BNd.dtype)
        return y_BNd

    def at_once(self, x_BNd: Tensor, grid: Grid, routing: Routing) -> Tensor:
        """Returns what `forward` gives, in one computation of B K images with weights of their own.

        The host need not know which image chose what, so it does not wait for the device, and
        shapes do not depend on the choice. It moves more memory. See `Selected`.
        """
        batch, selected = routing.selected.shape
        experts = Selected(self.experts, routing.selected.flatten())
        compute = type(self.experts[0]).forward
        copies = x_BNd.repeat_interleave(selected, dim=0)  # image 0 K times, image 1 K times, ...
        output_BKNd = compute(experts, copies, grid).unflatten(0, (batch, selected))
        gates_BK = routing.weights.gather(1, routing.selected)
        return (output_BKNd * gates_BK[:, :, None, None]).sum(1).to(x_BNd.dtype)


def share_routers(mims: Sequence["MiM"]) -> None:
    """All MiMs ask the routers of the first: one Inter router, and one Intra router a group."""
    for mim in mims[1:]:
        mim.router = mims[0].router
        for group, first in zip(mim.groups, mims[0].groups, strict=True):
            group.router = first.router


class MiM(nn.Module):
    """One block's condition tokens from the LQ tokens.

        u = project(x) + u_previous          D -> d; u_previous only when chained
        u = u + sum_g w_g IntraMoE_g(norm(u))    w: Inter router
        u = u + feed_forward(norm(u))
        c = zero_linear(u)                   d -> D; weight and bias start at 0

    Args:
        outer_width: D of the backbone.
        config: see BranchConfig.
        shifted: whether the Swin experts use shifted windows.
    """

    # None: where the tokens are; the dry run, whose tokens are nowhere, says it
    as_on_gpu: bool | None = None

    def __init__(self, outer_width: int, config: BranchConfig, shifted: bool) -> None:
        super().__init__()
        width, hidden = config.width, round(config.width * config.ff_ratio)
        self.project = nn.Linear(outer_width, width)
        self.norm = nn.LayerNorm(width)
        groups = len(config.groups)
        self.router = Router(width, groups, groups if config.inter.router == "dense" else 1)
        self.groups = module_list(IntraMoE(kind, config, shifted) for kind in config.groups)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, hidden),
            nn.GELU(approximate="tanh"),
            nn.Linear(hidden, width),
        )
        self.zero_linear = nn.Linear(width, outer_width)
        nn.init.normal_(self.zero_linear.weight, std=config.zero_std)
        nn.init.zeros_(self.zero_linear.bias)

    def forward(
        self,
        x_BND: Tensor,
        grid: Grid,
        previous_BNd: Tensor | None = None,
        given: BlockWhatIf | None = None,
    ) -> tuple[Tensor, Tensor, MiMRouting]:
        """Turn the LQ tokens (B, N, D) into condition tokens of the block.

        Args:
            x_BND: LQ tokens.
            grid: (h, w) with h w = N.
            previous_BNd: hidden tokens of the MiM before; None: not chained.
            given: weights in the place of the routers' own.

        Returns:
            condition tokens (B, N, D), hidden tokens (B, N, d) and the routers' decisions.
        """
        u_BNd = self.project(x_BND)
        if previous_BNd is not None:
            u_BNd = u_BNd + previous_BNd
        normed_BNd = self.norm(u_BNd)
        inter = self.router(normed_BNd)
        intra = tuple(group.router(normed_BNd) for group in self.groups)
        if given is not None:
            inter = forced_inter(inter, given.inter)
            intra = tuple(
                forced_intra(routing, gates, group.router.renormalise)
                for group, routing, gates in zip(self.groups, intra, given.intra, strict=True)
            )
        if self._wants_all_at_once(normed_BNd, inter):
            outputs = [
                group.at_once(normed_BNd, grid, routing)
                for group, routing in zip(self.groups, intra, strict=True)
            ]
        else:
            plan = zip(self.groups, intra, self._rows(inter, intra), strict=True)
            outputs = [group(normed_BNd, grid, routing, rows) for group, routing, rows in plan]
        for index, output_BNd in enumerate(outputs):
            u_BNd = u_BNd + output_BNd * inter.weights[:, index, None, None].to(output_BNd.dtype)
        u_BNd = u_BNd + self.feed_forward(u_BNd)
        return self.zero_linear(u_BNd), u_BNd, MiMRouting(inter, intra)

    def _wants_all_at_once(self, x_BNd: Tensor, inter: Routing) -> bool:
        """Returns whether each group computes all its images at once.

        A GPU does: many small kernels and a waiting host cost it more than the memory moved. A CPU
        is slower by it. It is not done where nothing is chosen or whole groups are left out, nor
        where DeepSpeed (ZeRO-3) collects weights module by module.
        """
        dense = inter.selected.shape[1] == len(self.groups)
        several = len(self.groups[0].experts) > 1
        on_gpu = x_BNd.is_cuda if self.as_on_gpu is None else self.as_on_gpu
        return on_gpu and dense and several and not hasattr(self.norm.weight, "ds_id")

    def _rows(self, inter: Routing, intra: tuple[Routing, ...]) -> list[Rows]:
        """The rows of every group.

        A group that an image did not choose (Inter top-1) computes nothing for it, though its
        router is asked.
        """
        if all(
            routing.selected.shape[1] == routing.weights.shape[1] for routing in (inter, *intra)
        ):
            return [[None] * len(group.experts) for group in self.groups]
        chosen_GEB = (
            torch.stack([choosing(routing) for routing in intra]) & choosing(inter)[:, None]
        )
        return rows_of_experts(chosen_GEB)
