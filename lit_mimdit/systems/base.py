"""The base class of everything that restores.

It serves `fit`, `validate`, `test`, `predict`, checkpoints, export and records.

A system says three things and inherits the rest:

    losses(batch)   what it trains on
    restorer()      what turns degraded images into restored ones
    trained         the module that is averaged, saved and exported
"""

import inspect
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from lit_mimdit.evaluation.metrics import choose
from lit_mimdit.evaluation.scores import ScoreTable
from lit_mimdit.inference.system_class import CONTRACT, class_path_of, load_into, state_of
from lit_mimdit.inference.system_file import KEY, SystemFile, load_system, system_of_checkpoint
from lit_mimdit.models.backbone import Identity
from lit_mimdit.systems.answers import ImageRestorer, Losses, plain
from lit_mimdit.systems.evaluation_steps import EvaluationSteps
from lit_mimdit.systems.optim import OptimizerConfig, configure_for

if TYPE_CHECKING:
    from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig

VERSIONS = ["degraded", "restored"]
METRICS = ["psnr", "ssim_y", "ssim_rgb"]


class RestorationSystem(EvaluationSteps):
    """Base class of everything that restores.

    Args:
        optimizer: see OptimizerConfig; only training needs it.
        metrics: scores of `test` by key (`python -m lit_mimdit metrics` lists them); validation
            takes those without a network.
        versions: what validation and test score of each image: "restored" and, beside it,
            "degraded" and what else the system offers.
        init: exported system or checkpoint whose weights training starts from.
    """

    # constructor arguments that an exported file leaves out: restoring does not need them
    TRAINING_ONLY: ClassVar[frozenset[str]] = frozenset(
        {"optimizer", "metrics", "versions", "init"}
    )
    TRAINABLE: ClassVar[bool] = True  # False for what only restores
    VERSIONS: ClassVar[list[str]] = VERSIONS  # in the order of the table's columns

    # the system writes files of its own when `fit` ends: it then holds the averaged weights
    ENDS_AVERAGED: ClassVar[bool] = False

    # trained parameters of a published size: how many more the authors' network has, which act on
    # nothing and are not built
    IDLE: ClassVar[dict[int, int]] = {}

    strict_loading = False  # frozen keys are missing by design; on_load_checkpoint checks the rest
    arguments: dict[str, Any]  # of the constructor, as given
    size_source = "sizes of the configuration"  # where a dry run has them from
    identity: Identity | None = None  # of the frozen backbone, of systems that have one
    saved_bytes: int = 0  # by quantization, of which a system on the meta device has none yet

    def __new__(cls, *args: Any, **kwargs: Any) -> "RestorationSystem":
        """Note the constructor's arguments, so that no system has to repeat them for its file.

        Raises ValueError for a class that lacks one of the three things a system says.
        """
        lacks = [
            part for part in CONTRACT if getattr(cls, part) is getattr(RestorationSystem, part)
        ]
        if lacks:
            raise ValueError(
                f"{class_path_of(cls)} has no {lacks[0]}: a system says {', '.join(CONTRACT)}"
                " (lit_mimdit/systems/base.py); add it to the class"
            )
        system = super().__new__(cls)
        given = inspect.signature(cls.__init__).bind_partial(system, *args, **kwargs)
        given.apply_defaults()
        object.__setattr__(system, "arguments", dict(list(given.arguments.items())[1:]))
        return system

    def __init__(
        self,
        optimizer: OptimizerConfig | None = None,
        metrics: list[str] = METRICS,
        versions: list[str] = VERSIONS,
        init: str | None = None,
    ) -> None:
        super().__init__()
        self.optimizer_config, self.init = optimizer, init
        self.metrics = [metric.key for metric in choose(metrics, "model.metrics")]
        unknown = [version for version in versions if version not in self.VERSIONS]
        if unknown or "restored" not in versions:
            raise ValueError(
                f"model.versions are {versions}: restored must be among them, and"
                f" {type(self).__name__} knows {', '.join(self.VERSIONS)}"
            )
        self.versions = tuple(version for version in self.VERSIONS if version in versions)
        self.table: ScoreTable | None = None
        self.summary: dict[str, Any] | None = None
        self.terms: dict[str, Tensor] = {}  # of this step's loss, for FiniteGuard's message
        self._started = False

    # -- what a system says

    def losses(self, batch: dict[str, Any]) -> Losses:
        """Returns losses of a batch: gt, lq (B, 3, H, W) in [0, 1], seed (B,), id, degradation,
        dataset.
        """
        raise NotImplementedError

    def restorer(self) -> ImageRestorer:
        """Returns what restores with the present weights."""
        raise NotImplementedError

    @property
    def trained(self) -> nn.Module:
        """The module that is trained, averaged, saved and exported."""
        raise NotImplementedError

    # -- what a system may say

    def published_rate(self, epoch: int) -> float:
        """Returns the learning rate that the publication has in an epoch, counted from 0, at the
        highest of 1.

        It is used with optimizer.schedule: published. ValueError where nothing is published.
        """
        raise ValueError(
            f"model.optimizer.schedule is published, but {type(self).__name__} has no schedule of"
            " its own; choose constant or cosine"
        )

    def references(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Returns further versions of the batch's images (B, 3, H, W) that the table scores, by
        name.
        """
        return {}

    @property
    def prompt_text(self) -> str:
        """Text that the backbone was told in training; empty without one."""
        return ""

    def import_note(self) -> str | None:
        """Returns what whoever imports these weights should know of them, in one line, or None."""
        return None

    @classmethod
    def estimated(cls, arguments: dict[str, Any], gpu: bool, stage: int) -> dict[str, Any]:
        """Returns arguments of the system whose step stands for this one's in a dry run's estimate.

        A system whose work depends on values says here what it computes without them.

        Args:
            arguments: of the constructor.
            gpu: whether the device is one.
            stage: of ZeRO, or 0.
        """
        return arguments

    @classmethod
    def taken(cls, arguments: dict[str, Any], batch: int, crop: int) -> tuple[int, int]:
        """Returns the pairs and the side of the crops that a step computes with at the most.

        A system that cuts its own patches says here which are the largest.

        Args:
            arguments: of the constructor.
            batch: pairs that a device is given at once.
            crop: side of their crops in pixels.
        """
        return batch, crop

    def assemble_on_meta(self) -> None:
        """Complete the system on the meta device, where its weights would have to be loaded."""

    def prepare_estimate(
        self, arguments: dict[str, Any], batch: dict[str, Any], gpu: bool, stage: int
    ) -> None:
        """Make a system of `estimated` arguments compute as the one of `arguments` does.

        Args:
            arguments: of the system that is planned.
            batch: on which `losses` will be called, tensors without values.
            gpu: whether the device is one.
            stage: of ZeRO, or 0.
        """

    # -- building

    def configure_model(self) -> None:
        """Take the weights of `init`, once."""
        if self._started or self.init is None:
            return
        self._started = True
        file, where = load_system(self.init), f"model.init {self.init}"
        if self.identity is not None and file.backbone is not None:
            self.identity.require(file.backbone, where)
        load_into(self.trained, file.tensors, where)

    @property
    def prefix(self) -> str:
        """Returns where the names of the trained tensors begin in the whole system's names."""
        trained = self.trained
        name = next(name for name, module in self.named_modules() if module is trained)
        return f"{name}." if name else ""

    def system_file(self) -> SystemFile:
        """Returns everything that is kept of the system, with its present weights."""
        kept = {
            name: plain(value)
            for name, value in self.arguments.items()
            if name not in self.TRAINING_ONLY
        }
        own = ("backbone", "backbone_dtype", "backbone_quantize", "prompt")
        for name in own if self.identity is not None else ():
            kept.pop(name, None)  # the identity and the prompt have entries of their own
        sampling = kept.pop("sampling", None)
        return SystemFile(
            class_path_of(type(self)),
            kept,
            state_of(self.trained),
            self.identity,
            sampling,
            self.prompt_text,
        )

    # -- training

    def training_step(self, batch: dict[str, Any], index: int) -> dict[str, Any]:
        """Returns the loss of a batch.

        Callbacks find `per_sample` (B,), `t`, `routing` and `degradation` in the outputs, without
        gradients.
        """
        losses = self.losses(batch)
        size = len(losses.per_sample)
        self.terms = {name: term.detach() for name, term in losses.terms.items()}
        self.log("train/loss", losses.per_sample.mean(), prog_bar=True, batch_size=size)
        others = {
            f"train/{name}": term.float().mean()
            for name, term in losses.terms.items()
            if term is not losses.per_sample
        }
        self.log_dict(others, batch_size=size)
        return {
            "loss": losses.total,
            "per_sample": losses.per_sample.detach(),
            "t": None if losses.t is None else losses.t.detach(),
            "routing": tree_map_only(Tensor, Tensor.detach, losses.routing),
            "degradation": batch["degradation"],
        }

    def configure_optimizers(self) -> "OptimizerLRSchedulerConfig":
        if not self.TRAINABLE:
            raise ValueError(
                f"{type(self).__name__} is not trained; use validate, test, predict or restore"
            )
        if self.optimizer_config is None:
            raise ValueError(
                "model.optimizer is missing, and training needs one; give at least"
                " model.init_args.optimizer.lr"
            )
        return configure_for(
            self.trainer,
            self.trained.named_parameters(),
            self.optimizer_config,
            published_rate=self.published_rate,
            steps_per_epoch=self._steps_per_epoch(),
        )

    def _steps_per_epoch(self) -> int | None:
        """Optimizer steps of an epoch; None where only the number of all steps is known."""
        assert self.optimizer_config is not None, "configure_optimizers demands it"
        if self.optimizer_config.schedule != "published":
            return None
        batches = self.trainer.num_training_batches
        if not isinstance(batches, int):
            return None
        return max(1, batches // self.trainer.accumulate_grad_batches)

    # -- checkpoints: what is trained, alone

    # torch also returns a dict that it is given to fill; nothing gives one
    def state_dict(  # type: ignore[override]
        self, *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Returns trained tensors only; a frozen backbone is named, not stored."""
        prefix = self.prefix
        return {f"{prefix}{name}": tensor for name, tensor in state_of(self.trained).items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the entries `lit_mimdit` and `rng` to those of Lightning.

        `lit_mimdit` describes the system as an exported file does, and adds `prefix`: how the names
        of its tensors begin in `state_dict`. `run` is the class that was trained, where the
        exported file names another. `rng` is PyTorch's random state.
        """
        own = {"prefix": self.prefix, "run": class_path_of(type(self))}
        checkpoint[KEY] = self.system_file().description() | own
        checkpoint["rng"] = torch.get_rng_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint fits; all but `fit` take averaged weights if there are any.

        `fit` resumes from the raw weights.
        """
        self.configure_model()
        file = system_of_checkpoint(checkpoint, "the checkpoint", helpers=True)
        own, trained = class_path_of(type(self)), checkpoint[KEY].get("run", file.class_path)
        if trained != own:
            raise ValueError(
                f"the checkpoint is of {trained} and the configuration of {own}; set"
                " model.class_path to the checkpoint's"
            )
        if self.identity is not None:
            assert file.backbone is not None, "a system on a backbone names it in its checkpoint"
            self.identity.require(file.backbone, "the checkpoint")
            if (line := self.identity.change(file.backbone, "the checkpoint")) is not None:
                rank_zero_info(f"note: {line}")
        load_into(self.trained, file.tensors, "the checkpoint")
        if self.trainer.state.fn == TrainerFn.FITTING:
            # nothing of a step depends on it: every sample has its own seed
            torch.set_rng_state(checkpoint["rng"])
        else:
            prefix = self.prefix
            checkpoint["state_dict"] = {f"{prefix}{name}": t for name, t in file.tensors.items()}
