"""The experiment:

a MiM-DiT network, its objective and its evaluation, for Lightning's Trainer. No maths here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map_only

from lit_mimdit.baselines.networks import build_network
from lit_mimdit.data.image_io import ImageError
from lit_mimdit.evaluation.metrics import choose
from lit_mimdit.evaluation.scorer import Scorer
from lit_mimdit.evaluation.scores import ScoreTable, means
from lit_mimdit.inference.corrector import load_corrector
from lit_mimdit.inference.restorer import Restorer
from lit_mimdit.inference.run_record import describe_run
from lit_mimdit.inference.sampler import SamplingConfig
from lit_mimdit.models.backbone import Backbone, Identity, load_backbone
from lit_mimdit.models.balance import load_balance_loss, z_loss
from lit_mimdit.models.latents import encode
from lit_mimdit.models.mim import BranchConfig, Decisions
from lit_mimdit.models.network import ConditionedBackbone
from lit_mimdit.models.prompts import PromptConfig, Prompts
from lit_mimdit.training.checkpoint import (
    BRANCH,
    KEY,
    branch_of_checkpoint,
    describe,
    load_branch,
    load_into,
    trained_state,
)
from lit_mimdit.training.flow import (
    FlowConfig,
    interpolate,
    loss_per_sample,
    sample_noise,
    sample_times,
    velocity,
)
from lit_mimdit.training.latents import require_same_vae
from lit_mimdit.training.optim import OptimizerConfig, configure

Version = Literal["degraded", "restored", "vae_round_trip"]
VERSIONS: list[Version] = ["degraded", "restored", "vae_round_trip"]
METRICS = ["psnr", "ssim_y", "ssim_rgb"]
EVAL_SEED = 1  # added to the data seed, so that evaluation never reuses a training sample's noise


@dataclass
class BalanceConfig:
    """Weights of the routers' auxiliary losses; the paper has none.

    Args:
        load: of the load-balance loss of the Intra routers.
        z: of the z-loss of all routers.
    """

    load: float = 0.0
    z: float = 0.0

    def __post_init__(self) -> None:
        if min(self.load, self.z) < 0:
            raise ValueError(
                f"balance.load is {self.load} and balance.z {self.z}: both must be 0 or more"
            )


def balance_losses(routing: Decisions) -> tuple[Tensor, Tensor]:
    """Means over all routers:

    load balance of the Intra routers, z-loss of Inter and Intra routers.
    """
    intra = [router for mim in routing for router in mim.intra]
    every = intra + [mim.inter for mim in routing]
    return (
        torch.stack([load_balance_loss(r) for r in intra]).mean(),
        torch.stack([z_loss(r) for r in every]).mean(),
    )


class MiMDiTModule(L.LightningModule):
    """MiM-DiT for `fit`, `validate`, `test` and `predict`.

    Args:
        backbone: "nano", a diffusers folder of SD3.5, or a hub id.
        branch: see BranchConfig.
        optimizer: see OptimizerConfig.
        flow: see FlowConfig.
        sampling: how validation, test and predict restore; also the exported branch's default.
        balance: see BalanceConfig.
        prompt: see PromptConfig; the empty prompt unless given.
        fidelity: network that corrects what validation, test and predict restore: a file,
            "package", or null, as in the paper.
        fidelity_weight: of its correction, from 0 to 1.
        backbone_dtype: precision the frozen weights are kept in.
        init: exported branch or checkpoint to start from instead of fresh weights.
        gradient_checkpointing: recompute the backbone's activations in the backward pass (less
            memory, one more forward).
        metrics: scores of `test` by key (`python -m lit_mimdit metrics` lists them); validation
            takes those without a network.
        versions: what validation and test score of each image: "restored", beside it "degraded" and
            "vae_round_trip" (the best a latent could give). A study of many runs need not score
            again what no training changes.
        attention: training's kernel: "auto" leaves the choice to PyTorch; "math" is faster on CPUs
            in bfloat16 at few tokens (benchmarks/attention.py).
    """

    strict_loading = (
        False  # the frozen keys are missing by design; on_load_checkpoint checks the others
    )

    def __init__(
        self,
        backbone: str,
        branch: BranchConfig,
        optimizer: OptimizerConfig,
        flow: FlowConfig,
        sampling: SamplingConfig,
        balance: BalanceConfig | None = None,
        backbone_dtype: Literal["float32", "bfloat16"] = "float32",
        init: str | None = None,
        gradient_checkpointing: bool = False,
        attention: Literal["auto", "math"] = "auto",
        metrics: list[str] = METRICS,
        prompt: PromptConfig | None = None,
        fidelity: str | None = None,
        fidelity_weight: float = 1.0,
        versions: list[Version] = VERSIONS,
    ) -> None:
        super().__init__()
        self.backbone_name, self.branch_config, self.optimizer_config = backbone, branch, optimizer
        self.flow, self.sampling, self.balance = flow, sampling, balance or BalanceConfig()
        self.prompt, self.corrector = (
            prompt or PromptConfig(),
            load_corrector(fidelity, fidelity_weight),
        )
        self.backbone_dtype, self.init, self.gradient_checkpointing = (
            getattr(torch, backbone_dtype),
            init,
            gradient_checkpointing,
        )
        self.kernels = (
            [SDPBackend.MATH] if attention == "math" else list(SDPBackend.__members__.values())[1:]
        )
        self.network: ConditionedBackbone | None = None
        self.identity: Identity | None = None
        self.metrics = [metric.key for metric in choose(metrics, "model.metrics")]
        if "restored" not in versions:
            raise ValueError(f"model.versions are {versions}: restored must be among them")
        self.versions = tuple(version for version in VERSIONS if version in versions)
        self.table: ScoreTable | None = None
        self.summary: dict[str, Any] | None = None
        self.terms: dict[
            str, Tensor
        ] = {}  # of this step's loss, by name: for FiniteGuard's message

    def configure_model(self) -> None:
        if self.network is None:
            self.assemble(load_backbone(self.backbone_name, self.backbone_dtype))

    def assemble(self, loaded: Backbone) -> None:
        """Put the network together around a backbone."""
        self.identity, self.vae, self.scheduler = loaded.identity, loaded.vae, loaded.scheduler
        self.prompts = Prompts(
            self.prompt, self.backbone_name, loaded.where, loaded.transformer, loaded.prompt
        )
        self.network = build_network(loaded.transformer, self.branch_config, loaded.prompt)
        if self.gradient_checkpointing:
            self.network.enable_gradient_checkpointing()
        if self.init is not None:
            file = load_branch(self.init)
            self.identity.require(file.backbone, f"model.init {self.init}")
            load_into(self.network.branch, file.tensors, f"model.init {self.init}")
        self.restorer = Restorer(
            self.network,
            self.vae,
            self.scheduler,
            self.sampling,
            self.identity,
            self.prompts,
            self.corrector,
        )

    def train(self, mode: bool = True) -> "MiMDiTModule":
        super().train(mode)
        if self.network is not None:
            self.vae.eval()
        return self

    # -- training

    def training_step(self, batch: dict[str, Any], index: int) -> dict[str, Any]:
        """Loss of a batch; callbacks find `per_sample` (B,), `t` (B,), `routing` and `degradation`
        in the outputs, without gradients.
        """
        with sdpa_kernel(self.kernels):
            z_gt, z_lq = self._latents(batch)
            noise, normal = sample_noise(batch["seed"].cpu(), tuple(z_gt.shape[1:]))
            noise, t = noise.to(z_gt), sample_times(normal, self.flow).to(z_gt.device)
            prompt = self.prompts.of_training(batch["id"], batch["seed"]).to(z_gt.device)
            condition = self.network.condition(z_lq, prompt)
            predicted = self.network(interpolate(z_gt, noise, t), t, condition, prompt)
        per_sample = loss_per_sample(predicted, velocity(z_gt, noise), t, self.flow.weighting)
        loss, size = per_sample.mean(), len(per_sample)
        self.terms = {"velocity": per_sample.detach()}
        self.log("train/loss", loss, prog_bar=True, batch_size=size)
        if self.balance.load or self.balance.z:
            load, z = balance_losses(condition.routing)
            self.log_dict({"train/load_balance": load, "train/z": z}, batch_size=size)
            self.terms |= {"load_balance": load.detach(), "z": z.detach()}
            loss = loss + self.balance.load * load + self.balance.z * z
        routing = tree_map_only(Tensor, Tensor.detach, condition.routing)
        return {
            "loss": loss,
            "per_sample": per_sample.detach(),
            "t": t,
            "routing": routing,
            "degradation": batch["degradation"],
        }

    def on_train_start(self) -> None:
        require_same_vae(self.vae, self.trainer.datamodule)

    def _latents(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Latents of GT and LQ, of the batch's images or as the batch holds them."""
        if "z_gt" in batch:
            return batch["z_gt"], batch["z_lq"]
        return encode(self.vae, batch["gt"]), encode(self.vae, batch["lq"])

    def configure_optimizers(self) -> dict[str, Any]:
        return configure(
            self.network.branch.named_parameters(),
            self.optimizer_config,
            self.trainer.estimated_stepping_batches,
        )

    # -- evaluation: validation and test are the same

    def _start_table(self, metrics: list[str]) -> None:
        self.table = ScoreTable(self.versions, Scorer(metrics, self.device))

    def _evaluate(self, batch: dict[str, Any]) -> dict[str, Any]:
        restored, routing = self.restorer(
            batch["lq"], batch["seed"].cpu() + EVAL_SEED, ids=batch["id"]
        )
        gt, lq = batch["gt"].cpu(), batch["lq"].cpu()
        round_trip = (
            self.restorer.round_trip(batch["gt"]) if "vae_round_trip" in self.versions else gt
        )
        for row, (id, degradation) in enumerate(
            zip(batch["id"], batch["degradation"], strict=True)
        ):
            images = dict(zip(VERSIONS, (lq[row], restored[row], round_trip[row]), strict=True))
            shown = {version: images[version] for version in self.versions}
            self.table.add(id, degradation, gt[row], shown, batch["dataset"][row])
        return {"restored": restored, "routing": routing, "degradation": batch["degradation"]}

    def _finish_table(self, stage: str) -> None:
        self.table.gather()
        crop, path = (
            getattr(self.trainer.datamodule, "eval_crop", None),
            self.trainer.ckpt_path or self.init,
        )
        rule = (
            f"{'full size' if crop is None else f'middle crop of {crop} px'}, RGB, 8 bits, no"
            " resize"
        )
        checkpoint = Path(path) if stage == "test" and path and Path(path).is_file() else None
        run = (
            describe_run(
                self.restorer, checkpoint, "of each image: its place in the data set and data.seed"
            )
            if stage == "test"
            else None
        )
        self.summary = self.table.summary(image_rule=rule, restoration=run)
        for name, value in means(self.summary).items():
            self.log(
                f"{stage}/{name}", value, prog_bar=name == "psnr_restored", rank_zero_only=True
            )

    def on_validation_epoch_start(self) -> None:
        self._start_table(
            [metric.key for metric in choose(self.metrics) if metric.backend == "pixel"] or ["psnr"]
        )

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
        """Restored image (3, H, W) of a photograph; the WriteRestored callback writes it.

        A broken file does not cost the others.
        """
        name, photo, seed = batch
        if isinstance(photo, ImageError):
            self.broken.append(str(photo))
            return None
        restored, _ = self.restorer(
            photo.rgb[None], torch.tensor([seed]), ids=[name.with_suffix("").as_posix()]
        )
        return restored[0]

    def on_predict_epoch_end(self) -> None:
        if self.broken:
            raise ImageError(f"not restored: {'; '.join(self.broken)}")

    # -- checkpoints: the branch alone

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Trained parameters only; the frozen backbone is named, not stored."""
        return trained_state(self)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[KEY] = describe(
            self.branch_config, self.sampling, self.identity, self.prompt.text
        )
        checkpoint["rng"] = torch.get_rng_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint fits; outside `fit`, which resumes from the raw weights, take
        their average if there is one.
        """
        self.configure_model()
        file = branch_of_checkpoint(checkpoint, "the checkpoint")
        self.identity.require(file.backbone, "the checkpoint")
        load_into(self.network.branch, file.tensors, "the checkpoint")
        if self.trainer.state.fn == TrainerFn.FITTING:
            torch.set_rng_state(
                checkpoint["rng"]
            )  # nothing of a step depends on it: every sample has its own seed
        else:
            checkpoint["state_dict"] = {
                f"{BRANCH}{name}": tensor for name, tensor in file.tensors.items()
            }
