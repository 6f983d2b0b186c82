"""Few-step distillation as a system: up to three branches on one frozen backbone.

The student is trained and exported, as an ordinary MiM-DiT. The teacher is frozen. The fake score,
which only distribution matching needs, learns what the student's results look like.
"""

from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor
from torch.nn.attention import sdpa_kernel

from lit_mimdit.inference.guidance import conditioned
from lit_mimdit.inference.sampler import SamplingConfig, euler, sample, times
from lit_mimdit.inference.system_class import class_path_of, load_into
from lit_mimdit.inference.system_file import KEY, SystemFile, load_system
from lit_mimdit.models.backbone import Backbone
from lit_mimdit.models.branch_config import BranchConfig
from lit_mimdit.models.condition import Prompt
from lit_mimdit.models.decisions import Decisions
from lit_mimdit.models.distillation import (
    distribution_gradient,
    is_students_turn,
    matching_error,
    surrogate,
    uniform_times,
    updates_before,
)
from lit_mimdit.models.flow import clean, interpolate, loss_per_sample, sample_noise, velocity
from lit_mimdit.models.latents import decoded, encode
from lit_mimdit.models.network import MiMDiTNetwork
from lit_mimdit.models.prompts import PromptConfig
from lit_mimdit.systems.base import METRICS, Losses
from lit_mimdit.systems.few_step.config import (
    DistillationConfig,
    TeacherConfig,
    require_trained_sampling,
)
from lit_mimdit.systems.latent import LATENT_VERSIONS
from lit_mimdit.systems.lpips import pretrained
from lit_mimdit.systems.mimdit import MiMDiT
from lit_mimdit.systems.optim import OptimizerConfig
from lit_mimdit.teacher_shards import identity_of, require_same_teacher

FAKE = "fake"  # the fake score's name within the trained branch
STREAM = 0x646D64  # sets the noise of distribution matching apart from a sample's other noise


