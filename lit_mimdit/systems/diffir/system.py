"""DiffIR as a system: two stages, each trained by a run of its own.

Stage 1 learns priors that know the clean image. Stage 2 learns to find them without it, first
alone (phase prior), then together with the image network (phase joint).
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from lit_mimdit.inference.pixel_restorer import tiled
from lit_mimdit.inference.seeded_restorer import Draw, Progress, SeededRestorer
from lit_mimdit.inference.system_class import class_path_of, load_into
from lit_mimdit.inference.system_file import load_system
from lit_mimdit.inference.tiling import boxes
from lit_mimdit.models.flow import sample_noise
from lit_mimdit.models.padding import pad_to_multiple
from lit_mimdit.models.restormer_network import MULTIPLE
from lit_mimdit.systems.base import METRICS, VERSIONS, Losses, RestorationSystem, plain
from lit_mimdit.systems.diffir import objective, official
from lit_mimdit.systems.diffir.network import FirstStage, PriorEncoder, SecondStage
from lit_mimdit.systems.diffir.sampler import generate, schedule_of
from lit_mimdit.systems.official import only
from lit_mimdit.systems.optim import OptimizerConfig
from lit_mimdit.systems.pixel import error_per_image

HIGHEST = max(objective.LEARNING_RATE, *objective.FIRST_MINIMA)  # stage 1's rate rises to it
ENCODER, RESTORER = "encoder.", "restorer."


class DiffIR(RestorationSystem):
    """DiffIR, ICCV 2023: a transformer steered by a vector that a short diffusion finds.

    Args:
        stage: stage of the training, 1 or 2. Stage 1 needs the clean image, so only stage 2
            restores.
        phase: phase of stage 2's training. `prior` trains the encoder and the denoiser alone.
            `joint` trains everything, and starts from the first phase's file, in `init`.
        first_stage: exported system or checkpoint of stage 1, which training stage 2 needs. Its
            encoder gives the targets, and its image network is where stage 2 starts.
        progressive: whether the published patches, 192 to 512 pixels, are cut from crops of 512
            pixels. Of a batch of 8 as many images are taken as the publication takes at that size.
        dim: channels at full resolution.
        num_blocks: blocks of the four levels.
        num_refinement_blocks: blocks after the finest level.
        heads: attention heads of the four levels.
        ffn_expansion_factor: hidden width of the feed-forward parts, as a multiple of their
            channels.
        bias: whether the convolutions have a bias.
        norm_bias: whether the norms have a bias.
        n_feats: features of the encoders. A prior has four times as many numbers.
        n_encoder_res: residual blocks of the encoders.
        n_denoise_res: dense layers of the denoiser after the first.
        timesteps: steps of the diffusion, in training and sampling.
        linear_start: variance of the first step.
        linear_end: variance of the last step.
        tile: side in pixels of the tiles that larger images are restored in, a multiple of 8. 0, as
            in the authors' test script, never cuts. Each tile has a prior of its own.
        overlap: pixels that neighbouring tiles share.
        optimizer: settings of the optimizer and its schedule. Only training needs them.
        metrics: scores of `test` by key.
        versions: what validation and test score of each image.
        init: exported system or checkpoint to start from instead of fresh weights.

    Raises:
        ValueError: the tiles do not fit, or stage 1 is given a file of stage 1.
    """

    TRAINING_ONLY: ClassVar[frozenset[str]] = RestorationSystem.TRAINING_ONLY | {
        "phase",
        "first_stage",
        "progressive",
    }

    def __init__(
        self,
        stage: Literal[1, 2] = 2,
        phase: Literal["prior", "joint"] = "joint",
        first_stage: str | None = None,
        progressive: bool = False,
        dim: int = 48,
        num_blocks: tuple[int, ...] = (3, 5, 6, 6),
        num_refinement_blocks: int = 4,
        heads: tuple[int, ...] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.0,
        bias: bool = False,
        norm_bias: bool = True,
        n_feats: int = 64,
        n_encoder_res: int = 5,
        n_denoise_res: int = 1,
        timesteps: int = 4,
        linear_start: float = 0.1,
        linear_end: float = 0.99,
        tile: int = 0,
        overlap: int = 64,
        optimizer: OptimizerConfig | None = None,
        metrics: list[str] = METRICS,
        versions: list[str] = VERSIONS,
        init: str | None = None,
    ) -> None:
        super().__init__(optimizer, metrics, versions, init)
        if tile and (tile % MULTIPLE or not 0 <= overlap < tile):
            raise ValueError(
                f"tile is {tile} and overlap {overlap} pixels: give a tile that is a multiple of"
                f" {MULTIPLE}, and an overlap from 0 to below it"
            )
        if stage == 1 and first_stage is not None:
            raise ValueError(
                f"model.stage is 1, but model.first_stage is {first_stage!r}, where stage 2 starts;"
                " set stage 2, or continue stage 1 with model.init"
            )
        self.stage = stage
        self.phase = phase
        self.first_stage = first_stage
        self.progressive = progressive
        self.tile = tile
        self.overlap = overlap
        sizes: dict[str, Any] = {
            "dim": dim,
            "num_blocks": num_blocks,
            "num_refinement_blocks": num_refinement_blocks,
            "heads": heads,
            "ffn_expansion_factor": ffn_expansion_factor,
            "bias": bias,
            "LayerNorm_type": "WithBias" if norm_bias else "BiasFree",
            "n_feats": n_feats,
            "n_encoder_res": n_encoder_res,
        }
        self.network: FirstStage | SecondStage
        self.target: PriorEncoder | None = None  # stage 1's encoder, frozen
        if stage == 1:
            self.network = FirstStage(**sizes)
            return
        self.network = SecondStage(
            **sizes,
            n_denoise_res=n_denoise_res,
            timesteps=timesteps,
            linear_start=linear_start,
            linear_end=linear_end,
        )
        self.schedule = schedule_of(self.network)  # ValueError if the arguments make none
        if first_stage is not None:
            self.target = PriorEncoder(2, n_feats, n_encoder_res).requires_grad_(False)
            self.network.restorer.requires_grad_(phase == "joint")
        self._first_stage_taken = False

    @classmethod
    def from_official(cls, *files: Mapping[str, Any], **overrides: Any) -> "DiffIR":
        """Returns the system with the weights of an author's file, of either stage.

        Args:
            files: content of the checkpoint, one file.
            overrides: arguments of the official constructor that shapes do not tell.

        Raises:
            ValueError: the file is another system's, incomplete, or not the only one.
        """
        file = only(files, "Each stage of DiffIR", "stage 2's file restores by itself")
        network = official.from_official(file, **overrides)
        system = cls(stage=1 if isinstance(network, FirstStage) else 2, **network.sizes)
        system.network = network
        return system

    @classmethod
    def estimated(cls, arguments: dict[str, Any], gpu: bool, stage: int) -> dict[str, Any]:
        """Returns a system without patches of its own, as `taken` tells their size."""
        return arguments | {"progressive": False}

    @classmethod
    def taken(cls, arguments: dict[str, Any], batch: int, crop: int) -> tuple[int, int]:
        """Returns the images and the side of the published phase with the most pixels."""
        if not arguments["progressive"]:
            return batch, crop
        return objective.largest_patches(batch, crop)

    @property
    def trained(self) -> nn.Module:
        return self.network

    def configure_model(self) -> None:
        """Take the weights of stage 1, then those of `init`, once."""
        if self.first_stage is not None and not self._first_stage_taken:
            self._first_stage_taken = True
            self._take_first_stage(self.first_stage)
        super().configure_model()

    def _take_first_stage(self, path: str) -> None:
        """Copies the encoder and the image network of stage 1.

        Raises:
            ValueError: the file is not of DiffIR's stage 1, or has other sizes.
        """
        assert self.target is not None, "who starts from stage 1 keeps its encoder"
        file, where = load_system(path), f"model.first_stage {path}"
        if file.class_path != class_path_of(type(self)) or file.arguments.get("stage") != 1:
            stage = file.arguments.get("stage")
            raise ValueError(
                f"{where}: holds {file.class_path} with stage {stage}, and stage 2 starts from"
                " DiffIR's stage 1; give the file that a run with model.stage 1 wrote"
            )
        for before, module in ((ENCODER, self.target), (RESTORER, self.network.restorer)):
            part = {
                name.removeprefix(before): value
                for name, value in file.tensors.items()
                if name.startswith(before)
            }
            load_into(module, part, where)

    # -- training

    def on_fit_start(self) -> None:
        """Raises ValueError for a run that could not end as it is configured."""
        if self.stage == 1 and self.trainer.enable_validation:
            raise ValueError(
                "model.stage is 1, which restores nothing without the clean image, so it cannot be"
                " validated; set trainer.limit_val_batches to 0"
            )
        config, end = self.optimizer_config, self.trainer.estimated_stepping_batches
        published = config is not None and config.schedule == "published"
        if self.stage == 1 and published and end > objective.FIRST_STEPS:
            raise ValueError(
                f"the run has {end} steps, and the published schedule of stage 1 ends at"
                f" {objective.FIRST_STEPS}; set trainer.max_steps, or another optimizer.schedule"
            )

    def published_rate(self, epoch: int) -> float:
        """Returns the factor of the highest rate at an iteration; here the schedule's unit is a
        step.

        Stage 1's highest rate is 2.85e-4, stage 2's 2e-4.
        """
        if self.stage == 1:
            return objective.first_stage_rate(epoch) / HIGHEST
        return objective.second_stage_rate(self._iteration(epoch), base=1.0)

    def _steps_per_epoch(self) -> int | None:
        return 1  # the publication counts iterations

    def _iteration(self, step: int) -> int:
        """The publication's count of iterations at a step of this run."""
        if self.stage == 2 and self.phase == "joint":
            return step + objective.PRIOR_ITERATIONS
        return step

    def training_step(self, batch: dict[str, Any], index: int) -> dict[str, Any]:
        if self.progressive:
            phases = objective.FIRST_PHASES if self.stage == 1 else objective.SECOND_PHASES
            batch = objective.cut_patches(batch, self._iteration(self.global_step), phases)
        return super().training_step(batch, index)

    def losses(self, batch: dict[str, Any]) -> Losses:
        """Stage 1: L1 of the image. Stage 2: L1 of the prior; in the joint phase of both."""
        lq, gt = batch["lq"], batch["gt"]
        if self.stage == 1:
            error = error_per_image(self.network(lq, gt)[0], gt)
            return Losses(error.mean(), error, {"pixel": error})
        if self.target is None:
            raise ValueError(
                "model.first_stage is missing, and stage 2 learns the priors of stage 1; give its"
                " file, or train it with model.stage 1"
            )
        assert isinstance(self.network, SecondStage), "stage 1 has returned"
        with torch.no_grad():
            target = self.target(lq, gt)
        noise, _ = sample_noise(batch["seed"].cpu(), tuple(target.shape[1:]))
        prior = objective.distilled_prior(self.network, lq, target, noise.to(target), self.schedule)
        apart = (prior - target).abs().mean(1)
        if self.phase == "prior":
            return Losses(apart.mean(), apart, {"prior": apart})
        pixel = error_per_image(self.network.restorer(lq, prior), gt)
        total = pixel + apart
        return Losses(total.mean(), total, {"pixel": pixel, "prior": apart})

    # -- restoring

    def restore_one(self, image: Tensor, draw: Draw, progress: Progress, id: str | None) -> Tensor:
        """Returns the restored image of one degraded image (1, 3, H, W), in tiles where large."""
        network, (height, width) = self.network, image.shape[-2:]
        assert isinstance(network, SecondStage), "stage 1 has no restorer"
        padded = pad_to_multiple(image, MULTIPLE)
        prior = image.new_empty(1, 4 * self.arguments["n_feats"])
        tile, overlap = self._tiling(*padded.shape[-2:])
        restored = tiled(
            padded,
            MULTIPLE,
            lambda part: generate(network, part, draw(prior)),
            progress,
            tile,
            overlap,
        )
        return restored[..., :height, :width]

    def _tiling(self, height: int, width: int) -> tuple[int, int]:
        """Side of the tiles and their overlap for a padded image of this size."""
        return (self.tile, self.overlap) if self.tile else (max(height, width), 0)

    def _tiles(self, height: int, width: int) -> int:
        tall, wide = (side + -side % MULTIPLE for side in (height, width))
        tile, overlap = self._tiling(tall, wide)
        return len(boxes(tall, wide, tile, overlap, MULTIPLE))

    def restorer(self) -> SeededRestorer:
        """Returns what restores with stage 2's weights; ValueError in stage 1."""
        if self.stage == 1:
            raise ValueError(
                "this is DiffIR's stage 1, which restores only an image whose clean version is"
                " known; train stage 2 from it, with model.stage 2 and this file as first_stage"
            )
        kept = {
            name: plain(value)
            for name, value in self.arguments.items()
            if name not in self.TRAINING_ONLY
        }
        return SeededRestorer(
            self.network,
            self.restore_one,
            self._tiles,
            {"class_path": class_path_of(type(self))} | kept,
            {"steps": self.network.timesteps, "tile": self.tile, "overlap": self.overlap},
        )
