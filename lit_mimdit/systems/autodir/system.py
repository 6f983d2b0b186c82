"""AutoDIR as a system that restores: one degradation after the other."""

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any, ClassVar

from torch import Tensor, nn

from lit_mimdit.inference.seeded_restorer import Draw, Progress, SeededRestorer
from lit_mimdit.inference.system_class import class_path_of
from lit_mimdit.models.padding import pad_to_multiple
from lit_mimdit.systems.autodir import official, sampler
from lit_mimdit.systems.autodir.sizes import Sizes
from lit_mimdit.systems.base import METRICS, VERSIONS, Losses, RestorationSystem, plain
from lit_mimdit.systems.official import only, unwrap


class AutoDIR(RestorationSystem):
    """AutoDIR, ECCV 2024: CLIP picks what a latent diffusion removes next.

    It restores and is not trained: the recipes of its first stages were never released. Build it
    from the authors' file with import-weights.

    Args:
        sizes: sizes of all four networks; the published ones unless given.
        steps: steps of the sampler for each degradation; 100 in the authors' script.
        text_guidance: how far the sentences are followed. 1 does without.
        image_guidance: how far the degraded image is followed. 1 does without.
        metrics: scores of `test` by key.
        versions: what validation and test score of each image.
        init: file of import-weights whose weights validate, test and predict take.
    """

    TRAINABLE: ClassVar[bool] = False

    def __init__(
        self,
        sizes: Sizes | None = None,
        steps: int = sampler.SAMPLING_STEPS,
        text_guidance: float = 1.0,
        image_guidance: float = 1.0,
        metrics: list[str] = METRICS,
        versions: list[str] = VERSIONS,
        init: str | None = None,
    ) -> None:
        super().__init__(None, metrics, versions, init)
        if steps < 1:
            raise ValueError(f"model.steps is {steps}: at least 1 is needed; the script takes 100")
        self.steps, self.guidance = steps, (text_guidance, image_guidance)
        self.network = (sizes or Sizes()).build().requires_grad_(False)

    @property
    def trained(self) -> nn.Module:
        return self.network

    def losses(self, batch: dict[str, Any]) -> Losses:
        raise ValueError("AutoDIR is not trained; use validate, test, predict or restore")

    @classmethod
    def from_official(cls, *files: Mapping[str, Any], **overrides: Any) -> "AutoDIR":
        """Returns the system with the weights of the authors' checkpoint.

        Args:
            files: content of `autodir.ckpt`, one file.
            overrides: `steps`, `text_guidance`, `image_guidance`, and what official.from_official
                takes.

        Raises:
            ValueError: the file is another system's, incomplete, or not the only one.
        """
        file = only(files, "AutoDIR")
        names = "steps", "text_guidance", "image_guidance"
        own = {name: overrides.pop(name) for name in names if name in overrides}
        network = official.from_official(file, **overrides)
        system = cls(official.sizes_of(unwrap(file), **overrides), **own)
        system.network.load_state_dict(network.state_dict())
        return system.eval()

    def restorer(self) -> SeededRestorer:
        kept = {
            name: plain(value)
            for name, value in self.arguments.items()
            if name not in self.TRAINING_ONLY
        }
        return SeededRestorer(
            self.network,
            self._restore,
            lambda height, width: sampler.ITERATIONS * self.steps,
            {"class_path": class_path_of(type(self))} | kept,
            {"steps": self.steps, "guidance": list(self.guidance)},
        )

    def _restore(self, image: Tensor, draw: Draw, progress: Progress, id: str | None) -> Tensor:
        net, (height, width) = self.network, image.shape[-2:]
        start = 2 * pad_to_multiple(image, net.multiple) - 1
        sides = (side // net.down for side in start.shape[-2:])
        like = start.new_empty(1, net.vae.config.latent_channels, *sides)
        drawn: list[Tensor] = []

        def replay() -> Iterator[Tensor]:
            for index in count():
                if index == len(drawn):
                    drawn.append(draw(like))
                yield drawn[index]

        def noises(number: int) -> tuple[Tensor, Iterator[Tensor]]:
            same = replay()  # every iteration has the same noise, as published
            return next(same), same

        result, left = start, sampler.ITERATIONS
        for done in sampler.restore(net, start, noises, self.steps, *self.guidance):
            result = done.result
            if done.decoded is not None:
                progress(self.steps)
                left -= 1
        if left:
            progress(left * self.steps)  # of the iterations that CLIP leaves out
        return ((result + 1) / 2)[..., :height, :width]
