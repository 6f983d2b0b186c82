"""MiM-DiT as a diffusers pipeline: one folder with everything in it, for users who restore and do
not train.

    from lit_mimdit.inference.pipeline import MiMDiTPipeline
    pipeline = MiMDiTPipeline.from_pretrained("folder")
    pipeline(image).images[0].save("restored.png")

`python -m lit_mimdit export CHECKPOINT -o FOLDER --pipeline` writes such a folder. Images are
restored by the same Restorer as everywhere. Lightning is not imported.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
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
from PIL import Image, ImageOps
from torch import Tensor

from lit_mimdit.data.image_io import to_tensor, write_bytes
from lit_mimdit.inference.corrector import Corrector
from lit_mimdit.inference.restorer import Restorer
from lit_mimdit.inference.sampler import SamplingConfig
from lit_mimdit.models.fidelity import Fidelity
from lit_mimdit.models.mim import BranchConfig
from lit_mimdit.models.network import Branch, MiMDiT, Prompt
from lit_mimdit.models.prompts import PromptConfig
from lit_mimdit.training.settings import build

Picture = Image.Image | np.ndarray | Tensor


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
        """A component that holds `branch` itself, and copies of the embeddings."""
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
        """A component that holds `network` itself."""
        model = cls(list(network.widths), network.blocks, network.gain)
        model.inner = network
        return model


@dataclass
class FixedPrompt:
    """One prompt for all images, in the place of Prompts:

    its embeddings are in the folder, so no text encoder is.
    """

    config: PromptConfig
    fixed: Prompt
    captions: dict[str, str] = field(default_factory=dict)

    def of(self, ids: Sequence[str] | None = None) -> Prompt:
        return self.fixed


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

    _optional_components: ClassVar[list[str]] = [
        "fidelity"
    ]  # of diffusers: may be missing in a folder

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

    @classmethod
    def of(cls, restorer: Restorer) -> "MiMDiTPipeline":
        """The pipeline that restores as `restorer` does.

        ValueError if its branch is no MiM, or it has a caption an image.
        """
        network, told = restorer.network, restorer.prompts
        if not isinstance(network, MiMDiT):
            raise ValueError(
                "--pipeline: only a MiM branch has a pipeline; export this one without"
            )
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
        """What restores, on the pipeline's device; what is given overrides the defaults.

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
        network = MiMDiT(self.transformer, self.branch.inner, self.branch.empty).eval()
        prompts = FixedPrompt(PromptConfig(self.config.prompt), self.branch.told)
        if self.fidelity is None and fidelity_weight is not None:
            raise ValueError(
                f"fidelity_weight is {fidelity_weight}: this pipeline holds no fidelity network"
                " (export --fidelity)"
            )
        weight = self.config.fidelity_weight if fidelity_weight is None else fidelity_weight
        corrector = None if self.fidelity is None else Corrector(self.fidelity.inner, weight)
        return Restorer(network, self.vae, self.scheduler, config, None, prompts, corrector)

    @torch.no_grad()
    def __call__(
        self,
        image: Picture | Sequence[Picture],
        num_inference_steps: int | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        fidelity_weight: float | None = None,
        **sampling: Any,
    ) -> ImagePipelineOutput | tuple:
        """Restore one or several photographs of any sizes.

        Args:
            image: PIL image, array (H, W, 3) of uint8 or uint16, or tensor (3, H, W) in [0, 1]; or
                a sequence of them; or a tensor (B, 3, H, W).
            num_inference_steps: solver steps; None: as exported.
            generator: draws the noise's seeds, one an image; or one generator an image. None: seed
                0, as the restore command.
            output_type: "pil", "np" (H, W, 3 in [0, 1]) or "pt" (3, H, W in [0, 1]).
            return_dict: False gives a tuple.
            fidelity_weight: of the fidelity network's correction, from 0 to 1; None: as exported.
            sampling: solver, start, strength, tile, overlap, tile_batch, guidance: see
                SamplingConfig.

        Returns:
            `.images`, a list in the order of the input, each of its own size.
        """
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"output_type is {output_type!r}: choose among pil, np, pt")
        one = isinstance(image, Image.Image) or (
            isinstance(image, (np.ndarray, Tensor)) and image.ndim == 3
        )
        photos = [_tensor(picture) for picture in ([image] if one else image)]
        seeds = _seeds(generator, len(photos))
        steps = {} if num_inference_steps is None else {"steps": num_inference_steps}
        restorer = self.restorer(fidelity_weight, **steps, **sampling)
        restored = []
        with self.progress_bar(
            total=sum(restorer.evaluations(*photo.shape[-2:]) for photo in photos)
        ) as bar:
            for photo, seed in zip(photos, seeds, strict=True):
                restored.append(restorer(photo[None], seed[None], bar.update)[0][0])
        images = [_picture(tensor, output_type) for tensor in restored]
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def save_pretrained(self, save_directory: str | Path, *args: Any, **options: Any) -> None:
        """As diffusers', and a model card beside it."""
        super().save_pretrained(save_directory, *args, **options)
        write_bytes(Path(save_directory) / "README.md", self.card().encode())

    def card(self) -> str:
        """The model card: what it is, how it is used, what it was made of."""
        branch, sampling = self.branch.inner.config, self.config.sampling
        name = (self.config.backbone or {}).get("name", "unknown")
        trained = sum(p.numel() for p in self.branch.inner.parameters()) / 1e6
        licence = (
            "Apache-2.0, as lit_mimdit"
            if name == "nano"
            else "that of the backbone (Stable Diffusion 3.5: Stability AI Community License)"
        )
        return f"""---
library_name: diffusers
pipeline_tag: image-to-image
tags: [image-restoration, mim-dit, mixture-of-experts]
---
# MiM-DiT on {name}

Restores photographs that are blurred, noisy, hazy, rainy or dark: a frozen transformer ({name}) and a trained branch of
{trained:.2f} M parameters ([MiM-DiT](https://arxiv.org/abs/2603.02710), trained with lit_mimdit).

```python
from lit_mimdit.inference.pipeline import MiMDiTPipeline
pipeline = MiMDiTPipeline.from_pretrained("this folder")
pipeline(image).images[0].save("restored.png")
```

Needs `lit_mimdit` installed; Lightning is not imported. Without a generator the same photograph gives the same picture every time.

| | |
|---|---|
| branch | width {branch.width}, {", ".join(branch.groups)}, {branch.intra.experts} sub-experts each, {branch.base}, {branch.fusion} |
| sampling | {sampling["steps"]} steps, {sampling["solver"]}, from {sampling["start"]}, tiles of {sampling["tile"]} px |
| fidelity network | {"none" if self.fidelity is None else f"weight {self.config.fidelity_weight}"} |
| prompt | {self.config.prompt or "empty"} |
| licence | {licence} |

It invents detail: not for evidence, medicine or identification.
"""


