"""Solvers of second order at one network evaluation a step: they remember the step before.

    dpmpp_2m   DPM-Solver++(2M), Lu et al., arXiv 2211.01095, algorithm 2
    unipc      UniPC of order 2, B(h) = e^h - 1, Zhao et al., arXiv 2302.04867, algorithms 1 and 2

Both are diffusers', with its flow sigmas: alpha = 1 - t, sigma = t, and the clean latent that the
velocity foretells, x - t v. The last step, to t = 0, is of first order.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

Multistep = Literal["dpmpp_2m", "unipc"]
Velocity = Callable[[Tensor, float], Tensor]
BELOW_ONE = 1e-6  # at t = 1 the logarithm of alpha is infinite


class MultistepSolver:
    """Goes from time to time along one list of times, in order.

    Args:
        name: "dpmpp_2m" or "unipc".
        t: `steps` + 1 falling times in [0, 1].
    """

    def __init__(self, name: Multistep, t: list[float]) -> None:
        from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

        kind: Any = {"dpmpp_2m": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler}[
            name
        ]
        self.scheduler = kind(
            solver_order=2, prediction_type="flow_prediction", use_flow_sigmas=True
        )
        self.scheduler.set_timesteps(len(t) - 1)
        self.scheduler.set_begin_index(0)
        self.scheduler.sigmas = torch.tensor([min(t[0], 1.0 - BELOW_ONE), *t[1:]])
        self.after: Tensor | None = None

    def __call__(self, velocity: Velocity, x: Tensor, t: list[float]) -> Tensor:
        """Returns the latent at `t[1]` from `x` at `t[0]`; each call takes the next two times.

        Where `x` is not what the call before returned, the solver begins anew: what it remembers is
        of another path.
        """
        if x is not self.after:
            self.scheduler.lower_order_nums = 0
            self.scheduler.last_sample = None  # UniPC's corrector would replace x by it
        slope = velocity(x, t[0])
        step = self.scheduler.timesteps[0]  # not looked at: the scheduler counts its steps
        self.after = self.scheduler.step(slope, step, x, return_dict=False)[0]
        return self.after
