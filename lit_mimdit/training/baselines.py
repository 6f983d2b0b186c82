"""The experiment with another system's branch in MiM's place:

everything else is the same, file for file.
"""

from typing import Any

from lit_mimdit.baselines.controlnet import ControlNetConfig
from lit_mimdit.training.module import MiMDiTModule


class ControlNetModule(MiMDiTModule):
    """A ControlNet on the frozen backbone for `fit`, `validate`, `test` and `predict`; routing
    callbacks have nothing to show.

    Args:
        branch: see ControlNetConfig.
        options: as MiMDiTModule's; there are no routers to balance.
    """

    def __init__(self, branch: ControlNetConfig, **options: Any) -> None:
        super().__init__(branch=branch, balance=None, **options)
