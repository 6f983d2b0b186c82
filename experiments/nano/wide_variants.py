"""Variants of the fidelity network that wide_on_gpu.py trains, and what of experiments/LOG.md they
ask.

    relative, relative_deep  e / (e_lq + FLOOR), smooth near zero: leaves the identity, and does
                             not yet act on haze and darkness. Was it the number of crops?
    harm, harm_deep          the same and HARM max(0, e - e_lq) / (e_lq + FLOOR): does a cost for
                             harm buy clean images without holding back the rest?
    l1                       mean |d|: acts on haze and darkness, harms what was clean
    l1_harm_deep             mean e, smooth near zero, and HARM max(0, e - e_lq): help counts less
                             than harm

Those called deep have a fourth level: 1.7 M parameters become 3.0 M. Crops of 128 px and the scene
statistics show more of the scene, where haze and darkness are judged. A fifth of the crops is
dimmed first, twice as many as before: PolyU's dim rooms were lit up. The grain of the full image,
which tells a dark scene from a scene in the dark, is what every network sees.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_mimdit.evaluation.pixel import eight_bit
from lit_mimdit.inference.fidelity_file import read_fidelity
from lit_mimdit.models.fidelity import Fidelity
from lit_mimdit.nano.charbonnier import charbonnier_per_image

FLOOR, SMOOTH, HARM = 0.1, 0.02, 4.0
THREE, FOUR = (32, 64, 128), (32, 64, 128, 128)
DECAY = 0.999  # of the average


@dataclass(frozen=True)
class Variant:
    """A network and its loss.

    Args:
        name: of its file.
        widths: see SceneUNet.
        relative: whether the error is weighed by 1 / (e_lq + FLOOR).
        smooth: error of a pixel below which it counts by its square.
        harm: weight of what is worse than the input.
    """

    name: str
    widths: tuple[int, ...]
    relative: bool = True
    smooth: float = SMOOTH
    harm: float = 0.0


VARIANTS = (
    Variant("relative", THREE),
    Variant("harm", THREE, harm=HARM),
    Variant("l1", THREE, relative=False, smooth=0.0),
    Variant("relative_deep", FOUR),
    Variant("harm_deep", FOUR, harm=HARM),
    Variant("l1_harm_deep", FOUR, relative=False, harm=HARM),
)
TINY = (Variant("relative", (8, 8)), Variant("l1_harm", (8, 8), False, harm=HARM))


# L = mean w (e + h max(0, e - e_lq)), w = 1 / (e_lq + floor) or 1; e: see charbonnier_per_image
def loss_of(variant: Variant, output: Tensor, lq: Tensor, gt: Tensor) -> Tensor:
    """Returns the loss of a batch."""
    after, before = (charbonnier_per_image(image - gt, variant.smooth) for image in (output, lq))
    cost = after + variant.harm * (after - before).clamp_min(0)
    return (cost / (before + FLOOR)).mean() if variant.relative else cost.mean()


class Training:
    """A variant's network, its average and its optimizer."""

    def __init__(self, variant: Variant, device: torch.device, init: Path | None) -> None:
        torch.manual_seed(0)
        self.variant, self.device = variant, device
        self.updates = self.recent = 0  # in all, and of this run
        network = Fidelity(variant.widths, 2, gain=True)
        if init is not None and (file := init / f"{variant.name}.safetensors").is_file():
            network.load_state_dict(read_fidelity(file).state_dict())
        self.network = network.to(device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.network.parameters(), fused=device.type == "cuda")
        self.loss = torch.zeros((), device=device)  # an average of this run

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16)

    def step(self, lq: Tensor, gt: Tensor, rate: float) -> None:
        """One update at a learning rate; nothing here waits for the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with self.autocast():
            output = self.network(lq, lq)
        loss = loss_of(self.variant, output, lq, gt)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        decay = min(DECAY, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        self.recent += 1
        parameters = [parameter.detach() for parameter in self.network.parameters()]
        torch._foreach_lerp_(list(self.average.parameters()), parameters, 1 - decay)
        self.loss.lerp_(loss.detach(), max(0.02, 1 / self.recent))

    @torch.no_grad()
    def restored(self, lq: Tensor) -> Tensor:
        """What the average makes of (B, 3, H, W), as 8 bits show it."""
        with self.autocast():
            return eight_bit(self.average(lq, lq))

    def state(self) -> dict[str, Any]:
        parts = {name: getattr(self, name) for name in ("network", "average", "optimizer")}
        return {"updates": self.updates} | {name: x.state_dict() for name, x in parts.items()}

    def load(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        for name in ("network", "average", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
