"""Routing as curves, with a warning where experts die or routers collapse."""

import re
from dataclasses import replace

import lightning as L
import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from lit_mimdit.routing.health import Health, enough, health_of
from lit_mimdit.routing.table6 import TYPES
from lit_mimdit.routing.tally import Tally, total
from lit_mimdit.training.callbacks.loggers import TEXTS, Charts, displays
from lit_mimdit.training.callbacks.window import RoutingCallback, group_names


def scalars_of(tallies: dict[str, Tally], groups: list[str], k: int) -> dict[str, float]:
    """Returns what the curves show, by name without the stage; see RoutingScalars."""
    whole = total(list(tallies.values()))
    inter, shares = whole.mean_inter, whole.shares
    blocks, count, experts = shares.shape
    health = health_of(whole, k, 0.0, 0.0)
    scalars = {f"inter_weight/mean_{groups[g]}": value for g, value in enumerate(inter.mean(0))}
    for (block, group), value in np.ndenumerate(inter):
        scalars[f"inter_weight/block_{block:02d}_{groups[group]}"] = value
    for name, tally in tallies.items():
        scalars |= {
            f"inter_weight_by_degradation/{name}_{groups[g]}": value
            for g, value in enumerate(tally.mean_inter.mean(0))
        }
    for (block, group, expert), value in np.ndenumerate(shares):
        scalars[f"sub_expert_share/block_{block:02d}_{groups[group]}_expert_{expert}"] = value
    for block in range(blocks):
        if count > 1:
            scalars[f"router_entropy/block_{block:02d}_inter"] = (
                whole.inter_entropy[block] / whole.images / np.log(count)
            )
        scalars[f"effective_experts/block_{block:02d}_inter"] = health.inter_effective[block]
        for group in range(count):
            place = f"block_{block:02d}_intra_{groups[group]}"
            if experts > 1:
                scalars[f"router_entropy/{place}"] = (
                    whole.gate_entropy[block, group] / whole.images / np.log(experts)
                )
            scalars[f"effective_experts/{place}"] = health.intra_effective[block, group]
    return {name: float(value) for name, value in scalars.items()}


def layout_of(names: list[str], stage: str, blocks: int) -> Charts:
    """One page of TensorBoard's Custom Scalars that tells the story from top to bottom; tags are
    regular expressions.
    """
    columns = {folder: f"{name} ({folder})" for name, folder in TYPES.items()}
    ordered = [name for name in TYPES.values() if name in names] + [
        name for name in names if name not in columns
    ]

    def lines(*tags: str) -> list:
        return ["Multiline", [f"{tag}$" for tag in tags]]

    return {
        "1 At a glance": {
            "loss": lines("train/loss"),
            "PSNR of validation, dB": lines("val/psnr_.*"),
            "Inter weights, mean over blocks": lines(f"inter_weight_{stage}/mean_.*"),
            "dead sub-experts, collapsed routers": lines(f"router_health_{stage}/.*"),
        },
        "2 Inter weights by degradation (table 6)": {
            columns.get(name, name): lines(
                rf"inter_weight_by_degradation_{stage}/{re.escape(name)}_\d+_[a-z]+"
            )
            for name in ordered
        },
        "3 Inter weights by block": {
            f"block {b}": lines(f"inter_weight_{stage}/block_{b:02d}_.*") for b in range(blocks)
        },
        "4 Share of images of each sub-expert": {
            f"block {b}": lines(f"sub_expert_share_{stage}/block_{b:02d}_.*") for b in range(blocks)
        },
        "5 Entropy and effective experts": {
            "entropy of the Inter routers, 1 = undecided": lines(
                f"router_entropy_{stage}/.*_inter"
            ),
            "entropy of the Intra routers, 1 = undecided": lines(
                f"router_entropy_{stage}/.*_intra_.*"
            ),
            "effective groups": lines(f"effective_experts_{stage}/.*_inter"),
            "effective sub-experts": lines(f"effective_experts_{stage}/.*_intra_.*"),
        },
        "6 Loss by diffusion time": {"loss by t": lines("train/loss_t.*")},
    }


class RoutingScalars(RoutingCallback):
    """Writes curves of the routing, each over the images since the last look.

    Validation and test have curves of their own (val, test instead of train).

    - `inter_weight_train`: mean Inter weights by block, and over all blocks.
    - `inter_weight_by_degradation_train`: over all blocks.
    - `sub_expert_share_train`: share of the images that each sub-expert worked on.
    - `router_entropy_train`: mean entropy of one image's weights, where 1 is undecided.
    - `effective_experts_train`: how many groups or sub-experts the choices amount to.
    - `router_health_train`: dead sub-experts and collapsed routers. Each is warned of once.

    TensorBoard's Custom Scalars page shows those of training in reading order.

    Args:
        every_n_steps: training steps between two points.
        dead_below: sub-experts that a smaller share of the images chose are dead. They are judged
            after 1 / dead_below images.
        collapse_below: a router has collapsed if its effective number of experts is smaller. 0 is
            the fewest it can use, 1 is all.
    """

    def __init__(
        self, every_n_steps: int = 100, dead_below: float = 0.01, collapse_below: float = 0.05
    ) -> None:
        super().__init__(every_n_steps)
        if not (0 < dead_below < 1 and 0 <= collapse_below < 1):
            raise ValueError(
                f"RoutingScalars: dead_below is {dead_below} and collapse_below {collapse_below};"
                " both are shares, dead_below above 0"
            )
        self.dead_below, self.collapse_below = dead_below, collapse_below
        self._warned: set[tuple] = set()
        self._laid_out: list[str] = []

    def show(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        stage: str,
        tallies: dict[str, Tally],
    ) -> None:
        config = pl_module.branch_config
        groups, whole = group_names(config), total(list(tallies.values()))
        values = scalars_of(tallies, groups, config.intra.used)
        sentences: list[str] = []
        if enough(whole, self.dead_below):
            health = health_of(whole, config.intra.used, self.dead_below, self.collapse_below)
            values |= {
                "router_health/dead_sub_experts": len(health.dead),
                "router_health/collapsed_routers": len(health.collapsed),
            }
            sentences = health.sentences(list(config.groups))
            if stage == "train":
                self._warn(
                    health,
                    list(config.groups),
                    f"(of the last {int(whole.images)} images)",
                    trainer.global_step,
                )
        points = {}
        for name, value in values.items():
            where, tag = name.split("/")
            points[f"{where}_{stage}/{tag}"] = value
        names = sorted({*self._laid_out, *tallies})
        for display in displays(trainer):
            display.curves(points, trainer.global_step)
            if stage == "train" and names != self._laid_out:  # TensorBoard takes the last layout
                display.charts(layout_of(names, stage, len(whole.inter)))
        if stage == "train":
            self._laid_out = names
        if sentences:
            for display in displays(trainer, TEXTS):
                display.text(
                    f"router_health_{stage}/warnings", "\n\n".join(sentences), trainer.global_step
                )

    def _warn(self, health: Health, groups: list[str], about: str, step: int) -> None:
        """Warns of what it has not warned of before."""
        new = replace(
            health,
            dead=[place for place in health.dead if place not in self._warned],
            collapsed=[place for place in health.collapsed if place not in self._warned],
        )
        self._warned |= {*health.dead, *health.collapsed}
        for sentence in new.sentences(groups):
            rank_zero_warn(f"step {step}: {sentence} {about}")
