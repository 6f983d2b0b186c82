"""MiM-DiT as a diffusers pipeline: one folder with everything in it, for users who restore and do
not train.

    from lit_mimdit.inference.pipeline import MiMDiTPipeline
    pipeline = MiMDiTPipeline.from_pretrained("folder")
    pipeline(image).images[0].save("restored.png")

`python -m lit_mimdit export CHECKPOINT -o FOLDER --pipeline` writes such a folder. Images are
restored by the same Restorer as everywhere. Lightning is not imported.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import (
    AutoencoderKL,
    ConfigMixin,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    ImagePipelineOutput,
    SD3Transformer2DModel,
)
from diffusers.configuration_utils import register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from lit_mimdit.files import write_bytes
from lit_mimdit.inference.corrector import Corrector
from lit_mimdit.inference.pipeline_card import CODE, CODE_TEXT, card
from lit_mimdit.inference.pipeline_images import Picture, photos, pictures, resize
from lit_mimdit.inference.restorer import Restorer
from lit_mimdit.inference.sampler import OnStep, SamplingConfig
from lit_mimdit.models.fidelity import Fidelity
from lit_mimdit.models.mim import BranchConfig, Decisions
from lit_mimdit.models.network import Branch, Condition, MiMDiTNetwork, Prompt
from lit_mimdit.models.prompts import PromptConfig
from lit_mimdit.models.what_if import Choice, Weight, WhatIf
from lit_mimdit.settings import build

CLASS = ["pipeline", "MiMDiTPipeline"]  # of an index: file and class, as diffusers resolves them
Callback = Callable[["MiMDiTPipeline", int, Tensor, dict[str, Tensor]], dict[str, Tensor] | None]


class BranchModel(ModelMixin, ConfigMixin):
    """The trained branch as a component of a pipeline, with the embeddings of the prompts that it
    knows.

    Args:
        branch: BranchConfig as plain values.
        outer_width, outer_heads, blocks: of the backbone.
        text_tokens, text_width, pooled_width: sizes of a prompt's embeddings.
    """

    @register_to_config
    def __init__(
        self,
        branch: dict[str, Any],
        outer_width: int,
        outer_heads: int,
        blocks: int,
        text_tokens: int,
        text_width: int,
        pooled_width: int,
    ) -> None:
        super().__init__()
        self.inner = Branch(build(BranchConfig, branch), outer_width, outer_heads, blocks)
        for name in ("empty", "told"):
            self.register_buffer(f"{name}_embeds", torch.zeros(1, text_tokens, text_width))
            self.register_buffer(f"{name}_pooled", torch.zeros(1, pooled_width))

    @classmethod
    def of(cls, branch: Branch, empty: Prompt, told: Prompt) -> "BranchModel":
        """Returns a component that holds `branch` itself, and copies of the embeddings."""
        mim = branch.mims[0]
        heads = 1 if branch.gates is None else branch.gates.shape[1]
        sizes = dict(
            zip(
                ("text_tokens", "text_width", "pooled_width"),
                (*empty.embeds.shape[1:], empty.pooled.shape[1]),
                strict=True,
            )
        )
        model = cls(
            asdict(branch.config), mim.zero_linear.out_features, heads, len(branch.mims), **sizes
        )
        model.inner = branch
        for name, prompt in (("empty", empty), ("told", told)):
            getattr(model, f"{name}_embeds").copy_(prompt.embeds)
            getattr(model, f"{name}_pooled").copy_(prompt.pooled)
        return model

    @property
    def empty(self) -> Prompt:
        return Prompt(self.empty_embeds, self.empty_pooled)

    @property
    def told(self) -> Prompt:
        return Prompt(self.told_embeds, self.told_pooled)


class FidelityModel(ModelMixin, ConfigMixin):
    """The fidelity network as a component of a pipeline.

    Args:
        widths, blocks, gain: see Fidelity.
    """

    @register_to_config
    def __init__(self, widths: list[int], blocks: int, gain: bool = False) -> None:
        super().__init__()
        self.inner = Fidelity(tuple(widths), blocks, gain)

    @classmethod
    def of(cls, network: Fidelity) -> "FidelityModel":
        """Returns a component that holds `network` itself."""
        model = cls(list(network.widths), network.blocks, network.gain)
        model.inner = network
        return model


@dataclass
class FixedPrompt:
    """Gives all images one prompt, in the place of Prompts.

    Its embeddings are in the folder, so no text encoder is.
    """

    config: PromptConfig
    fixed: Prompt
    captions: dict[str, str] = field(default_factory=dict)

    def of(self, ids: Sequence[str] | None = None) -> Prompt:
        return self.fixed


class OffloadedMiMDiT(MiMDiTNetwork):
    """A network whose transformer may rest in main memory, where accelerate's hook keeps it.

    The hook wakes it when it is called; the branch uses its layers before.
    """

    def _wake(self) -> None:
        hook = getattr(self.backbone, "_hf_hook", None)
        if hook is not None:
            hook.pre_forward(self.backbone)

    def decide(self, z_lq: Tensor, given: WhatIf | None = None) -> Decisions:
        self._wake()
        return super().decide(z_lq, given)

    def condition(
        self, z_lq: Tensor, prompt: Prompt | None = None, given: WhatIf | None = None
    ) -> Condition:
        self._wake()
        return super().condition(z_lq, prompt, given)


class MiMDiTPipeline(DiffusionPipeline):
    """Restores photographs of any size.

    Args:
        transformer: the frozen backbone.
        vae: of the same backbone.
        scheduler: gives the sampling times.
        branch: what was trained.
        fidelity: network that corrects by the pixels of the input (models/fidelity.py); None: the
            branch alone.
        fidelity_weight: of its correction, from 0 to 1: the default of a call.
        sampling: SamplingConfig as plain values: the defaults of a call.
        backbone: Identity of the backbone as plain values, for the record.
        prompt: the text whose embeddings `branch` holds as `told`.
    """

    # diffusers' names. The branch and the fidelity network stay on the device: they are small, and
    # batched experts read their weights without calling the layers
    _optional_components: ClassVar[list[str]] = ["fidelity"]
    _exclude_from_cpu_offload: ClassVar[list[str]] = ["branch", "fidelity"]
    _callback_tensor_inputs: ClassVar[list[str]] = ["latents"]
    model_cpu_offload_seq = "transformer->vae"

    def __init__(
        self,
        transformer: SD3Transformer2DModel,
        vae: AutoencoderKL,
        scheduler: FlowMatchEulerDiscreteScheduler,
        branch: BranchModel,
        fidelity: FidelityModel | None = None,
        fidelity_weight: float = 1.0,
        sampling: (
            dict[str, Any] | None
        ) = None,  # diffusers takes what has no default for a component
        backbone: dict[str, Any] | None = None,
        prompt: str = "",
    ) -> None:
        super().__init__()
        self.register_modules(
            transformer=transformer, vae=vae, scheduler=scheduler, branch=branch, fidelity=fidelity
        )
        sampling = sampling or asdict(SamplingConfig())
        self.register_to_config(
            fidelity_weight=fidelity_weight, sampling=sampling, backbone=backbone, prompt=prompt
        )
        self._interrupt, self._num_timesteps = False, 0

    @classmethod
    def of(cls, restorer: Restorer) -> "MiMDiTPipeline":
        """Returns the pipeline that restores as `restorer` does.

        ValueError if its branch is no MiM, or it has a caption an image.
        """
        network = restorer.network
        if not isinstance(network, MiMDiTNetwork):
            raise ValueError(
                "--pipeline: only a MiM branch has a pipeline; export this one without"
            )
        told = restorer.prompts
        if told is not None and told.captions:
            raise ValueError(
                "--pipeline: a pipeline has one prompt for all images; restore with captions by the"
                " restore command"
            )
        branch = BranchModel.of(
            network.branch, network.prompt, network.prompt if told is None else told.of()
        )
        identity = None if restorer.identity is None else asdict(restorer.identity)
        if identity is not None and Path(identity["name"]).is_absolute():
            identity["name"] = Path(identity["name"]).name  # where it lay is nobody's business
        text, corrector = "" if told is None else told.config.text, restorer.corrector
        behind = (
            (None, 1.0)
            if corrector is None
            else (FidelityModel.of(corrector.network), corrector.weight)
        )
        return cls(
            network.backbone,
            restorer.vae,
            restorer.scheduler,
            branch,
            *behind,
            asdict(restorer.config),
            identity,
            text,
        )

    def restorer(self, fidelity_weight: float | None = None, **sampling: Any) -> Restorer:
        """Returns what restores, on the pipeline's device; what is given overrides the defaults.

        ValueError for impossible values.
        """
        known = asdict(SamplingConfig())
        unknown = sorted(sampling.keys() - known.keys())
        if unknown:
            raise ValueError(
                f"{unknown[0]} is no option: choose among num_inference_steps,"
                f" {', '.join(k for k in known if k != 'steps')}"
            )
        config = replace(build(SamplingConfig, dict(self.config.sampling)), **sampling)
        if not isinstance(self.scheduler, FlowMatchEulerDiscreteScheduler):
            raise ValueError(
                f"scheduler is a {type(self.scheduler).__name__}: the backbone takes the times of a"
                " FlowMatchEulerDiscreteScheduler; choose the solver with solver='euler' or 'heun'"
            )
        network = OffloadedMiMDiT(self.transformer, self.branch.inner, self.branch.empty).eval()
        prompts = FixedPrompt(PromptConfig(self.config.prompt), self.branch.told)
        if self.fidelity is None and fidelity_weight is not None:
            raise ValueError(
                f"fidelity_weight is {fidelity_weight}: this pipeline holds no fidelity network"
                " (export --fidelity)"
            )
        weight = self.config.fidelity_weight if fidelity_weight is None else fidelity_weight
        corrector = None if self.fidelity is None else Corrector(self.fidelity.inner, weight)
        return Restorer(network, self.vae, self.scheduler, config, None, prompts, corrector)

    def enable_group_offload(
        self,
        onload_device: torch.device,
        offload_device: torch.device = torch.device("cpu"),  # noqa: B008  as diffusers' own
        offload_type: str = "leaf_level",
        **options: Any,
    ) -> None:
        """Keeps the layers of transformer and VAE in main memory while they rest.

        ValueError for block_level: the branch asks single layers of a block for keys and values.
        """
        if offload_type != "leaf_level":
            raise ValueError(
                f"offload_type is {offload_type!r}: the branch uses single layers of the"
                " transformer's blocks, so only leaf_level works; or use enable_model_cpu_offload"
            )
        kept = options.pop("exclude_modules", None) or []
        kept = {kept} if isinstance(kept, str) else set(kept)
        kept |= {name for name in self._exclude_from_cpu_offload if getattr(self, name) is not None}
        super().enable_group_offload(
            onload_device,
            offload_device,
            offload_type,
            exclude_modules=sorted(kept),
            **options,
        )

    @property
    def interrupt(self) -> bool:
        """Whether a callback asked to stop: `pipe._interrupt = True`, as in diffusers."""
        return self._interrupt

    @property
    def num_timesteps(self) -> int:
        """Solver steps of the last call."""
        return self._num_timesteps

    @torch.no_grad()
    def __call__(
        self,
        image: Picture | Sequence[Picture],
        num_inference_steps: int | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        fidelity_weight: float | None = None,
        height: int | None = None,
        width: int | None = None,
        num_images_per_prompt: int = 1,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        inter: Mapping[str, Weight] | None = None,
        intra: Mapping[str, Choice] | None = None,
        **sampling: Any,
    ) -> ImagePipelineOutput | tuple:
        """Restores one or several photographs of any sizes.

        Args:
            image: PIL image; array (H, W, 3) or tensor (3, H, W) of uint8, uint16, or floats in
                [0, 1]; a sequence of them; or a batch (B, H, W, 3) or (B, 3, H, W). A PIL image
                may have any mode that has a way to RGB, gray of 16 bits, or floats in [0, 1].
                Transparency is dropped.
            num_inference_steps: solver steps; None: as exported.
            generator: draws the noise's seeds, one a restored image; or one generator an image.
                None: seed 0, as the restore command.
            output_type: "pil", "np" (in [0, 1]) or "pt" (in [0, 1]).
            return_dict: False gives a tuple.
            fidelity_weight: of the fidelity network's correction, from 0 to 1; None: as exported.
            height, width: pixels to which a photograph is resized first; None: its own.
            num_images_per_prompt: restorations of each photograph, neighbours in the result; the
                noise differs. Without a generator their seeds are 0, 1, ...
            callback_on_step_end: called as (pipeline, step, timestep, {"latents": ...}) after
                each solver step; "latents" of what it returns, if there, replaces them.
            callback_on_step_end_tensor_inputs: what it is given: "latents" or nothing.
            inter: weights of expert groups in the place of the Inter routers', such as
                {"spatial": 0}; see models/what_if.py.
            intra: sub-experts by group in the place of the Intra routers', such as {"swin": [0]}.
            sampling: solver, start, strength, tile, overlap, tile_batch, guidance: see
                SamplingConfig.

        Returns:
            `.images` in the order of the input, each of its own size: a list of PIL images; or an
            array (B, H, W, 3) or a tensor (B, 3, H, W), or a list where sizes differ.

        Raises:
            ValueError: for impossible values, in one line.
        """
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"output_type is {output_type!r}: choose among pil, np, pt")
        if num_images_per_prompt < 1:
            raise ValueError(
                f"num_images_per_prompt is {num_images_per_prompt}: it must be at least 1"
            )
        unknown = sorted(set(callback_on_step_end_tensor_inputs) - {*self._callback_tensor_inputs})
        if unknown:
            raise ValueError(
                f"callback_on_step_end_tensor_inputs holds {unknown[0]!r}: choose among"
                f" {', '.join(self._callback_tensor_inputs)}"
            )
        shown = [resize(photo, height, width) for photo in photos(image)]
        seeds = _seeds(generator, len(shown), num_images_per_prompt)
        steps = {} if num_inference_steps is None else {"steps": num_inference_steps}
        restorer = self.restorer(fidelity_weight, **steps, **sampling).forced(inter, intra)
        self._interrupt, self._num_timesteps = False, restorer.config.steps
        if callback_on_step_end is not None:
            restorer.on_step = self._after_step(
                callback_on_step_end, callback_on_step_end_tensor_inputs
            )
        each = [photo for photo in shown for _ in range(num_images_per_prompt)]
        restored = []
        with self.progress_bar(
            total=sum(restorer.evaluations(*photo.shape[-2:]) for photo in each)
        ) as bar:
            for photo, seed in zip(each, seeds, strict=True):
                restored.append(restorer(photo[None], seed[None], bar.update)[0][0])
        self.maybe_free_model_hooks()
        images = pictures(restored, output_type)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _after_step(self, callback: Callback, inputs: Sequence[str]) -> OnStep:
        """What the solver calls after a step: the user's callback in diffusers' form."""

        def on_step(step: int, time: float, latents: Tensor) -> Tensor | None:
            given = {"latents": latents} if "latents" in inputs else {}
            timestep = torch.tensor(1000.0 * time)
            latents = (callback(self, step, timestep, given) or {}).get("latents", latents)
            return None if self.interrupt else latents

        return on_step

    @classmethod
    def _dict_from_json_file(cls, json_file: str | Path) -> dict[str, Any]:
        """The index as this class reads it: whoever names the class needs no `pipeline.py`."""
        config = super()._dict_from_json_file(json_file)
        if config.get("_class_name") == CLASS:
            config["_class_name"] = cls.__name__
        return config

    def to_json_string(self) -> str:
        """Returns the index as JSON; it names `pipeline.py`, where DiffusionPipeline finds the
        class.
        """
        config = json.loads(super().to_json_string())
        config["_class_name"] = CLASS
        return json.dumps(config, indent=2, sort_keys=True) + "\n"

    def save_pretrained(self, save_directory: str | Path, *args: Any, **options: Any) -> None:
        """Writes the folder as diffusers does, a model card, and the file that names the class."""
        super().save_pretrained(save_directory, *args, **options)
        write_bytes(Path(save_directory) / "README.md", self.card().encode())
        write_bytes(Path(save_directory) / CODE, CODE_TEXT.encode())

    def card(self) -> str:
        """Returns the model card: see pipeline_card."""
        branch = self.branch.inner
        weight = self.config.fidelity_weight
        return card(
            branch.config,
            dict(self.config.sampling),
            (self.config.backbone or {}).get("name", "unknown"),
            sum(p.numel() for p in branch.parameters()),
            "none" if self.fidelity is None else f"weight {weight}",
            self.config.prompt,
        )


def _seeds(
    generator: torch.Generator | Sequence[torch.Generator] | None, count: int, times: int
) -> Tensor:
    """One seed a restored image, (count times,) int64."""
    if generator is None:
        return torch.arange(times).repeat(count)
    one = isinstance(generator, torch.Generator)
    each = [generator] * count if one else list(generator)
    if len(each) not in (count, count * times):
        raise ValueError(
            f"generator holds {len(each)} for {count} images: give one, or one an image"
        )
    if len(each) == count:
        each = [one for one in each for _ in range(times)]
    return torch.cat(
        [torch.randint(2**63 - 1, (1,), generator=one, device=one.device).cpu() for one in each]
    )
