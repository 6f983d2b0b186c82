"""DiT4SR as a system: trained on the frozen backbone's own flow, restoring by its own sampler."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor

from lit_mimdit.inference.sampler import SamplingConfig
from lit_mimdit.models.backbone import Backbone
from lit_mimdit.models.condition import Prompt
from lit_mimdit.models.encoders import MOST_TOKENS, TOKENS
from lit_mimdit.models.flow import FlowConfig
from lit_mimdit.models.prompts import PromptConfig, Prompts
from lit_mimdit.systems.base import METRICS
from lit_mimdit.systems.dit4sr import objective, official, sampler
from lit_mimdit.systems.dit4sr.network import ControlConfig, DiT4SRNetwork
from lit_mimdit.systems.dit4sr.restorer import DiT4SRRestorer
from lit_mimdit.systems.latent import LATENT_VERSIONS, LatentSystem
from lit_mimdit.systems.official import only
from lit_mimdit.systems.optim import OptimizerConfig

SD35 = "stabilityai/stable-diffusion-3.5-medium"
PUBLISHED = {"steps": 40, "tile": 512, "overlap": 192, "colour": "adain"}  # of the test script
CLIP_TOKENS = 77
ROUNDING = 2.0**-8  # of bfloat16, relative; a backbone may be kept in it


class DiT4SR(LatentSystem):
    """DiT4SR, ICCV 2025: the degraded image as a second stream through a frozen SD3.5.

    The restored image has the size of the input, unless `upscale` says else. Captions lose their
    sentences about sharpness, as published.

    Args:
        backbone: `nano`, a diffusers folder of SD3.5, or a hub id.
        sampling: how validation, test and predict restore: `steps`, `tile`, `overlap`, `guidance`
            and `colour`. The publication has 40, 512, 192, 8 and adain.
        control: what is added to the backbone.
        negative: text that guidance keeps away from. `""` is the empty prompt.
        added_prompt: text behind every caption in restoring.
        t5_tokens: length of T5's part of a caption in training. Restoring has 256, the publication
            77 in training.
        upscale: how many times larger the restored image is. The publication has 4. Scores need 1.
        process_size: least side in pixels of what the network sees, with `upscale`.
        optimizer: settings of the optimizer and its schedule. Only training needs them.
        prompt: what the backbone is told about the images. The publication has a caption for each
            image, and a dropout of 0.2.
        fidelity: network that corrects what validation, test and predict restore: a file,
            `package`, or `null`, as in the paper.
        fidelity_weight: strength of that network's correction, from 0 to 1.
        backbone_dtype: precision the frozen weights are kept in.
        backbone_quantize: keep the frozen weights, and the large text encoder, in fewer bits:
            `nf4`, `int8`, `fp8` or `gguf:FILE`. `null` keeps them whole. They are computed with in
            backbone_dtype.
        init: exported system or checkpoint to start from instead of a fresh branch.
        gradient_checkpointing: recompute activations in the backward pass.
        compile: compile the backbone's blocks at the first step of training.
        attention: kernel of the attention in training: `auto` leaves the choice to PyTorch. `math`
            is faster on CPUs in bfloat16 at few tokens (benchmarks/attention.py).
        metrics: scores of `test` by key.
        versions: what validation and test score of each image.
    """

    TRAINING_ONLY: ClassVar[frozenset[str]] = LatentSystem.TRAINING_ONLY | {"t5_tokens"}

    def __init__(
        self,
        backbone: str,
        sampling: SamplingConfig,
        control: ControlConfig | None = None,
        negative: str = "",
        added_prompt: str = "",
        t5_tokens: int = TOKENS,
        upscale: int = 1,
        process_size: int = sampler.PROCESS_SIZE,
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
        super().__init__(
            backbone=backbone,
            sampling=sampling,
            flow=FlowConfig(time_shift=objective.SHIFT, weighting="clean"),
            optimizer=optimizer,
            prompt=prompt,
            fidelity=fidelity,
            fidelity_weight=fidelity_weight,
            backbone_dtype=backbone_dtype,
            backbone_quantize=backbone_quantize,
            init=init,
            gradient_checkpointing=gradient_checkpointing,
            compile=compile,
            attention=attention,
            metrics=metrics,
            versions=versions,
        )
        if not 1 <= t5_tokens <= MOST_TOKENS:
            raise ValueError(
                f"model.t5_tokens is {t5_tokens}: T5 reads 1 to {MOST_TOKENS} tokens of a caption"
            )
        if upscale < 1:
            raise ValueError(f"model.upscale is {upscale}: give 1, or how many times larger")
        self.control, self.negative = control or ControlConfig(), negative
        self.added_prompt, self.t5_tokens = added_prompt, t5_tokens
        self.upscale, self.process_size = upscale, process_size
        self._training_prompts: Prompts | None = None

    def build_network(self, transformer: SD3Transformer2DModel, prompt: Prompt) -> DiT4SRNetwork:
        return DiT4SRNetwork(transformer, self.control, prompt)

    @property
    def texts(self) -> list[str]:
        return sorted({*super().texts, self.negative} - {""})

    def assemble(self, loaded: Backbone) -> None:
        on_meta = loaded.prompt.embeds.is_meta
        if on_meta:
            self.added_prompt = ""  # a dry run has no text encoders
        super().assemble(loaded)
        if on_meta:
            return
        own, negative = self.restorer(), None
        self._places = self.backbone_name, loaded.where, loaded.transformer, loaded.prompt
        if self.negative:
            told = Prompts(PromptConfig(text=self.negative), *self._places).fixed
            negative = self.negative, told
        parts = own.network, own.vae, own.scheduler, own.config, own.identity, own.prompts
        self._restorer = DiT4SRRestorer(
            *parts,
            own.corrector,
            negative=negative,
            upscale=self.upscale,
            process_size=self.process_size,
        )

    def told(self, text: str) -> str:
        return sampler.told(text, self.added_prompt)

    @property
    def training_prompts(self) -> Prompts:
        """Captions without the added text, in T5's length of training."""
        if self._training_prompts is None:
            how: dict[str, Any] = {"told": sampler.filter_caption, "tokens": self.t5_tokens}
            self._training_prompts = Prompts(self.prompt, *self._places, **how)
        return self._training_prompts

    def on_fit_start(self) -> None:
        super().on_fit_start()
        _ = self.training_prompts  # the text encoders are gone before the first step

    def prepare_estimate(
        self, arguments: dict[str, Any], batch: dict[str, Any], gpu: bool, stage: int
    ) -> None:
        super().prepare_estimate(arguments, batch, gpu, stage)
        told, length = self.prompts.fixed, CLIP_TOKENS + self.t5_tokens
        self.prompts.fixed = Prompt(told.embeds[:, :length], told.pooled)
        self._training_prompts = self.prompts

    def _start_table(self, metrics: list[str]) -> None:
        if self.upscale != 1:
            raise ValueError(
                f"model.upscale is {self.upscale}, and validation and test compare images of one"
                " size; set it to 1, or restore and use `evaluate`"
            )
        super()._start_table(metrics)

    def times(self, normal: Tensor) -> Tensor:
        """Noise levels (B,) of the training schedule's 1000 steps, for normal numbers (B,)."""
        return objective.training_sigmas(objective.draw_index(normal)).to(normal)

    def published_rate(self, epoch: int) -> float:
        """Constant."""
        return 1.0

    @classmethod
    def from_official(cls, *files: Mapping[str, Any], **overrides: Any) -> "DiT4SR":
        """Returns the system with the branch of an author's `transformer` file.

        Args:
            files: content of the file, one. It holds the frozen transformer too, which must be the
                backbone's, up to rounding.
            overrides: `backbone` (SD3.5-medium's hub id), `sampling` (as SamplingConfig),
                `negative`, `added_prompt`, `upscale`, `process_size`, `guidance` (8 with an added
                prompt, else 1), and what official.from_official takes.

        Raises:
            ValueError: the file is another system's, incomplete, not the only one, or its frozen
                weights are not the backbone's.
        """
        file = only(files, "DiT4SR", "join its parts")
        backbone = overrides.pop("backbone", SD35)
        own = ("negative", "added_prompt", "upscale", "process_size")
        kept = {name: overrides.pop(name) for name in own if name in overrides}
        # without any text there is nothing to guide by
        guidance = overrides.pop("guidance", sampler.GUIDANCE if kept.get("added_prompt") else 1.0)
        sampling = SamplingConfig(
            **PUBLISHED | {"guidance": guidance} | overrides.pop("sampling", {})
        )
        network = official.from_official(file, **overrides)
        system = cls(backbone, sampling, network.branch.config, **kept)
        system.configure_model()
        assert system.network is not None, "configure_model assembles it"
        _demand_same(network.backbone, system.network.backbone, backbone)
        system.network.branch.load_state_dict(network.branch.state_dict())
        return system.eval()


def _demand_same(given: torch.nn.Module, own: torch.nn.Module, name: str) -> None:
    """Raises ValueError unless two transformers have the same weights.

    The rounding of bfloat16 does not count.
    """
    other = given.state_dict()
    for key, value in own.state_dict().items():
        if key not in other or other[key].shape != value.shape:
            raise ValueError(
                f"DiT4SR: the file has no {key} of the backbone {name!r} in its shape; give"
                " --override '{\"backbone\": FOLDER}' with the one it was trained on"
            )
        apart = (other[key].float() - value.float()).abs()
        if (apart > ROUNDING * value.float().abs() + 1e-6).any():
            raise ValueError(
                f"DiT4SR: {key} of the file is not that of the backbone {name!r}; give --override"
                " '{\"backbone\": FOLDER}' with the one it was trained on"
            )
