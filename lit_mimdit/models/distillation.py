"""Few-step distillation: every formula of it, each a pure function.

z = the student's result and z_T = the teacher's for the same noise, (B, C, H, W). Times are in
[0, 1]: 0 is the clean latent and 1 pure noise, as in models/flow.py.
"""

import math

from torch import Tensor


# L = mean |z - z_T|^2      (the regression of DMD, arXiv 2311.18828, eq. 9, on latents)
def matching_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Returns the mean squared distance of each result to the teacher's, (B,) float32."""
    return (student.float() - teacher.float()).square().flatten(1).mean(1)


# t = a + (b - a) Phi(n), n ~ N(0, 1), so that t is uniform in [a, b]
def uniform_times(normal: Tensor, low: float, high: float) -> Tensor:
    """Returns times (B,) uniform in [low, high] from standard normal numbers (B,)."""
    return low + (high - low) * 0.5 * (1.0 + (normal / math.sqrt(2.0)).erf())


# g = (x_fake - x_real) / mean |z - x_real|,  x = E[x_0 | x_t] of the fake and of the real score
# (DMD, arXiv 2311.18828, eqs. 7 and 8; DMD2, arXiv 2405.14867, eq. 1). For rectified flow
# grad log p(x_t) = ((1 - t) E[x_0 | x_t] - x_t) / t^2, so the difference of the clean latents is
# that of the scores times t^2 / (1 - t).
def distribution_gradient(student: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """Returns the direction in which the student's results must not go, (B, C, H, W).

    It estimates, but for a positive factor a sample, the gradient of the Kullback-Leibler
    divergence between the student's results and the data.

    Args:
        student: the student's results.
        real: clean latents that the teacher foretells for the student's results with noise.
        fake: those that the fake score foretells for the same noisy latents.
    """
    apart = (student - real).abs().flatten(1).mean(1).clamp_min(1e-6)
    return (fake - real) / apart.view(-1, *[1] * (student.ndim - 1))


# L = N / 2 mean |z - sg(z - g)|^2 over N numbers, whose gradient by z is g, per sample 1 / N
def surrogate(student: Tensor, gradient: Tensor) -> Tensor:
    """Returns losses (B,) float32 whose gradients by `student` are `gradient` / numbers a sample.

    The value itself means nothing but the gradient's size: half its mean square.
    """
    target = (student - gradient).detach()
    return 0.5 * (student.float() - target.float()).square().flatten(1).mean(1)


# The fake score is trained in steps 0..R-1 of every R + 1, the student in step R: R fake updates
# an update of the student (DMD2, arXiv 2405.14867, section 4.2, R = 5)
def is_students_turn(step: int, fake_updates: int) -> bool:
    """Returns whether the optimizer step `step`, counted from 0, trains the student."""
    return step % (fake_updates + 1) == fake_updates


def updates_before(step: int, fake_updates: int) -> tuple[int, int]:
    """Returns how many updates of the student and of the fake score lie before a step."""
    students = step // (fake_updates + 1)
    return students, step - students