def _tensor(picture: Picture) -> Tensor:
    """(3, H, W) float32 in [0, 1]."""
    if isinstance(picture, Image.Image):
        picture = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    tensor = (
        to_tensor(picture) if isinstance(picture, np.ndarray) else picture.detach().cpu().float()
    )
    if tensor.ndim != 3 or tensor.shape[0] != 3 or not tensor.numel():
        raise ValueError(
            f"image has shape {tuple(picture.shape)}: give RGB, a tensor (3, H, W) or an array (H,"
            " W, 3)"
        )
    return tensor


def _picture(tensor: Tensor, kind: str) -> Picture:
    if kind == "pt":
        return tensor
    array = tensor.permute(1, 2, 0).numpy()
    return array if kind == "np" else Image.fromarray((array * 255.0).round().astype(np.uint8))


def _seeds(generator: torch.Generator | Sequence[torch.Generator] | None, count: int) -> Tensor:
    """One seed an image, (count,) int64."""
    if generator is None:
        return torch.zeros(count, dtype=torch.int64)
    each = [generator] * count if isinstance(generator, torch.Generator) else list(generator)
    if len(each) != count:
        raise ValueError(
            f"generator holds {len(each)} for {count} images: give one, or one an image"
        )
    return torch.cat(
        [torch.randint(2**63 - 1, (1,), generator=one, device=one.device).cpu() for one in each]
    )
