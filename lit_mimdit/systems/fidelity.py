"""The fidelity network as a system: it is trained behind a finished branch, on what that branch
makes of pairs while they come.
"""

from collections import deque
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lit_mimdit.inference.corrector import Corrector, load_corrector
from lit_mimdit.inference.fidelity_file import save_fidelity
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.restorer import Restorer
from lit_mimdit.inference.system_file import PACKAGE
from lit_mimdit.models.fidelity import Fidelity
from lit_mimdit.systems.base import METRICS, VERSIONS, Losses, RestorationSystem
from lit_mimdit.systems.blending import blend_with, require_share
from lit_mimdit.systems.optim import OptimizerConfig
from lit_mimdit.systems.pixel import error_per_image

EPSILON = 1e-3  # a quarter of an 8-bit step, below which an error does not count
KEPT = 16  # restored batches that steps are drawn from where each is used several times
IMAGES = ("lq", "gt", "restored")


class FidelitySystem(RestorationSystem):
    """The fidelity network behind a branch that restores each batch as it restores photographs.

    The loss is the mean of log(e + EPSILON). Of the error e itself dark images, whose light is
    guessed, would make up nearly all. The logarithm counts a tenth less error alike in an image
    that was nearly clean.

    Restoring a batch costs far more than learning from it. So each is used in `reuse` steps, in the
    company of others: those steps' images are drawn from the last KEPT batches.

    Args:
        output: file of the finished network (.safetensors). `null` writes none.
        branch: finished branch: a file, or `package`.
        widths: channels of the U-Net by level. Each level after the first halves the resolution.
        blocks: residual blocks on each level, before and after the coarser levels.
        gain: whether the network also has gains, one for each channel and pixel of the input.
        gradient_weight: weight of the L1 on horizontal and vertical differences.
        reuse: gradient steps that one optimizer step of the trainer takes, each with one restored
            batch.
        blend: share of the trained weights in the finished network's, in (0, 1]. The rest is those
            of `init`. Networks between the two keep more of what a short training did not teach
            (WiSE-FT, Wortsman et al., arXiv 2109.01903).
        optimizer: settings of the optimizer and its schedule. Only training needs them.
        metrics: scores of `test` by key.
        versions: what validation and test score of each image.
        init: file of a fidelity network to start from, of the same `widths` and `blocks`, or
            `package`. `null` makes a new one.
    """

    ENDS_AVERAGED: ClassVar[bool] = True
    TRAINING_ONLY: ClassVar[frozenset[str]] = RestorationSystem.TRAINING_ONLY | {
        "output",
        "gradient_weight",
        "reuse",
        "blend",
    }

    def __init__(
        self,
        output: str | None = None,
        branch: str = PACKAGE,
        widths: tuple[int, ...] = (20, 36, 54),
        blocks: int = 2,
        gradient_weight: float = 0.5,
        reuse: int = 1,
        blend: float = 1.0,
        optimizer: OptimizerConfig | None = None,
        metrics: list[str] = METRICS,
        versions: list[str] = VERSIONS,
        init: str | None = None,
        gain: bool = False,
    ) -> None:
        if reuse < 1:
            raise ValueError(
                f"model.reuse is {reuse}: a batch is used at least once; give 1 or more"
            )
        require_share(blend, init)
        super().__init__(optimizer, metrics, versions)
        self.output = output
        self.branch = branch
        self.reuse = reuse
        self.blend = blend
        self.gradient_weight = gradient_weight
        self.network = Fidelity(tuple(widths), blocks, gain)
        self.start: dict[str, Tensor] = {}
        if (start := load_corrector(init)) is not None:
            self._start_from(start, str(init))
        self.behind: Restorer | None = None
        self.kept: deque[dict[str, Tensor]] = deque(maxlen=KEPT if reuse > 1 else 1)

    def _start_from(self, start: Corrector, name: str) -> None:
        sizes = [net.sizes for net in (start.network, self.network)]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"model.init {name} has (widths, blocks, gain) {sizes[0]}, and the YAML says"
                f" {sizes[1]}: make them the same"
            )
        theirs = start.network.state_dict()
        own = self.network.state_dict()  # neither cleaner nor light
        self.start = {key: theirs[key] for key in own}
        self.network.load_state_dict(self.start)

    @property
    def trained(self) -> nn.Module:
        return self.network

    def configure_model(self) -> None:
        if self.behind is None:
            self.behind = load_restorer(self.branch, device=self.device)

    def restorer(self) -> Restorer:
        """Returns the branch with the network behind it."""
        assert self.behind is not None, "configure_model loads it"
        return self.behind.to(self.device).corrected_by(Corrector(self.network))

    def prepare_estimate(
        self, arguments: dict[str, Any], batch: dict[str, Any], gpu: bool, stage: int
    ) -> None:
        self.kept.append(batch | {"restored": batch["lq"]})

    def restored(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Returns the batch with what the branch makes of it, in float32 under any precision."""
        assert self.behind is not None, "configure_model loads it"
        with torch.autocast(self.device.type, enabled=False):
            branch = self.behind.to(self.device)
            restored, _ = branch(batch["lq"], batch["seed"].cpu(), ids=batch["id"])
        return batch | {"restored": restored.to(batch["lq"])}

    def on_train_batch_start(self, batch: dict[str, Any], index: int) -> None:
        batch = self.restored(batch)
        self.kept.append({name: batch[name] for name in IMAGES})

    def drawn(self) -> dict[str, Tensor]:
        """Draws as many images as a batch has, of all that are kept.

        Where each batch is used once, it is the batch as it is.
        """
        if len(self.kept) == 1:
            return self.kept[0]
        sizes = [len(batch["lq"]) for batch in self.kept]
        rows = torch.randperm(sum(sizes))[: sizes[-1]].to(self.device)
        return {name: torch.cat([batch[name] for batch in self.kept])[rows] for name in IMAGES}

    def optimizer_step(self, epoch: int, index: int, optimizer: Any, closure: Any = None) -> None:
        for _ in range(self.reuse):
            optimizer.step(closure=closure)

    # L = mean log(e + EPSILON)
    def losses(self, batch: dict[str, Any]) -> Losses:
        """Returns the logarithm of the error of images drawn from the last batches."""
        images = self.drawn() if self.kept else self.restored(batch)
        corrected = self.network(images["restored"], images["lq"])
        error = error_per_image(corrected, images["gt"], self.gradient_weight)
        return Losses((error + EPSILON).log().mean(), error, {"error": error})

    def on_fit_end(self) -> None:
        trainer: Any = self.trainer  # Lightning does not declare fast_dev_run
        if self.output is None or not trainer.is_global_zero or trainer.fast_dev_run:
            return
        self.write(Path(self.output))

    def write(self, path: Path) -> None:
        """Write the finished network's file, blended with the one that it started from."""
        blend_with(self.start, self.network, self.blend)
        save_fidelity(path, self.network)
