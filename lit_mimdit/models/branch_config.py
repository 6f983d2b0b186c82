"""The parts of a branch, as a configuration names them."""

from dataclasses import dataclass, field
from typing import Literal, get_args, get_origin, get_type_hints

GROUPS = ("spatial", "channel", "swin", "se")


@dataclass
class InterConfig:
    """The router between the groups.

    Args:
        router: `dense` weighs all groups, as in the paper. `top1` keeps the heaviest only.
    """

    router: Literal["dense", "top1"] = "dense"


@dataclass
class IntraConfig:
    """The sub-experts inside every group and their router.

    Args:
        experts: number of sub-experts in a group. 1 switches the Intra-MoE off.
        top_k: number of sub-experts that an image uses, with the router `topk`.
        router: `topk`, the paper's, or `dense`, which uses all of them.
        renormalise: whether the selected gates are divided by their sum.
    """

    experts: int = 4
    top_k: int = 2
    router: Literal["topk", "dense"] = "topk"
    renormalise: bool = False

    @property
    def used(self) -> int:
        """Returns how many sub-experts an image uses; the dense router knows no top_k."""
        return self.experts if self.router == "dense" else self.top_k


@dataclass
class BranchConfig:
    """The trained branch: one MiM a backbone block.

    Args:
        width: width of the experts' tokens.
        heads: attention heads of the experts. They must divide the width.
        window: side of a Swin window in tokens. Every second block is shifted.
        groups: kinds of the expert groups, each one of `spatial`, `channel`, `swin` and `se`. A
            kind may appear several times.
        inter: router between the groups.
        intra: sub-experts, and the router inside a group.
        ff_ratio: hidden width of the feed-forward layer, as a multiple of the width.
        se_reduction: squeeze factor of the SE experts.
        routers: `block` gives every MiM an Inter router and Intra routers of its own, as in the
            paper. `shared` has one set for all of them.
        chained: whether MiM i also receives the tokens of MiM i - 1. `false` gives every MiM the LQ
            tokens alone, as in the paper.
        positions: whether the LQ tokens carry the backbone's positions.
        base: what the condition tokens are before anything is learned. `zero` is the paper's.
            `embed` takes the normalised LQ tokens. `position` takes the backbone's own normalised
            hidden states of an empty latent, the same for every LQ image. `reference` takes those
            of the LQ latent at t = 0, which costs one backbone pass an image.
        fusion: how the condition meets the latent tokens. `concat`, the paper's, joins it to their
            keys and values. `concat_latent` is cheaper, because the text tokens do not read it.
            `zero_gated` attends to it separately, and adds the result through a gate that starts at
            0 (LLaMA-Adapter, arXiv 2303.16199).
        zero_std: standard deviation of the Zero Linear's first weights; 0 in the paper.
    """

    width: int
    heads: int
    window: int = 8
    groups: list[str] = field(default_factory=lambda: list(GROUPS))
    inter: InterConfig = field(default_factory=InterConfig)
    intra: IntraConfig = field(default_factory=IntraConfig)
    ff_ratio: float = 2.0
    se_reduction: int = 4
    routers: Literal["block", "shared"] = "block"
    chained: bool = False
    positions: bool = True
    base: Literal["zero", "embed", "position", "reference"] = "zero"
    fusion: Literal["concat", "concat_latent", "zero_gated"] = "concat"
    zero_std: float = 0.0

    def __post_init__(self) -> None:
        for prefix, part in (
            ("branch", self),
            ("branch.inter", self.inter),
            ("branch.intra", self.intra),
        ):
            for name, hint in get_type_hints(type(part)).items():
                choices = get_args(hint) if get_origin(hint) is Literal else ()
                if choices and getattr(part, name) not in choices:
                    raise ValueError(
                        f"{prefix}.{name} is {getattr(part, name)!r}: choose among"
                        f" {', '.join(choices)}"
                    )
        wrong = [g for g in self.groups if g not in GROUPS]
        if wrong or not self.groups:
            raise ValueError(
                f"branch.groups holds {wrong or 'nothing'}: choose among {', '.join(GROUPS)}"
            )
        if self.width < 1 or round(self.width * self.ff_ratio) < 1:
            raise ValueError(
                f"branch.width is {self.width} and branch.ff_ratio {self.ff_ratio}: both must give"
                " at least 1 channel"
            )
        if self.intra.experts < 1:
            raise ValueError(
                f"branch.intra.experts is {self.intra.experts}: a group needs at least 1 (1"
                " switches the Intra-MoE off)"
            )
        if self.intra.router == "topk" and not 1 <= self.intra.top_k <= self.intra.experts:
            limit = self.intra.experts
            raise ValueError(
                f"branch.intra.top_k is {self.intra.top_k} with branch.intra.experts {limit}:"
                f" choose 1 to {limit}"
            )
        if self.zero_std < 0:
            raise ValueError(f"branch.zero_std is {self.zero_std}: it must be 0 or more")
