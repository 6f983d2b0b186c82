"""Systems that restore in the latent space of a frozen Stable Diffusion 3.5 transformer."""

from typing import Any, ClassVar, Literal

import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lit_mimdit.inference.corrector import load_corrector
from lit_mimdit.inference.restorer import Restorer
from lit_mimdit.inference.sampler import SamplingConfig
from lit_mimdit.inference.system_class import class_path_of
from lit_mimdit.latent_shards import require_same_vae
from lit_mimdit.models.backbone import Backbone, load_backbone
from lit_mimdit.models.compiling import compile_network
from lit_mimdit.models.condition import Prompt
from lit_mimdit.models.flow import (
    FlowConfig,
    interpolate,
    loss_per_sample,
    sample_noise,
    sample_times,
    velocity,
)
from lit_mimdit.models.geometry import meta_backbone, read_geometry
from lit_mimdit.models.latents import encode
from lit_mimdit.models.network import ConditionedBackbone
from lit_mimdit.models.prompts import PromptConfig, Prompts, texts_of
from lit_mimdit.models.quantize import checked, planned_saving
from lit_mimdit.systems.base import METRICS, Losses, RestorationSystem
from lit_mimdit.systems.optim import OptimizerConfig

LATENT_VERSIONS = ["degraded", "restored", "vae_round_trip"]
EVERY_KERNEL = [kernel for name, kernel in SDPBackend.__members__.items() if name != "ERROR"]


