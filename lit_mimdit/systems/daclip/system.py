"""DA-CLIP as a system: a mean-reverting diffusion that is told what CLIP sees."""

import math
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from lit_mimdit.inference.seeded_restorer import Draw, Progress, SeededRestorer
from lit_mimdit.inference.system_class import class_path_of, load_into
from lit_mimdit.inference.system_file import is_own, load_system
from lit_mimdit.models.flow import sample_noise
from lit_mimdit.systems.base import METRICS, VERSIONS, Losses, RestorationSystem, plain
from lit_mimdit.systems.daclip import objective, official
from lit_mimdit.systems.daclip.clip import DegradationCLIP, TextConfig, VisionConfig
from lit_mimdit.systems.daclip.controller import Texts, random_view, read_texts, take_towers
from lit_mimdit.systems.daclip.network import UNet, UNetConfig
from lit_mimdit.systems.daclip.official import DACLIPNetwork
from lit_mimdit.systems.daclip.sampler import clip_pixels, clip_view, first_state, trajectory
from lit_mimdit.systems.official import read
from lit_mimdit.systems.optim import OptimizerConfig

if TYPE_CHECKING:
    from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig


class DACLIP(RestorationSystem):
    """DA-CLIP, ICLR 2024: a U-Net that removes the noise of an SDE, told by CLIP what is wrong.

    Training has two stages. The first trains the controller on words and captions and restores
    nothing. The second trains the U-Net and takes the controller's weights from `controller`.

    Args:
        stage: what is trained, `controller` or `unet`.
        unet: sizes of the U-Net.
        embed_dim: width of CLIP's embeddings.
        vision: sizes of CLIP's image tower.
        text: sizes of CLIP's text tower. Restoring does not read text.
        max_sigma: noise level of the SDE in grey levels.
        train_steps: steps `T` of the SDE in training.
        steps: steps of restoring. `null` takes `train_steps`.
        mode: how the reverse steps are taken: `posterior`, `sde` or `ode`.
        controller: trained controller with its CLIP: an official file, or an exported system or
            checkpoint of stage `controller`.
        clip: transformers' CLIP whose towers stay frozen in stage `controller`, a folder or hub id
            with its tokenizer. `null` starts from random towers and reads bytes, for small ones.
        captions: file with a caption of each clean image for stage `controller`, as in
            PromptConfig. Without it CLIP's embedding of the clean image takes the caption's place.
        train_controller: whether the controller is trained too, by the loss of the U-Net. The
            publication does not do so. It is for small networks, for which no controller exists.
        optimizer: settings of the optimizer and its schedule. Only training needs them.
        metrics: scores of `test` by key.
        versions: what validation and test score of each image.
        init: exported system or checkpoint to start from instead of fresh weights.
    """

    TRAINING_ONLY: ClassVar[frozenset[str]] = RestorationSystem.TRAINING_ONLY | {
        "captions",
        "clip",
        "controller",
        "train_controller",
    }

    def __init__(
        self,
        unet: UNetConfig | None = None,
        embed_dim: int = 512,
        vision: VisionConfig | None = None,
        text: TextConfig | None = None,
        max_sigma: float = 50.0,
        train_steps: int = 100,
        steps: int | None = None,
        mode: Literal["posterior", "sde", "ode"] = "posterior",
        controller: str | None = None,
        train_controller: bool = False,
        stage: Literal["controller", "unet"] = "unet",
        clip: str | None = None,
        captions: str | None = None,
        optimizer: OptimizerConfig | None = None,
        metrics: list[str] = METRICS,
        versions: list[str] = VERSIONS,
        init: str | None = None,
    ) -> None:
        super().__init__(optimizer, metrics, versions, init)
        config = unet or UNetConfig()
        self.sees = config.use_degra_context or config.use_image_context
        first = stage == "controller"
        if not first and self.sees and config.context_dim != embed_dim:
            raise ValueError(
                f"model.unet.context_dim is {config.context_dim} and model.embed_dim {embed_dim}:"
                " the U-Net reads CLIP's embeddings, so make them the same"
            )
        if first and (controller is not None or train_controller):
            raise ValueError(
                "model.stage is controller, which trains one: leave model.controller and"
                " model.train_controller out"
            )
        self.stage = stage
        self.clip, self.captions = clip, captions
        self.controller = controller
        self.train_controller = train_controller
        self.mode = mode
        seeing = DegradationCLIP(embed_dim, vision or VisionConfig(), text or TextConfig())
        seeing.requires_grad_(False)
        seeing.control.requires_grad_(train_controller or first)
        seeing.logit_scale.requires_grad_(first)
        self.network = DACLIPNetwork(seeing, None if first else UNet(config))
        self.texts: Texts | None = None  # of stage "controller"
        # not on the meta device, on which a dry run builds the rest
        with torch.device("cpu"):
            self.sde = objective.build_sde(max_sigma, train_steps)
            self.sampling_sde = objective.build_sde(max_sigma, train_steps, sample_T=steps)
        self._clip_read = False

    @property
    def trained(self) -> nn.Module:
        return self.network

    def configure_model(self) -> None:
        """Take the weights of CLIP or of the controller, once, and then those of `init`."""
        if not self._clip_read:
            self._clip_read = True
            if self.clip is not None and self.stage == "controller":
                take_towers(self.network.clip, self.clip)
            if self.controller is not None:
                self._take_controller(self.controller)
        super().configure_model()

    def _take_controller(self, path: str) -> None:
        """Copies a trained controller with its CLIP; ValueError if it has other sizes."""
        where = f"model.controller {path}"
        if is_own(Path(path)):
            tensors = load_system(path).tensors
            own = {k.removeprefix("clip."): v for k, v in tensors.items() if k.startswith("clip.")}
            load_into(self.network.clip, own, where)
            return
        _, vision, text = sizes = self.network.clip.sizes
        heads = {"vision_cfg": {"head_width": vision.head_width}, "text_cfg": {"heads": text.heads}}
        loaded = official.clip_from_official(read(path), **heads)
        if loaded.sizes != sizes:
            raise ValueError(
                f"{where}: its sizes are {loaded.sizes}, and the configuration has {sizes}; set"
                " embed_dim, vision and text to the file's"
            )
        self.network.clip.load_state_dict(loaded.state_dict())

    def configure_optimizers(self) -> "OptimizerLRSchedulerConfig":
        known = self.controller or self.init or self.train_controller or self.stage == "controller"
        if self.sees and not known:
            raise ValueError(
                "model.controller is missing: the U-Net is told what a trained controller sees;"
                " give daclip_ViT-B-32.pt, or set model.train_controller to learn it, other than"
                " published"
            )
        return super().configure_optimizers()

    @classmethod
    def from_official(cls, *files: Mapping[str, Any], **overrides: Any) -> "DACLIP":
        """Returns the system with the weights of the authors' two files.

        Args:
            files: content of the controller's file and of the U-Net's, in any order, or of one
                that holds both.
            overrides: `steps`, `mode`, and what official.from_official takes.

        Raises:
            ValueError: a file is another system's or incomplete, or one of the two is missing.
        """
        own = {k: overrides.pop(k) for k in ("steps", "mode") if k in overrides}
        network = official.both_from_official(*files, **overrides)
        embed_dim, vision, text = network.clip.sizes
        system = cls(network.unet.config, embed_dim, vision, text, **own)
        system.network.load_state_dict(network.state_dict())
        return system.eval()

    # loss = mean_b mean |x_{t-1}^SDE - x_{t-1}^opt|, t uniform in 1..T
    def losses(self, batch: dict[str, Any]) -> Losses:
        """Returns the distance of the predicted reverse step to the best one; its step and noise
        are drawn from each sample's seed.
        """
        if self.stage == "controller":
            return self._contrasts(batch)
        mu, clean = batch["lq"], batch["gt"]
        noise, normal = sample_noise(batch["seed"].cpu(), tuple(clean.shape[1:]))
        noise, t = noise.to(clean), objective.draw_step(normal, self.sde.steps).to(clean.device)
        degradation = content = None
        if self.sees:
            size = self.network.clip.sizes[1].image_size
            with torch.set_grad_enabled(self.train_controller and torch.is_grad_enabled()):
                content, degradation = self.network.clip.encode(clip_view(mu, size))
        x_t = objective.marginal(self.sde, clean, mu, t, noise)
        time = self.sde.time.to(clean)[t]
        predicted = self.network.unet(x_t, mu, time, degradation, content).float()
        error = objective.restoration_error(self.sde, x_t, mu, t, predicted, clean)
        return Losses(error.mean(), error, {"step": error}, t=t / self.sde.steps)

    # loss = clip(e_img, caption) + clip(e_deg, word)
    def _contrasts(self, batch: dict[str, Any]) -> Losses:
        """Returns how far each image's embeddings are from its caption's and its degradation's
        word.
        """
        net, device = self.network.clip, batch["lq"].device
        texts, size = self._read_texts(), net.sizes[1].image_size
        content, degradation = net.encode(random_view(batch["lq"], size, batch["seed"]))
        with torch.no_grad():
            word = net.text(texts.words(batch["degradation"]).to(device))
            caption = texts.captions(batch["id"])
            target = (
                net.content(random_view(batch["gt"], size, batch["seed"]))
                if caption is None
                else net.text(caption.to(device))
            )
        terms = {
            "caption": self._contrast(content, target),
            "word": self._contrast(degradation, word),
        }
        per_sample = terms["caption"] + terms["word"]
        return Losses(per_sample.mean(), per_sample, terms)

    def _contrast(self, images: Tensor, texts: Tensor) -> Tensor:
        """CLIP's contrast of each pair with the pairs of all processes, (B,)."""
        scale = self.network.clip.logit_scale.exp()
        if self._trainer is None or self.trainer.world_size == 1:
            return objective.clip_errors(images, texts, scale)
        # (processes, B, E); gradients reach the images of the others
        every_image = cast(Tensor, self.all_gather(images, sync_grads=True)).flatten(0, 1)
        every_text = cast(Tensor, self.all_gather(texts)).flatten(0, 1)
        first = self.global_rank * len(images)
        return objective.clip_errors(images, texts, scale, every_image, every_text, first)

    def _read_texts(self) -> Texts:
        if self.texts is None:
            text = self.network.clip.sizes[2]
            self.texts = read_texts(self.clip, self.captions, text.context_length, text.vocab_size)
        return self.texts

    def prepare_estimate(
        self, arguments: dict[str, Any], batch: dict[str, Any], gpu: bool, stage: int
    ) -> None:
        if self.stage == "controller":  # tokens of the same number, without files
            text = self.network.clip.sizes[2]
            captions = None if self.captions is None else dict.fromkeys(batch["id"], "")
            self.texts = Texts(None, captions, text.context_length, text.vocab_size)

    def on_fit_start(self) -> None:
        """Raises ValueError for a run that could not end as it is configured."""
        if self.stage != "controller":
            return
        if self.trainer.enable_validation:
            raise ValueError(
                "model.stage is controller, which restores nothing, so it cannot be validated; set"
                " trainer.limit_val_batches to 0"
            )
        self._read_texts()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, and keep the scale of the contrasts between 1 and 100, as published."""
        super().optimizer_step(*args, **kwargs)
        if self.stage == "controller":
            with torch.no_grad():
                self.network.clip.logit_scale.clamp_(0.0, math.log(100.0))

    def published_rate(self, epoch: int) -> float:
        """Returns a cosine from 2e-4 to 1e-6 at an iteration; here the schedule's unit is a step.

        It takes 700,000 iterations, in the wild variant 500,000.
        """
        if self.stage == "controller":
            return super().published_rate(epoch)
        wild = not self.network.unet.config.use_degra_context
        return objective.learning_rate(epoch, 500_000 if wild else 700_000)

    def _steps_per_epoch(self) -> int | None:
        return 1  # the publication counts iterations

    def restorer(self) -> SeededRestorer:
        """Returns what restores with the U-Net; ValueError in stage "controller"."""
        if self.stage == "controller":
            raise ValueError(
                "this is DA-CLIP's controller, which restores nothing by itself; train the U-Net"
                " with it, with model.stage unet and this file as model.controller"
            )
        kept = {
            name: plain(value)
            for name, value in self.arguments.items()
            if name not in self.TRAINING_ONLY
        }
        steps = self.sampling_sde.steps
        return SeededRestorer(
            self.network,
            self._restore,
            lambda height, width: steps,
            {"class_path": class_path_of(type(self))} | kept,
            {"steps": steps, "mode": self.mode},
        )

    def _restore(self, image: Tensor, draw: Draw, progress: Progress, id: str | None) -> Tensor:
        net = self.network
        content = degradation = None
        if self.sees:
            seen = (image[0] * 255).round().byte().permute(1, 2, 0).cpu().numpy()
            pixels = clip_pixels(seen, net.clip.sizes[1].image_size)[None].to(image)
            content, degradation = net.clip.encode(pixels)

        def noise(x: Tensor, t: Tensor) -> Tensor:
            predicted = net.unet(x, image, t, degradation, content)
            progress(1)
            return predicted

        noises = (draw(image) for _ in count())
        start = first_state(self.sampling_sde, image, next(noises))
        *_, restored = trajectory(self.sampling_sde, noise, image, start, self.mode, noises)
        return restored
