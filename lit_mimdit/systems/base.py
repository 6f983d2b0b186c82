"""What everything that restores has in common: one base class for `fit`, `validate`, `test`,
`predict`, checkpoints, export and records.

A system says three things and inherits the rest:

    losses(batch)   what it trains on
    restorer()      what turns degraded images into restored ones
    trained         the module that is averaged, saved and exported
"""

import inspect
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from lit_mimdit.data.image_io import ImageError
from lit_mimdit.evaluation.metrics import choose
from lit_mimdit.evaluation.scorer import Scorer
from lit_mimdit.evaluation.scores import ScoreTable, means
from lit_mimdit.inference.run_record import describe_run
from lit_mimdit.inference.system_file import (
    KEY,
    SystemFile,
    class_path_of,
    load_into,
    load_system,
    state_of,
    system_of_checkpoint,
)
from lit_mimdit.models.backbone import Identity
from lit_mimdit.models.mim import Decisions
from lit_mimdit.systems.optim import OptimizerConfig, configure

VERSIONS = ["degraded", "restored"]
METRICS = ["psnr", "ssim_y", "ssim_rgb"]
EVAL_SEED = 1  # added to the data seed, so that evaluation never reuses a training sample's noise
SEED_RULE = "of each image: its place in the data set and data.seed"


class ImageRestorer(Protocol):
    """Turns degraded images into restored ones, for any height and width."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    def __call__(
        self, lq: Tensor, seeds: Tensor, progress: Any = None, ids: Any = None
    ) -> tuple[Tensor, list[Decisions]]:
        """Degraded (B, 3, H, W) in [0, 1] and seeds (B,) -> restored images on the CPU, routing."""

    def evaluations(self, height: int, width: int) -> int:
        """Returns how often `progress` counts while one image of this size is restored."""

    def record(self) -> dict[str, Any]:
        """Returns everything that decides what a restored image looks like, as plain values."""


@dataclass
class Losses:
    """What a system computes for a training batch.

    Args:
        total: scalar that is minimised.
        per_sample: one value for each sample, (B,).
        terms: what `total` is made of, by name; those not finite are named when a run stops.
        routing: the routers' decisions; empty without routers.
        t: times of the samples in [0, 1], (B,), for systems that have them.
    """

    total: Tensor
    per_sample: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)
    routing: Decisions = ()
    t: Tensor | None = None


def plain(value: Any) -> Any:
    """Returns constructor arguments as values that JSON holds: dataclasses become dicts, tuples
    lists.

    AssertionError for anything else: a system's arguments must be readable from a file.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    assert value is None or isinstance(value, (bool, int, float, str)), type(value)
    return value