class LatentSystem(RestorationSystem):
    """A trained branch that conditions a frozen transformer; the objective is rectified flow.

    A subclass says which network (`build_network`) and inherits the rest.

    Args:
        backbone: "nano", a diffusers folder of SD3.5, or a hub id.
        sampling: how validation, test and predict restore; also the exported file's default.
        flow: see FlowConfig.
        optimizer: see OptimizerConfig.
        prompt: see PromptConfig; the empty prompt unless given.
        fidelity: network that corrects what validation, test and predict restore: a file,
            "package", or null, as in the paper.
        fidelity_weight: of its correction, from 0 to 1.
        backbone_dtype: precision the frozen weights are kept in.
        backbone_quantize: keep them, and the large text encoder, in fewer bits: nf4, int8, fp8 or
            gguf:FILE; null: not. They are computed with in backbone_dtype.
        init: exported system or checkpoint to start from instead of fresh weights.
        gradient_checkpointing: recompute the backbone's activations in the backward pass: less
            memory, one more forward pass.
        metrics: scores of `test` by key.
        versions: what validation and test score of each image: "restored", beside it "degraded" and
            "vae_round_trip", the best that any latent could give.
        compile: compile the blocks of backbone and branch at the first step of training.
        attention: training's kernel: "auto" leaves the choice to PyTorch; "math" is faster on CPUs
            in bfloat16 at few tokens (benchmarks/attention.py).
    """

    TRAINING_ONLY: ClassVar[frozenset[str]] = RestorationSystem.TRAINING_ONLY | {
        "flow",
        "fidelity",
        "fidelity_weight",
        "gradient_checkpointing",
        "compile",
        "attention",
    }
    VERSIONS: ClassVar[list[str]] = LATENT_VERSIONS

    def __init__(
        self,
        backbone: str,
        sampling: SamplingConfig,
        flow: FlowConfig | None = None,
        optimizer: OptimizerConfig | None = None,
        prompt: PromptConfig | None = None,
        fidelity: str | None = None,
        fidelity_weight: float = 1.0,
        backbone_dtype: Literal["float32", "bfloat16"] = "float32",
        backbone_quantize: str | None = None,
        init: str | None = None,
        gradient_checkpointing: bool = False,
        compile: bool = False,
        attention: Literal["auto", "math"] = "auto",
        metrics: list[str] = METRICS,
        versions: list[str] = LATENT_VERSIONS,
    ) -> None:
        super().__init__(optimizer, metrics, versions, init)
        self.backbone_name, self.backbone_dtype = backbone, getattr(torch, backbone_dtype)
        self.backbone_quantize = checked(backbone_quantize)
        self.flow, self.sampling = flow or FlowConfig(), sampling
        self.prompt = prompt or PromptConfig()
        self.corrector = load_corrector(fidelity, fidelity_weight)
        self.gradient_checkpointing, self.compile_blocks = gradient_checkpointing, compile
        self.kernels = [SDPBackend.MATH] if attention == "math" else EVERY_KERNEL
        self.network: ConditionedBackbone | None = None
        self._restorer: Restorer | None = None

    def build_network(
        self, transformer: SD3Transformer2DModel, prompt: Prompt
    ) -> ConditionedBackbone:
        """Returns the frozen transformer with this system's branch."""
        raise ValueError(
            f"{class_path_of(type(self))} has no build_network: add it to the class"
            " (lit_mimdit/systems/latent.py)"
        )

    @property
    def trained(self) -> nn.Module:
        assert self.network is not None, "configure_model assembles it"
        return self.network.branch

    @property
    def prompt_text(self) -> str:
        return self.prompt.text

    def restorer(self) -> Restorer:
        assert self._restorer is not None, "configure_model assembles it"
        return self._restorer

    def configure_model(self) -> None:
        if self.network is None:
            self.assemble(self.load_backbone())
        super().configure_model()

    def load_backbone(self) -> Backbone:
        """Returns the backbone that the arguments name, frozen and kept as they say."""
        kept = self.backbone_dtype, self.backbone_quantize
        return load_backbone(self.backbone_name, *kept, self.texts)

    @property
    def texts(self) -> list[str]:
        """All prompts that restoring asks for, but the empty one."""
        return texts_of(self.prompt, self.told)

    def assemble_on_meta(self) -> None:
        geometry = read_geometry(self.backbone_name)
        self.size_source = f"backbone {self.backbone_name}: sizes of {geometry.origin}"
        kept = self.backbone_dtype, self.backbone_quantize
        loaded = meta_backbone(self.backbone_name, geometry, *kept)
        if self.backbone_quantize is not None:
            self.saved_bytes = planned_saving(loaded.transformer, self.backbone_quantize)
        self.assemble(loaded)

    def prepare_estimate(
        self, arguments: dict[str, Any], batch: dict[str, Any], gpu: bool, stage: int
    ) -> None:
        assert self.network is not None, "configure_model assembles it"
        self.prompts.fixed = self.network.prompt

    def assemble(self, loaded: Backbone) -> None:
        """Put the network together around a backbone."""
        self.identity = loaded.identity
        self.vae = loaded.vae
        self.scheduler = loaded.scheduler
        places = self.backbone_name, loaded.where, loaded.transformer, loaded.prompt
        self.prompts = Prompts(self.prompt, *places, told=self.told)
        self.network = self.build_network(loaded.transformer, loaded.prompt)
        if self.gradient_checkpointing:
            self.network.enable_gradient_checkpointing()
        parts = self.network, self.vae, self.scheduler, self.sampling, self.identity
        self._restorer = Restorer(*parts, self.prompts, self.corrector)

    def told(self, text: str) -> str:
        """Returns what the text encoders read of a prompt or caption in restoring."""
        return text

    @property
    def training_prompts(self) -> Prompts:
        """Returns what the backbone is told in training; unless a system says else, as in
        restoring.
        """
        return self.prompts

    def train(self, mode: bool = True) -> "LatentSystem":
        super().train(mode)
        if self.network is not None:
            self.vae.eval()
        return self

    def on_fit_start(self) -> None:
        if self.compile_blocks:
            assert self.network is not None, "configure_model assembles it"
            compile_network(self.network)

    def on_train_start(self) -> None:
        trainer: Any = self.trainer  # Lightning does not declare its datamodule
        require_same_vae(self.vae, trainer.datamodule)

    # L = w(t) mean |v_hat(x_t, t, z_lq) - v|^2 (MiM-DiT, arXiv 2603.02710, section 3)
    def losses(self, batch: dict[str, Any]) -> Losses:
        """Returns the rectified-flow loss of a batch of images, or of latents z_gt and z_lq."""
        assert self.network is not None, "configure_model assembles it"
        with sdpa_kernel(self.kernels):
            z_gt, z_lq = self._latents(batch)
            noise, normal = sample_noise(batch["seed"].cpu(), tuple(z_gt.shape[1:]))
            noise, t = noise.to(z_gt), self.times(normal).to(z_gt.device)
            prompt = self.training_prompts.of_training(batch["id"], batch["seed"]).to(z_gt.device)
            condition = self.network.condition(z_lq, prompt)
            predicted = self.network(interpolate(z_gt, noise, t), t, condition, prompt)
        per_sample = loss_per_sample(predicted, velocity(z_gt, noise), t, self.flow.weighting)
        terms = {"velocity": per_sample}
        return Losses(per_sample.mean(), per_sample, terms, condition.routing, t)

    def times(self, normal: Tensor) -> Tensor:
        """Returns the training times (B,) in [0, 1] from standard normal numbers (B,)."""
        return sample_times(normal, self.flow)

    def _latents(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Latents of GT and LQ, of the batch's images or as the batch holds them."""
        if "z_gt" in batch:
            return batch["z_gt"], batch["z_lq"]
        return encode(self.vae, batch["gt"]), encode(self.vae, batch["lq"])

    def references(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Returns the best that any latent could give: the clean images through the VAE and
        back.
        """
        if "vae_round_trip" not in self.versions:
            return {}
        return {"vae_round_trip": self.restorer().round_trip(batch["gt"])}