class FewStep(MiMDiT):
    """A MiM-DiT that learns to make in a few steps what a teacher makes in many.

    Its exported file and what is restored from its checkpoints are a plain MiM-DiT, whose sampling
    is this one's.

    Args:
        backbone: `nano`, a diffusers folder of SD3.5, or a hub id. It is loaded once for all
            branches.
        branch: settings of the branch, for student, teacher and fake score alike.
        sampling: how the student restores, also from its exported file. `steps` must be one of
            `distillation.steps`.
        teacher: file of the teacher, and how it samples.
        distillation: losses that the student learns by, and their settings.
        optimizer: settings of the optimizer and its schedule. lr_scale `{fake: ...}` changes the
            fake score's rate.
        prompt: what the backbone is told about the images; the empty prompt unless given.
        fidelity: network that corrects what validation, test and predict restore: a file,
            `package`, or `null`, as in the paper.
        fidelity_weight: strength of that network's correction, from 0 to 1.
        backbone_dtype: precision the frozen weights are kept in.
        backbone_quantize: keep the frozen weights, and the large text encoder, in fewer bits:
            `nf4`, `int8`, `fp8` or `gguf:FILE`. `null` keeps them whole. They are computed with in
            backbone_dtype.
        init: exported system or checkpoint that the student starts from. `null` starts from the
            teacher.
        gradient_checkpointing: recompute activations in the backward pass: less memory, more time.
        compile: compile the blocks of backbone and student at the first step of training.
        attention: kernel of the attention in training: `auto` leaves the choice to PyTorch. `math`
            is faster on CPUs in bfloat16 at few tokens (benchmarks/attention.py).
        metrics: scores of `test` by key.
        versions: what validation and test score of each image.
    """

    TRAINING_ONLY: ClassVar[frozenset[str]] = MiMDiT.TRAINING_ONLY | {"teacher", "distillation"}

    def __init__(
        self,
        backbone: str,
        branch: BranchConfig,
        sampling: SamplingConfig,
        teacher: TeacherConfig | None = None,
        distillation: DistillationConfig | None = None,
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
            branch=branch,
            sampling=sampling,
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
        self.teacher_config = teacher or TeacherConfig()
        self.distillation = distillation or DistillationConfig()
        require_trained_sampling(sampling, self.distillation)
        self.teacher: MiMDiTNetwork | None = None
        self.fake: MiMDiTNetwork | None = None
        self.teacher_identity: dict[str, Any] = {}
        self.lpips = pretrained("model.distillation.lpips") if self.distillation.lpips else None
        self.only_student = False  # of a dry run: the costlier of the two steps

    # -- building

    def assemble(self, loaded: Backbone) -> None:
        """Put the branches around one backbone; the student's network comes first."""
        super().assemble(loaded)
        # here, since times have no values where a dry run's steps have none
        self.times_of = {
            count: times(loaded.scheduler, replace(self.sampling, steps=count))
            for count in self.distillation.steps
        }
        parts = loaded.transformer, self.branch_config, loaded.prompt
        self.teacher = MiMDiTNetwork(*parts).requires_grad_(False).eval()
        if self.distillation.distribution:
            self.fake = MiMDiTNetwork(*parts)
            # what is trained is one module, so that checkpoints, averages and guards hold all of it
            self.trained.add_module(FAKE, self.fake.branch)
            if self.gradient_checkpointing:
                self.fake.enable_gradient_checkpointing()

    def configure_model(self) -> None:
        """Load the backbone once, and start student and fake score from the teacher."""
        if self.network is None:
            self.assemble(self.load_backbone())
        if self._started:
            return
        self._started = True
        config = self.teacher_config
        taught = self._file(config.file, "model.teacher.file")
        self.teacher_identity = identity_of(taught, config.steps, config.solver)
        student = taught if self.init is None else self._file(self.init, "model.init")
        assert self.teacher is not None, "assemble makes it"
        where = f"model.teacher.file {config.file}"
        load_into(self.teacher.branch, taught.tensors, where)
        tensors = dict(student.tensors)
        if self.fake is not None:
            tensors |= {f"{FAKE}.{name}": tensor for name, tensor in taught.tensors.items()}
        load_into(self.trained, tensors, where if self.init is None else f"model.init {self.init}")

    def _file(self, name: str, key: str) -> SystemFile:
        """A MiM-DiT on this backbone; ValueError names the key if it is none."""
        file, where = load_system(name), f"{key} {name}"
        if file.class_path != class_path_of(MiMDiT) or file.backbone is None:
            raise ValueError(
                f"{where}: holds {file.class_path}, and distillation is for a MiM-DiT; give"
                f" the file of a {class_path_of(MiMDiT)}"
            )
        assert self.identity is not None, "assemble knows it"
        self.identity.require(file.backbone, where)
        return file

    def system_file(self) -> SystemFile:
        """Returns the student as an ordinary MiM-DiT, without the fake score."""
        file = super().system_file()
        own = {n: tensor for n, tensor in file.tensors.items() if not n.startswith(f"{FAKE}.")}
        return replace(file, class_path=class_path_of(MiMDiT), tensors=own)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint[KEY]["helpers"] = f"{FAKE}."

    def train(self, mode: bool = True) -> "FewStep":
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        if self.lpips is not None:
            self.lpips.eval()
        return self

    @classmethod
    def estimated(cls, arguments: dict[str, Any], gpu: bool, stage: int) -> dict[str, Any]:
        """See the base: a step of the student with the most sampling steps it learns."""
        own = super().estimated(arguments, gpu, stage)
        distillation = arguments["distillation"] or DistillationConfig()
        steps = [max(distillation.steps)]
        sampling = replace(arguments["sampling"], steps=steps[0])
        return own | {"distillation": replace(distillation, steps=steps), "sampling": sampling}

    def prepare_estimate(
        self, arguments: dict[str, Any], batch: dict[str, Any], gpu: bool, stage: int
    ) -> None:
        """See the base: the teacher's results are taken to be stored, as `data teacher` does."""
        super().prepare_estimate(arguments, batch, gpu, stage)
        self.only_student = True
        z_lq = encode(self.vae, batch["lq"])
        batch |= {"z_lq": z_lq, "z_gt": z_lq, "z_teacher": z_lq, "noise_seed": batch["seed"]}

    # -- training

    def on_train_start(self) -> None:
        """Raises ValueError for another teacher's results, and for a strategy that would not go on.

        Distributed strategies expect gradients of every parameter, and here they come in turn.
        That holds for one process as well.
        """
        super().on_train_start()
        trainer: Any = self.trainer  # Lightning does not declare its datamodule
        if self.distillation.asks_teacher:
            require_same_teacher(self.teacher_identity, trainer.datamodule)
        strategy = trainer.strategy
        options = strategy._ddp_kwargs if isinstance(strategy, DDPStrategy) else {}
        in_turn = isinstance(strategy, SingleDeviceStrategy) or options.get(
            "find_unused_parameters"
        )
        if self.fake is not None and not in_turn:
            raise ValueError(
                "model.distillation.distribution trains student and fake score in turn, and"
                f" {type(strategy).__name__} expects gradients of both: set trainer.strategy to"
                " ddp_find_unused_parameters_true, or to auto for one process"
            )

    def losses(self, batch: dict[str, Any]) -> Losses:
        """Returns the student's losses, or the fake score's in its turn.

        A batch without z_teacher is restored by the teacher on the spot, from noise of its own.
        """
        fakes_turn = (
            self.fake is not None
            and not self.only_student
            and not is_students_turn(self.global_step, self.distillation.fake_updates)
        )
        with sdpa_kernel(self.kernels):
            return self._of_fake(batch) if fakes_turn else self._of_student(batch)

    def _few_steps(
        self, z_lq: Tensor, prompt: Prompt, noise: Tensor, update: int
    ) -> tuple[Tensor, Decisions]:
        """The student's results by the published sampler, with gradients through every step."""
        assert self.network is not None, "configure_model assembles it"
        look, choices = conditioned(self.network, z_lq, prompt, 1.0), self.distillation.steps
        path = self.times_of[choices[update % len(choices)]]
        return euler(look.velocity, noise, path), look.routing

    def _of_student(self, batch: dict[str, Any]) -> Losses:
        weights, (students, _) = self.distillation, self._updates()
        z_lq, prompt = self._given(batch)
        fixed = weights.asks_teacher and "z_teacher" in batch
        noise = self._noise(batch["noise_seed" if fixed else "seed"], z_lq)[0]
        z, routing = self._few_steps(z_lq, prompt, noise, students)
        terms = {}
        if weights.asks_teacher:
            taught = batch["z_teacher"] if fixed else self._many_steps(z_lq, prompt, noise)
            if weights.matching:
                terms["matching"] = weights.matching * matching_error(z, taught)
            if weights.lpips:
                terms["lpips"] = weights.lpips * self._perceived(z, taught)
        if weights.distribution:
            gradient = self._gradient(batch, z_lq, prompt, z.detach())
            terms["distribution"] = weights.distribution * surrogate(z, gradient)
        per_sample = torch.stack(list(terms.values())).sum(0)
        return Losses(per_sample.mean(), per_sample, terms, routing)

    def _of_fake(self, batch: dict[str, Any]) -> Losses:
        """Rectified flow on the student's results (DMD2, arXiv 2405.14867, section 3)."""
        assert self.fake is not None, "its turn comes with distribution matching alone"
        z_lq, prompt = self._given(batch)
        with torch.no_grad():
            noise = self._noise(batch["seed"], z_lq)[0]
            z, routing = self._few_steps(z_lq, prompt, noise, self._updates()[1])
        x_t, other, t = self._noisy(batch, z)
        condition = self.fake.condition(z_lq, prompt)
        predicted = self.fake(x_t, t, condition, prompt)
        error = loss_per_sample(predicted, velocity(z, other), t, "velocity")
        return Losses(error.mean(), error.detach(), {FAKE: error}, routing)

    @torch.no_grad()
    def _gradient(self, batch: dict[str, Any], z_lq: Tensor, prompt: Prompt, z: Tensor) -> Tensor:
        """The direction of distribution matching: what both scores make of the same noisy z."""
        assert self.teacher is not None and self.fake is not None, "assemble makes them"
        x_t, _, t = self._noisy(batch, z)
        real, fake = (
            clean(x_t, network(x_t, t, network.condition(z_lq, prompt), prompt), t)
            for network in (self.teacher, self.fake)
        )
        return distribution_gradient(z, real, fake)

    @torch.no_grad()
    def _many_steps(self, z_lq: Tensor, prompt: Prompt, noise: Tensor) -> Tensor:
        """The teacher's results (B, C, H, W), as `data teacher` stores them."""
        assert self.teacher is not None, "assemble makes it"
        how = self.teacher_config
        config = replace(self.sampling, steps=how.steps, solver=how.solver)
        velocity_at = conditioned(self.teacher, z_lq, prompt, config.guidance).velocity
        return sample(velocity_at, z_lq, noise, self.scheduler, config)

    def _perceived(self, z: Tensor, taught: Tensor) -> Tensor:
        """LPIPS (B,) between the decoded results."""
        assert self.lpips is not None, "its weight is more than 0"
        with torch.no_grad():
            wanted = decoded(self.vae, taught)
        return self.lpips(decoded(self.vae, z), wanted).flatten(1).mean(1)

    def _given(self, batch: dict[str, Any]) -> tuple[Tensor, Prompt]:
        """The degraded latents and the prompt of a batch."""
        z_lq = batch["z_lq"] if "z_lq" in batch else encode(self.vae, batch["lq"])
        return z_lq, self.prompts.of_training(batch["id"], batch["seed"]).to(z_lq.device)

    def _noisy(self, batch: dict[str, Any], z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The student's results with noise, that noise, and its times (B,)."""
        noise, normal = self._noise(batch["seed"], z, STREAM)
        t = uniform_times(normal, *self.distillation.times)
        return interpolate(z, noise, t), noise, t

    @staticmethod
    def _noise(seeds: Tensor, like: Tensor, stream: int = 0) -> tuple[Tensor, Tensor]:
        """Noise of the shape of latents, and a normal number a sample, by their seeds."""
        noise, normal = sample_noise(seeds.cpu(), tuple(like.shape[1:]), stream)
        return noise.to(like), normal.to(like)

    def _updates(self) -> tuple[int, int]:
        """Returns how many updates of student and fake score there were."""
        if self.fake is None:
            return self.global_step, 0
        return updates_before(self.global_step, self.distillation.fake_updates)
