"""PromptIR as a system: trained on L1, restoring whole images or tiles of its demo."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from lit_mimdit.inference.pixel_restorer import PixelRestorer
from lit_mimdit.systems.base import METRICS, VERSIONS, Losses
from lit_mimdit.systems.official import only
from lit_mimdit.systems.optim import OptimizerConfig
from lit_mimdit.systems.pixel import PixelSystem, error_per_image
from lit_mimdit.systems.promptir import inference, objective, official
from lit_mimdit.systems.promptir.network import PromptIRNetwork

Merge = Literal["window", "mean"]


class PromptIR(PixelSystem):
    """PromptIR, NeurIPS 2023: Restormer's U-shape with learned prompts in the decoder.

    Args:
        dim: channels at full resolution.
        num_blocks: blocks of levels 1, 2, 3 and of the bottom.
        num_refinement_blocks: blocks after the decoder.
        heads: heads of the attention at each level.
        ffn_expansion_factor: hidden width of the feed-forward parts, as a multiple of their
            channels.
        norm_bias: whether the norms have a bias.
        prompt_dims: channels of the prompts of levels 1, 2, 3.
        prompt_len: number of maps that a prompt has.
        prompt_sizes: side of the prompts of levels 1, 2, 3.
        optimizer: settings of the optimizer and its schedule. Only training needs them.
        tile: side in pixels of the tiles that larger images are restored in. 0, as in the authors'
            test script, never cuts. Their demo has 128.
        overlap: pixels that neighbouring tiles share.
        merge: how tiles become one image: blended by a window, or their plain mean, as in the
            authors' demo.
        metrics: scores of `test` by key.
        versions: what validation and test score of each image.
        init: exported system or checkpoint to start from instead of fresh weights.
    """

    MULTIPLE: ClassVar[int] = inference.MULTIPLE
    IDLE: ClassVar[dict[int, int]] = {35_376_967: 215_296}
    network: PromptIRNetwork

    def __init__(
        self,
        dim: int = 48,
        num_blocks: tuple[int, ...] = (4, 6, 6, 8),
        num_refinement_blocks: int = 4,
        heads: tuple[int, ...] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        norm_bias: bool = True,
        prompt_dims: tuple[int, ...] = (64, 128, 320),
        prompt_len: int = 5,
        prompt_sizes: tuple[int, ...] = (64, 32, 16),
        optimizer: OptimizerConfig | None = None,
        tile: int = 0,
        overlap: int = 32,
        merge: Merge = "window",
        metrics: list[str] = METRICS,
        versions: list[str] = VERSIONS,
        init: str | None = None,
    ) -> None:
        super().__init__(optimizer, tile, overlap, metrics, versions, init)
        if merge not in ("window", "mean"):
            raise ValueError(f"model.merge is {merge!r}: tiles are merged by window or by mean")
        self.merge = merge
        self.network = PromptIRNetwork(
            dim=dim,
            num_blocks=num_blocks,
            num_refinement_blocks=num_refinement_blocks,
            heads=heads,
            ffn_expansion_factor=ffn_expansion_factor,
            norm_bias=norm_bias,
            prompt_dims=prompt_dims,
            prompt_len=prompt_len,
            prompt_sizes=prompt_sizes,
        )

    @classmethod
    def from_official(cls, *files: Mapping[str, Any], **overrides: Any) -> "PromptIR":
        """Returns the system with the weights of an author's file.

        Args:
            files: content of the checkpoint, one file.
            overrides: arguments of the official constructor that shapes do not tell, and `tile`,
                `overlap` and `merge` of this class, which the imported file keeps.

        Raises:
            ValueError: the file is another system's, incomplete, or not the only one.
        """
        file = only(files, "PromptIR")
        names = "tile", "overlap", "merge"
        own = {name: overrides.pop(name) for name in names if name in overrides}
        network = official.from_official(file, **overrides)
        system = cls(**network.sizes, **own)
        system.network = network
        return system

    def import_note(self) -> str | None:
        """Returns a line on prompts that still look like their random start, or None."""
        if not official.prompts_untrained(self.network):
            return None
        return (
            "the prompts of this file look untrained, as those of the released model.ckpt: the"
            " code behind it gave them no gradient (docs/systems/promptir.md)"
        )

    def restorer(self) -> PixelRestorer:
        blended = super().restorer()
        if self.merge == "window" or not self.tile:
            return blended
        return inference.MeanTiles(self.network, blended.about, self.tile, self.overlap)

    def losses(self, batch: dict[str, Any]) -> Losses:
        """Returns the mean absolute error."""
        error = error_per_image(self.restore(batch["lq"]), batch["gt"])
        return Losses(error.mean(), error, {"l1": error})

    def published_rate(self, epoch: int) -> float:
        """Warm-up over 15 epochs, then a cosine that ends at epoch 150; no epoch is lost."""
        return objective.learning_rate(epoch, lr=1.0, late=False)
