"""The routers' weights as histograms in TensorBoard."""

import lightning as L
import numpy as np
from torch.utils.tensorboard import SummaryWriter

from lit_mimdit.routing.tally import BINS, Tally, total
from lit_mimdit.training.callbacks.loggers import say_without_tensorboard
from lit_mimdit.training.callbacks.tensorboard import writer_of
from lit_mimdit.training.callbacks.window import RoutingCallback, group_names


def write_histogram(
    writer: SummaryWriter, tag: str, counts: np.ndarray, sums: tuple[float, float], step: int
) -> None:
    """Counts (BINS,) over [0, 1] with the sums of the values and of their squares; all histograms
    share one axis.
    """
    limits = np.linspace(0, 1, BINS + 1)[1:].tolist()
    writer.add_histogram_raw(
        tag, 0.0, 1.0, float(counts.sum()), *sums, limits, counts.tolist(), step
    )


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
        writer = writer_of(trainer)
        step = trainer.global_step
        groups = group_names(pl_module.branch_config)
        if writer is None:
            say_without_tensorboard(trainer, "histograms")
            return
        whole = total(list(tallies.values()))
        parts = {f"inter_moe_{stage}": whole}
        if self.by_degradation:
            parts |= {f"inter_moe_{stage}_{name}": tally for name, tally in tallies.items()}
        for name, tally in parts.items():
            for block, group in np.ndindex(tally.inter.shape):
                sums = float(tally.inter[block, group]), float(tally.inter_squares[block, group])
                write_histogram(
                    writer,
                    f"{name}/block_{block:02d}_{groups[group]}",
                    tally.inter_histogram[block, group],
                    sums,
                    step,
                )
        for block, group, expert in np.ndindex(whole.gates.shape):
            sums = (
                float(whole.gates[block, group, expert]),
                float(whole.gate_squares[block, group, expert]),
            )
            tag = f"intra_moe_{stage}/block_{block:02d}_{groups[group]}_expert_{expert}"
            write_histogram(writer, tag, whole.gates_histogram[block, group, expert], sums, step)
