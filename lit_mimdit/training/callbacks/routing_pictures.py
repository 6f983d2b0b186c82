"""Routing is shown as pictures.

They are heat maps by degradation, table 6 beside the published one, and the use of the sub-experts.
"""

import lightning as L
import numpy as np

from lit_mimdit.evaluation.figures import pixels
from lit_mimdit.routing.choice_pictures import share_map
from lit_mimdit.routing.pictures import heat_map, table_picture
from lit_mimdit.routing.table6 import PAPER_GROUPS, TYPES, read_table6
from lit_mimdit.routing.tally import Tally, total
from lit_mimdit.training.callbacks.loggers import PICTURES, displays, show_picture
from lit_mimdit.training.callbacks.window import RoutingCallback


def tables_of(tallies: dict[str, Tally], groups: list[str]) -> dict[str, np.ndarray]:
    """Table 6 of a run (5, G), NaN for a degradation that no image had; the published one first if
    the groups are the paper's.
    """
    empty = np.full(len(groups), np.nan)
    own = np.stack(
        [
            tallies[folder].mean_inter.mean(0) if folder in tallies else empty
            for folder in TYPES.values()
        ]
    )
    return ({"published": read_table6()} if groups == PAPER_GROUPS else {}) | {"this run": own}


class RoutingPictures(RoutingCallback):
    """Draws pictures of the routing of the images since the last look.

    Validation and test have pictures of their own (val, test instead of train).

    routing_train/table_6 shows the mean Inter weights of the paper's five degradations, as far as
    there were images of them. The published ones stand beside them. routing_train/sub_expert_shares
    shows which share of the images each sub-expert worked on.
    routing_train_by_degradation/01Blur, ... show mean Inter weights, block by group.

    Args:
        every_n_steps: training steps between two pictures. Drawing takes as long as a few steps of
            a small model.
        dead_below: sub-experts that a smaller share of the images chose are crossed out.
    """

    def __init__(self, every_n_steps: int = 500, dead_below: float = 0.01) -> None:
        super().__init__(every_n_steps)
        if not 0 < dead_below < 1:
            raise ValueError(
                f"RoutingPictures: dead_below is {dead_below}; it is a share between 0 and 1"
            )
        self.dead_below = dead_below

    def show(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        stage: str,
        tallies: dict[str, Tally],
    ) -> None:
        step, groups = trainer.global_step, list(pl_module.branch_config.groups)
        if not displays(trainer, PICTURES):  # drawing takes long
            return
        whole = total(list(tallies.values()))
        about = f"{stage}, step {step}"
        pictures = {
            f"routing_{stage}/sub_expert_shares": share_map(
                whole.shares, groups, self._title(about, whole), self.dead_below
            )
        }
        tables = tables_of(tallies, groups)
        if not np.isnan(tables["this run"]).all():
            pictures[f"routing_{stage}/table_6"] = table_picture(
                tables, list(TYPES), groups, f"Table 6: {about}"
            )
        for name, tally in tallies.items():
            pictures[f"routing_{stage}_by_degradation/{name}"] = heat_map(
                tally.mean_inter, groups, self._title(f"{name}, {about}", tally)
            )
        for tag, figure in pictures.items():
            show_picture(trainer, tag, pixels(figure), step)

    @staticmethod
    def _title(about: str, tally: Tally) -> str:
        return f"{about}, {int(tally.images)} images"
