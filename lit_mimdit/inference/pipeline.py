"""MiM-DiT as a diffusers pipeline: one folder with everything in it, for users who restore and do
not train.

    from lit_mimdit.inference.pipeline import MiMDiTPipeline
    pipeline = MiMDiTPipeline.from_pretrained("folder")
    pipeline(image).images[0].save("restored.png")

`python -m lit_mimdit export CHECKPOINT -o FOLDER --pipeline` writes such a folder. Images are
restored by the same Restorer as everywhere. Lightning is not imported, but for a branch without its
backbone, as `export --push_to_hub` uploads it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    ImagePipelineOutput,
    SD3Transformer2DModel,
)
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401  diffusers looks for it here
from diffusers.utils.torch_utils import get_device
from torch import Tensor

from lit_mimdit.files import write_bytes
from lit_mimdit.inference.corrector import Corrector
from lit_mimdit.inference.pipeline_branch import branch_restorer, wanted_dtype
from lit_mimdit.inference.pipeline_card import CODE, CODE_TEXT, card
from lit_mimdit.inference.pipeline_images import Picture, photos, pictures, resize
from lit_mimdit.inference.pipeline_parts import (
    BranchModel,
    FidelityModel,
    FixedPrompt,
    parts_of,
)
from lit_mimdit.inference.pipeline_seeds import seeds_of
from lit_mimdit.inference.restorer import Restorer
from lit_mimdit.inference.sampler import OnStep, SamplingConfig
from lit_mimdit.models.compiling import compile_network
from lit_mimdit.models.network import MiMDiTNetwork
from lit_mimdit.models.prompts import PromptConfig
from lit_mimdit.models.what_if import Choice, Weight
from lit_mimdit.settings import build

CLASS = ["pipeline", "MiMDiTPipeline"]  # of an index: file and class, as diffusers resolves them
Callback = Callable[["MiMDiTPipeline", int, Tensor, dict[str, Tensor]], dict[str, Tensor] | None]


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
        # diffusers takes what has no default for a component
        sampling: dict[str, Any] | None = None,
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

        Raises ValueError if its branch is no MiM, or it has a caption an image.
        """
        return cls(**parts_of(restorer))

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, **options: Any
    ) -> "MiMDiTPipeline":
        """Loads a pipeline, or a branch whose backbone is taken by its hub id.

        Args:
            pretrained_model_name_or_path: folder or hub id, OWNER/NAME or OWNER/NAME@REVISION.
            options: those of diffusers. A branch alone takes the ones of `BRANCH_OPTIONS`.

        Raises:
            ValueError: it cannot be had, in one line.
        """
        restorer = branch_restorer(pretrained_model_name_or_path, options)
        if restorer is None:
            return super().from_pretrained(pretrained_model_name_or_path, **options)
        pipeline = cls.of(restorer)
        dtype = wanted_dtype(options)
        return pipeline if dtype is None else pipeline.to(dtype)

    def restorer(self, fidelity_weight: float | None = None, **sampling: Any) -> Restorer:
        """Returns what restores, on the pipeline's device; what is given overrides the defaults.

        Raises ValueError for impossible values.
        """
        config = self._sampling(sampling)
        if not isinstance(self.scheduler, FlowMatchEulerDiscreteScheduler):
            raise ValueError(
                f"scheduler is a {type(self.scheduler).__name__}: the backbone takes the times of a"
                " FlowMatchEulerDiscreteScheduler; choose another solver as in solver='unipc'"
            )
        network = MiMDiTNetwork(self.transformer, self.branch.inner, self.branch.empty).eval()
        prompts = FixedPrompt(PromptConfig(self.config.prompt), self.branch.told)
        corrector = self._corrector(fidelity_weight)
        return Restorer(network, self.vae, self.scheduler, config, None, prompts, corrector)

    def _sampling(self, given: dict[str, Any]) -> SamplingConfig:
        """The exported configuration with given values; ValueError for a name that it lacks."""
        known = asdict(SamplingConfig())
        unknown = sorted(given.keys() - known.keys())
        if unknown:
            raise ValueError(
                f"{unknown[0]} is no option: choose among num_inference_steps,"
                f" {', '.join(name for name in known if name != 'steps')}"
            )
        return replace(build(SamplingConfig, dict(self.config.sampling)), **given)

    def _corrector(self, weight: float | None) -> Corrector | None:
        """Returns what corrects, with the given or exported weight.

        None without a fidelity network.
        """
        if self.fidelity is None:
            if weight is not None:
                raise ValueError(
                    f"fidelity_weight is {weight}, and this pipeline holds no fidelity network;"
                    " leave it out, or export one with --fidelity"
                )
            return None
        exported = self.config.fidelity_weight
        return Corrector(self.fidelity.inner, exported if weight is None else weight)

    def enable_group_offload(
        self,
        onload_device: torch.device,
        offload_device: torch.device = torch.device("cpu"),  # noqa: B008  as diffusers' own
        offload_type: str = "leaf_level",
        **options: Any,
    ) -> None:
        """Keeps the layers of transformer and VAE in main memory while they rest.

        Raises ValueError for block_level: the branch asks single layers of a block for keys and
        values.
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

    def enable_sequential_cpu_offload(
        self, gpu_id: int | None = None, device: torch.device | str | None = None
    ) -> None:
        """Keeps every layer of transformer and VAE in main memory until it is called.

        Raises ValueError for a CPU: everything is in main memory there, and accelerate fails later.
        """
        if torch.device(get_device() if device is None else device).type == "cpu":
            raise ValueError(
                "enable_sequential_cpu_offload needs a GPU to compute on, and the device is the"
                " CPU: leave it out, since all weights are in main memory already"
            )
        super().enable_sequential_cpu_offload(gpu_id, device)

    def compile(self) -> None:
        """Compiles the blocks of transformer and branch when they are first called.

        Call it when the pipeline is on its device. The first photograph then takes minutes.
        """
        compile_network(MiMDiTNetwork(self.transformer, self.branch.inner, self.branch.empty))

    @property
    def interrupt(self) -> bool:
        """Returns whether a callback asked to stop: `pipe._interrupt = True`, as in diffusers."""
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
            image: PIL image; or array (H, W, 3) or tensor (3, H, W) of uint8, uint16, or floats in
                [0, 1]. Also a sequence of them, or a batch (B, H, W, 3) or (B, 3, H, W). A PIL
                image may have any mode that has a way to RGB, gray of 16 bits, or floats in [0, 1].
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
            sampling: other values of SamplingConfig, such as solver, tile or colour.

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
        seeds = seeds_of(generator, len(shown), num_images_per_prompt)
        steps = {} if num_inference_steps is None else {"steps": num_inference_steps}
        restorer = self.restorer(fidelity_weight, **steps, **sampling).forced(inter, intra)
        restorer.skip_unused = True
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
        """Returns what the solver calls after a step: the user's callback in diffusers' form."""

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
