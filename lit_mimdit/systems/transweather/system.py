"""TransWeather as a system: trained on smooth L1 and VGG16's features."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from lit_mimdit.inference.pixel_restorer import PixelRestorer
from lit_mimdit.systems.base import METRICS, VERSIONS, Losses
from lit_mimdit.systems.official import only, switch
from lit_mimdit.systems.optim import OptimizerConfig
from lit_mimdit.systems.pixel import PixelSystem
from lit_mimdit.systems.transweather import inference, objective, official
from lit_mimdit.systems.transweather.network import TransWeatherNetwork
from lit_mimdit.systems.vgg import VGGFeatures, pretrained


class TransWeather(PixelSystem):
    """TransWeather, CVPR 2022: a pyramid of transformers and learned weather queries.

    Crops below 48 pixels are padded in training as images are in restoring.

    Args:
        embed_dims: channels of the encoder's four levels.
        tail: channels of the tail at 1/2 and full resolution.
        enc_heads: heads of the encoder's levels.
        dec_heads: heads of the decoder.
        queries: number of learned weather queries of a block.
        decoder: whether there is a decoder. Without it, the network is the published
            `Transweather_base`.
        perceptual: weight of the perceptual term. Above 0, training needs the file of VGG16.
        resize: whether to restore at the size of the authors' test. Its longer side is at most 1024
            and its sides are multiples of 16. The result has the size of the input again.
        optimizer: settings of the optimizer and its schedule. Only training needs them.
        tile: side in pixels of the tiles that larger images are restored in. 0 never cuts. The
            authors' test never cuts, and shrinks images above 1024 pixels.
        overlap: pixels that neighbouring tiles share.
        metrics: scores of `test` by key.
        versions: what validation and test score of each image.
        init: exported system or checkpoint to start from instead of fresh weights.
    """

    MULTIPLE: ClassVar[int] = inference.MULTIPLE
    TRAINING_ONLY = PixelSystem.TRAINING_ONLY | {"perceptual"}
    IDLE: ClassVar[dict[int, int]] = {37_755_411: 296_667, 21_606_419: 296_667}
    network: TransWeatherNetwork

    def __init__(
        self,
        embed_dims: tuple[int, ...] = (64, 128, 320, 512),
        tail: tuple[int, ...] = (16, 8),
        enc_heads: tuple[int, ...] = (1, 2, 4, 4),
        dec_heads: int = 8,
        queries: int = 48,
        decoder: bool = True,
        perceptual: float = objective.PERCEPTUAL,
        resize: bool = False,
        optimizer: OptimizerConfig | None = None,
        tile: int = 0,
        overlap: int = 32,
        metrics: list[str] = METRICS,
        versions: list[str] = VERSIONS,
        init: str | None = None,
    ) -> None:
        super().__init__(optimizer, tile, overlap, metrics, versions, init)
        self.network = TransWeatherNetwork(embed_dims, tail, enc_heads, dec_heads, queries, decoder)
        self.perceptual, self.resize = perceptual, resize
        self.features: VGGFeatures | None = None  # only training has it

    @classmethod
    def from_official(cls, *files: Mapping[str, Any], **overrides: Any) -> "TransWeather":
        """Returns the system with the weights of an author's file.

        Args:
            files: content of the checkpoint, one file; its names tell whether there is a decoder.
            overrides: enc_heads and dec_heads, which shapes do not tell, and `resize` of this
                class, which the imported file keeps.

        Raises:
            ValueError: the file is another system's, incomplete, or not the only one; or `resize`
                is neither true nor false.
        """
        file = only(files, "TransWeather")
        purpose = "restore at the size of the authors' test"
        resize = switch(overrides, "resize", "TransWeather", purpose)
        network = official.from_official(file, **overrides)
        system = cls(**network.sizes, resize=resize)
        system.network = network
        return system

    def setup(self, stage: str) -> None:
        """Load VGG16 for training; ValueError if its file is missing."""
        if stage == "fit" and self.perceptual and self.features is None:
            self.features = pretrained()

    def prepare_estimate(
        self, arguments: dict[str, Any], batch: dict[str, Any], gpu: bool, stage: int
    ) -> None:
        """Let a dry run count VGG16 without its file."""
        if self.perceptual:
            self.features = VGGFeatures()

    def restorer(self) -> PixelRestorer:
        plain = super().restorer()
        if not self.resize:
            return plain
        parts = plain.network, plain.restore, plain.multiple, plain.about
        return inference.ResizedRestorer(*parts, plain.tile, plain.overlap)

    def restore(self, lq: Tensor) -> Tensor:
        return inference.restored(self.network, lq)

    def losses(self, batch: dict[str, Any]) -> Losses:
        """Smooth L1, and the perceptual term by its weight."""
        # branches are dropped at random: the seed of the first sample decides, so that a run that
        # is resumed drops the same ones
        with torch.random.fork_rng():
            torch.manual_seed(batch["seed"].tolist()[0])
            restored = self.restore(batch["lq"])
        smooth = objective.smooth_l1_per_image(restored, batch["gt"])
        terms = {"smooth_l1": smooth}
        if self.perceptual:
            assert self.features is not None, "setup comes before training"
            terms["perceptual"] = objective.perceptual_per_image(
                restored, batch["gt"], self.features
            )
            smooth = smooth + self.perceptual * terms["perceptual"]
        return Losses(smooth.mean(), smooth, terms)

    def published_rate(self, epoch: int) -> float:
        """Halved every 100 epochs."""
        return objective.learning_rate(epoch, 1.0)
