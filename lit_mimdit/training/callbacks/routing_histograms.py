"""The routers' weights as histograms."""

import lightning as L
import numpy as np

from lit_mimdit.routing.tally import Tally, total
from lit_mimdit.training.callbacks.loggers import HISTOGRAMS, Histogram, displays
from lit_mimdit.training.callbacks.window import RoutingCallback, group_names


class RoutingHistograms(RoutingCallback):
    """Histograms of the images seen since the last look, or in a validation or test.

    Inter-MoE weights of every block and group: inter_moe_train/block_00_0_spatial, and by
    degradation inter_moe_train_01Blur/block_00_0_spatial. Intra-MoE gates (softmax, before the
    selection) of every sub-expert: intra_moe_train/block_00_0_spatial_expert_0. For validation and
    test: val, test instead of train.

    Args:
        every_n_steps: training steps between two histograms.
        by_degradation: whether those of each degradation are written, too.
    """

    def __init__(self, every_n_steps: int = 100, by_degradation: bool = True) -> None:
        super().__init__(every_n_steps)
        self.by_degradation = by_degradation

    def show(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        stage: str,
        tallies: dict[str, Tally],
    ) -> None:
        shown = displays(trainer, HISTOGRAMS)
        if not shown:
            return
        groups = group_names(pl_module.branch_config)
        whole = total(list(tallies.values()))
        parts = {f"inter_moe_{stage}": whole}
        if self.by_degradation:
            parts |= {f"inter_moe_{stage}_{name}": tally for name, tally in tallies.items()}
        histograms: dict[str, Histogram] = {}
        for name, tally in parts.items():
            for block, group in np.ndindex(tally.inter.shape):
                histograms[f"{name}/block_{block:02d}_{groups[group]}"] = Histogram(
                    tally.inter_histogram[block, group],
                    float(tally.inter[block, group]),
                    float(tally.inter_squares[block, group]),
                )
        for block, group, expert in np.ndindex(whole.gates.shape):
            tag = f"intra_moe_{stage}/block_{block:02d}_{groups[group]}_expert_{expert}"
            histograms[tag] = Histogram(
                whole.gates_histogram[block, group, expert],
                float(whole.gates[block, group, expert]),
                float(whole.gate_squares[block, group, expert]),
            )
        for display in shown:
            display.histograms(histograms, trainer.global_step)