class RestorationSystem(L.LightningModule):
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

    strict_loading = False  # frozen keys are missing by design; on_load_checkpoint checks the rest
    arguments: dict[str, Any]  # of the constructor, as given
    size_source = "sizes of the configuration"  # where a dry run has them from
    identity: Identity | None = None  # of the frozen backbone, of systems that have one

    def __new__(cls, *args: Any, **kwargs: Any) -> "RestorationSystem":
        """Note the constructor's arguments, so that no system has to repeat them for its file."""
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
        """Where the names of the trained tensors begin in the whole system's names."""
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
        for name in ("backbone", "backbone_dtype", "prompt") if self.identity is not None else ():
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

    def configure_optimizers(self) -> dict[str, Any]:
        if not self.TRAINABLE:
            raise ValueError(
                f"{type(self).__name__} is not trained; use validate, test, predict or restore"
            )
        if self.optimizer_config is None:
            raise ValueError(
                "model.optimizer is missing, and training needs one; give at least"
                " model.init_args.optimizer.lr"
            )
        return configure(
            self.trained.named_parameters(),
            self.optimizer_config,
            self.trainer.estimated_stepping_batches,
            self.published_rate,
            self._steps_per_epoch(),
            self._share_of_time(),
        )

    def _share_of_time(self) -> Callable[[], float] | None:
        """What tells the part of the run's budget of time that is used up; None without one."""
        for callback in self.trainer.callbacks:
            if getattr(callback, "share_of_budget", None) is not None:
                return lambda: callback.share_of_budget
        return None

    def _steps_per_epoch(self) -> int | None:
        """Optimizer steps of an epoch; None where only the number of all steps is known."""
        if self.optimizer_config.schedule != "published":
            return None
        batches = self.trainer.num_training_batches
        if not isinstance(batches, int):
            return None
        return max(1, batches // self.trainer.accumulate_grad_batches)

    # -- evaluation: validation and test are the same

    def _start_table(self, metrics: list[str]) -> None:
        self.table = ScoreTable(self.versions, Scorer(metrics, self.device))

    def _evaluate(self, batch: dict[str, Any]) -> dict[str, Any]:
        restored, routing = self.restorer()(
            batch["lq"], batch["seed"].cpu() + EVAL_SEED, ids=batch["id"]
        )
        gt = batch["gt"].cpu()
        images = {"degraded": batch["lq"].cpu(), "restored": restored} | self.references(batch)
        for row, (id, degradation) in enumerate(
            zip(batch["id"], batch["degradation"], strict=True)
        ):
            shown = {version: images[version][row].cpu() for version in self.versions}
            self.table.add(id, degradation, gt[row], shown, batch["dataset"][row])
        return {"restored": restored, "routing": routing, "degradation": batch["degradation"]}

    def _record(self) -> dict[str, Any]:
        """How `test` restored, for its summary."""
        path = self.trainer.ckpt_path or self.init
        checkpoint = Path(path) if path and Path(path).is_file() else None
        return describe_run(self.restorer(), checkpoint, SEED_RULE)

    def _finish_table(self, stage: str) -> None:
        self.table.gather()
        crop = getattr(self.trainer.datamodule, "eval_crop", None)
        part = "full size" if crop is None else f"middle crop of {crop} px"
        run = self._record() if stage == "test" else None
        rule = f"{part}, RGB, 8 bits, no resize"
        self.summary = self.table.summary(image_rule=rule, restoration=run)
        for name, value in means(self.summary).items():
            self.log(
                f"{stage}/{name}", value, prog_bar=name == "psnr_restored", rank_zero_only=True
            )

    def on_validation_epoch_start(self) -> None:
        pixel = [metric.key for metric in choose(self.metrics) if metric.backend == "pixel"]
        self._start_table(pixel or ["psnr"])

    def validation_step(self, batch: dict[str, Any], index: int) -> dict[str, Any]:
        return self._evaluate(batch)

    def on_validation_epoch_end(self) -> None:
        self._finish_table("val")

    def on_test_epoch_start(self) -> None:
        self._start_table(self.metrics)

    def test_step(self, batch: dict[str, Any], index: int) -> dict[str, Any]:
        return self._evaluate(batch)

    def on_test_epoch_end(self) -> None:
        self._finish_table("test")

    def on_predict_epoch_start(self) -> None:
        self.broken: list[str] = []

    def predict_step(self, batch: Any, index: int) -> Tensor | None:
        """Returns the restored image (3, H, W) of a photograph, for the WriteRestored callback.

        A broken file does not cost the others: the run ends with an error that names it.
        """
        name, photo, seed = batch
        if isinstance(photo, ImageError):
            self.broken.append(str(photo))
            return None
        ids = [name.with_suffix("").as_posix()]
        restored, _ = self.restorer()(photo.rgb[None], torch.tensor([seed]), ids=ids)
        return restored[0]

    def on_predict_epoch_end(self) -> None:
        if self.broken:
            raise ImageError(f"not restored: {'; '.join(self.broken)}")

    # -- checkpoints: what is trained, alone

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Returns trained tensors only; a frozen backbone is named, not stored."""
        prefix = self.prefix
        return {f"{prefix}{name}": tensor for name, tensor in state_of(self.trained).items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the entries `lit_mimdit` and `rng` to those of Lightning.

        `lit_mimdit` describes the system as an exported file does, and adds `prefix`: how the names
        of its tensors begin in `state_dict`. `rng` is PyTorch's random state.
        """
        checkpoint[KEY] = self.system_file().description() | {"prefix": self.prefix}
        checkpoint["rng"] = torch.get_rng_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint fits; all but `fit` take averaged weights if there are any.

        `fit` resumes from the raw weights.
        """
        self.configure_model()
        file = system_of_checkpoint(checkpoint, "the checkpoint")
        own = class_path_of(type(self))
        if file.class_path != own:
            raise ValueError(
                f"the checkpoint is of {file.class_path} and the configuration of {own}; set"
                " model.class_path to the checkpoint's"
            )
        if self.identity is not None:
            self.identity.require(file.backbone, "the checkpoint")
        load_into(self.trained, file.tensors, "the checkpoint")
        if self.trainer.state.fn == TrainerFn.FITTING:
            # nothing of a step depends on it: every sample has its own seed
            torch.set_rng_state(checkpoint["rng"])
        else:
            prefix = self.prefix
            checkpoint["state_dict"] = {f"{prefix}{name}": t for name, t in file.tensors.items()}
