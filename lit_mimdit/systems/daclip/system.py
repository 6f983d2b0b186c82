"""DA-CLIP as a system: a mean-reverting diffusion that is told what CLIP sees."""

from collections.abc import Mapping
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from lit_mimdit.inference.seeded_restorer import Draw, Progress, SeededRestorer
from lit_mimdit.inference.system_file import class_path_of
from lit_mimdit.models.flow import sample_noise
from lit_mimdit.models.padding import pad_to_multiple
from lit_mimdit.systems.base import METRICS, VERSIONS, Losses, RestorationSystem, plain
from lit_mimdit.systems.daclip import objective, official
from lit_mimdit.systems.daclip.clip import DegradationCLIP, TextConfig, VisionConfig
from lit_mimdit.systems.daclip.network import UNet, UNetConfig
from lit_mimdit.systems.daclip.official import DACLIPNetwork
from lit_mimdit.systems.daclip.sampler import clip_pixels, clip_view, first_state, trajectory
from lit_mimdit.systems.official import read
from lit_mimdit.systems.optim import OptimizerConfig

if TYPE_CHECKING:
    from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig


class DACLIP(RestorationSystem):
    """DA-CLIP, ICLR 2024: a U-Net that removes the noise of an SDE, told by CLIP what is wrong.

    `fit` trains the U-Net, the second stage. The first trains the controller on captions, which
    pairs of images do not have; its weights come from `controller`.

    Args:
        unet: sizes of the U-Net.
        embed_dim: width of CLIP's embeddings.
        vision: sizes of CLIP's image tower.
        text: sizes of CLIP's text tower. Restoring does not read text.
        max_sigma: noise level of the SDE in grey levels.
        train_steps: steps `T` of the SDE in training.
        steps: steps of restoring. `null` takes `train_steps`.
        mode: how the reverse steps are taken: `posterior`, `sde` or `ode`.
        controller: official file of a trained controller with its CLIP.
        train_controller: whether the controller is trained too, by the loss of the U-Net. The
            publication does not do so. It is for small networks, for which no controller exists.
        optimizer: settings of the optimizer and its schedule. Only training needs them.
        metrics: scores of `test` by key.
        versions: what validation and test score of each image.
        init: exported system or checkpoint to start from instead of fresh weights.
    """

    TRAINING_ONLY: ClassVar[frozenset[str]] = RestorationSystem.TRAINING_ONLY | {
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
        optimizer: OptimizerConfig | None = None,
        metrics: list[str] = METRICS,
        versions: list[str] = VERSIONS,
        init: str | None = None,
    ) -> None:
        super().__init__(optimizer, metrics, versions, init)
        config = unet or UNetConfig()
        self.sees = config.use_degra_context or config.use_image_context
        if self.sees and config.context_dim != embed_dim:
            raise ValueError(
                f"model.unet.context_dim is {config.context_dim} and model.embed_dim {embed_dim}:"
                " the U-Net reads CLIP's embeddings, so make them the same"
            )
        self.controller = controller
        self.train_controller = train_controller
        self.mode = mode
        clip = DegradationCLIP(embed_dim, vision or VisionConfig(), text or TextConfig())
        self.network = DACLIPNetwork(clip.requires_grad_(False), UNet(config))
        clip.control.requires_grad_(train_controller)
        # not on the meta device, on which a dry run builds the rest
        with torch.device("cpu"):
            self.sde = objective.build_sde(max_sigma, train_steps)
            self.sampling_sde = objective.build_sde(max_sigma, train_steps, sample_T=steps)
        self._controller_read = False

    @property
    def trained(self) -> nn.Module:
        return self.network

    def configure_model(self) -> None:
        """Take the controller's weights, once, and then those of `init`."""
        if self.controller is not None and not self._controller_read:
            self._controller_read = True
            _, vision, text = sizes = self.network.clip.sizes
            heads = {
                "vision_cfg": {"head_width": vision.head_width},
                "text_cfg": {"heads": text.heads},
            }
            loaded = official.clip_from_official(read(self.controller), **heads)
            if loaded.sizes != sizes:
                raise ValueError(
                    f"model.controller {self.controller}: its sizes are {loaded.sizes}, and the"
                    f" configuration has {sizes}; set embed_dim, vision and text to the file's"
                )
            self.network.clip.load_state_dict(loaded.state_dict())
        super().configure_model()

    def configure_optimizers(self) -> "OptimizerLRSchedulerConfig":
        known = self.controller or self.init or self.train_controller
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

    def published_rate(self, epoch: int) -> float:
        """Returns a cosine over 700,000 iterations, from 2e-4 to 1e-6."""
        return objective.learning_rate(epoch * (self._steps_per_epoch() or 0))

    def restorer(self) -> SeededRestorer:
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
        multiple = self.network.unet.multiple
        (height, width) = image.shape[-2:]
        content = degradation = None
        if self.sees:
            seen = (image[0] * 255).round().byte().permute(1, 2, 0).cpu().numpy()
            pixels = clip_pixels(seen, net.clip.sizes[1].image_size)[None].to(image)
            content, degradation = net.clip.encode(pixels)
        # The U-Net mirrors the border itself; images too small for that are extended before.
        small = -height % multiple >= height or -width % multiple >= width
        mu = pad_to_multiple(image, multiple) if small else image

        def noise(x: Tensor, t: Tensor) -> Tensor:
            predicted = net.unet(x, mu, t, degradation, content)
            progress(1)
            return predicted

        noises = (draw(mu) for _ in count())
        start = first_state(self.sampling_sde, mu, next(noises))
        *_, restored = trajectory(self.sampling_sde, noise, mu, start, self.mode, noises)
        return restored[..., :height, :width]
