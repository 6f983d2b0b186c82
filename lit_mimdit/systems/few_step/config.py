"""The settings of few-step distillation: the teacher, and what is made of it."""

from dataclasses import dataclass, field

from lit_mimdit.inference.sampler import SamplingConfig, Solver
from lit_mimdit.inference.system_file import PACKAGE


@dataclass
class TeacherConfig:
    """The teacher, and how it samples.

    Args:
        file: exported system or checkpoint of a MiM-DiT on the same backbone, or `package`.
        steps: steps that the teacher's solver takes; 40 in the paper.
        solver: solver that the teacher samples with, see SamplingConfig.
    """

    file: str = PACKAGE
    steps: int = 40
    solver: Solver = "euler"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"model.teacher.steps is {self.steps}: at least 1 is needed")


@dataclass
class DistillationConfig:
    """The weights of the student's three losses, and their settings.

    Teacher matching is `matching`, with or without `lpips`. Distribution matching is
    `distribution` alone, as in DMD2, or with `matching`, as in DMD.

    Args:
        steps: numbers of sampling steps that the student learns. They are taken in turn, one a
            batch.
        matching: weight of the squared distance of latents to the teacher's results.
        lpips: weight of LPIPS between the decoded results.
        distribution: weight of the distribution-matching loss. It needs a third branch, the fake
            score.
        fake_updates: updates of the fake score before each of the student's, in distribution
            matching; 5 in DMD2.
        times: lowest and highest time of the noise in distribution matching; the default is DMD's.
    """

    steps: list[int] = field(default_factory=lambda: [1, 2, 4])
    matching: float = 1.0
    lpips: float = 0.0
    distribution: float = 0.0
    fake_updates: int = 5
    times: tuple[float, float] = (0.02, 0.98)

    def __post_init__(self) -> None:
        if not self.steps or min(self.steps) < 1:
            raise ValueError(
                f"model.distillation.steps is {self.steps}: give at least one number, each 1 or"
                " more"
            )
        weights = {name: getattr(self, name) for name in ("matching", "lpips", "distribution")}
        if min(weights.values()) < 0 or not any(weights.values()):
            said = ", ".join(f"{name} {value:g}" for name, value in weights.items())
            raise ValueError(
                f"model.distillation has the weights {said}: none may be below 0, and one must be"
                " more"
            )
        if self.fake_updates < 1:
            raise ValueError(
                f"model.distillation.fake_updates is {self.fake_updates}: at least 1 is needed"
            )
        low, high = self.times
        if not 0 < low < high < 1:
            raise ValueError(
                f"model.distillation.times are {low:g} and {high:g}: both must lie between 0 and 1,"
                " the lower first"
            )

    @property
    def asks_teacher(self) -> bool:
        """Returns whether the student is compared with the teacher's results for the same noise."""
        return self.matching > 0 or self.lpips > 0


def require_trained_sampling(sampling: SamplingConfig, distillation: DistillationConfig) -> None:
    """Raises ValueError for a way of sampling that the student does not learn."""
    if sampling.steps not in distillation.steps:
        raise ValueError(
            f"model.sampling.steps is {sampling.steps}, and the student learns"
            f" {distillation.steps}: set it to one of them, or add it to model.distillation.steps"
        )
    wanted = {"solver": "euler", "start": "noise", "guidance": 1.0}
    for name, value in wanted.items():
        if getattr(sampling, name) != value:
            raise ValueError(
                f"model.sampling.{name} is {getattr(sampling, name)!r}, and the student learns from"
                f" {value!r} alone: set it to {value!r}"
            )
