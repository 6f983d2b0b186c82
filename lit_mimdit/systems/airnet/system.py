"""AirNet as a system: its encoder learns by contrast first, then the whole network restores."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from lit_mimdit.systems.airnet import objective, official
from lit_mimdit.systems.airnet.network import AirNetNetwork
from lit_mimdit.systems.base import METRICS, VERSIONS, Losses
from lit_mimdit.systems.official import only
from lit_mimdit.systems.optim import OptimizerConfig
from lit_mimdit.systems.pixel import PixelSystem, error_per_image


class AirNet(PixelSystem):
    """AirNet, CVPR 2022: a residual network that features of the degraded image steer.

    Two crops of every training image are cut from the crop that the data module gives.

    Args:
        n_groups: groups of blocks.
        n_blocks: blocks of a group.
        n_feats: channels of the restoring network.
        enc: channels of the encoder at full, 1/2 and 1/4 resolution. The first equals n_feats.
        dim: length of an embedding.
        queue: number of earlier embeddings that a crop is compared with, published as 256 times the
            batch size 5.
        patch: side in pixels of the two crops.
        encoder_epochs: epochs at the start in which only the encoder learns.
        optimizer: settings of the optimizer and its schedule. Only training needs them.
        tile: side in pixels of the tiles that larger images are restored in. 0, as in the authors'
            test script, never cuts.
        overlap: pixels that neighbouring tiles share.
        metrics: scores of `test` by key.
        versions: what validation and test score of each image.
        init: exported system or checkpoint to start from instead of fresh weights.
    """

    TRAINING_ONLY = PixelSystem.TRAINING_ONLY | {"patch", "encoder_epochs"}
    network: AirNetNetwork

    def __init__(
        self,
        n_groups: int = 5,
        n_blocks: int = 5,
        n_feats: int = 64,
        enc: tuple[int, ...] = (64, 128, 256),
        dim: int = 256,
        queue: int = 1280,
        patch: int = objective.PATCH,
        encoder_epochs: int = objective.ENCODER_EPOCHS,
        optimizer: OptimizerConfig | None = None,
        tile: int = 0,
        overlap: int = 32,
        metrics: list[str] = METRICS,
        versions: list[str] = VERSIONS,
        init: str | None = None,
    ) -> None:
        super().__init__(optimizer, tile, overlap, metrics, versions, init)
        self.network = AirNetNetwork(n_groups, n_blocks, n_feats, enc, dim, queue)
        self.patch, self.encoder_epochs = patch, encoder_epochs
        self._keys: list[Tensor] = []  # of the batches since the optimizer's last step

    @classmethod
    def from_official(cls, *files: Mapping[str, Any], **overrides: Any) -> "AirNet":
        """Returns the system with the weights of an author's file.

        Args:
            files: content of the checkpoint, one file.
            overrides: sizes under the names of `official.PUBLISHED`.

        Raises:
            ValueError: the file is another system's, incomplete, or not the only one.
        """
        file = only(files, "AirNet")
        network = official.from_official(file, **overrides)
        system = cls(**network.sizes)
        system.network = network
        return system

    @classmethod
    def estimated(cls, arguments: dict[str, Any], gpu: bool, stage: int) -> dict[str, Any]:
        """Returns the second stage, which needs more memory than the first."""
        return arguments | {"encoder_epochs": 0}

    def losses(self, batch: dict[str, Any]) -> Losses:
        """Returns the cross entropy of the contrast, in the second stage a tenth of it and L1 of a
        crop.
        """
        contrast, seeds = self.network.contrast, batch["seed"]
        contrast.demand_even(len(seeds) * self._batches_of_a_step())
        query, key = objective.cut_pair(batch["lq"], self.patch, seeds)
        logits, features, keys = contrast.compare(query, key)
        self._keys.append(keys)
        entropy = objective.contrastive_per_image(logits)
        if self.current_epoch < self.encoder_epochs:
            return Losses(entropy.mean(), entropy, {"contrast": entropy})
        clean, _ = objective.cut_pair(batch["gt"], self.patch, seeds)
        l1 = error_per_image(self.network.restorer(query, features), clean)
        total = l1 + objective.CONTRAST * entropy
        return Losses(total.mean(), total, {"l1": l1, "contrast": entropy})

    def _batches_of_a_step(self) -> int:
        """Batches of all processes that one step of the optimizer takes."""
        if self._trainer is None:
            return 1
        return self.trainer.world_size * self.trainer.accumulate_grad_batches

    # The published code moves the key encoder before each use. Here it moves after each step, when
    # both encoders have been checked: a step that is not finite leaves it as it was.
    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then let the key encoder follow and the queue take the keys of all processes."""
        super().optimizer_step(*args, **kwargs)
        keys, self._keys = torch.cat(self._keys), []
        gathered = cast(Tensor, self.all_gather(keys))
        self.network.contrast.enqueue(gathered.reshape(-1, keys.shape[-1]))
        self.network.contrast.follow()

    def published_rate(self, epoch: int) -> float:
        """Returns the rate at 1 up to epoch 60, then a tenth, and halves of it in the second
        stage.
        """
        return objective.learning_rate(epoch, 1.0, self.encoder_epochs)
