"""The diffusion schedule of AutoDIR and the loss of its last training stage, as pure functions.

Source: arXiv 2310.10123 and the released model class. The recipes of the first stages were never
released, so AutoDIR restores here and is not trained.
"""

import torch
from torch import Tensor

STEPS = 1000
DROP = 0.10  # probability of the null text, and, drawn apart, of an empty LQ latent


# beta_i = (sqrt(0.00085) + (sqrt(0.012) - sqrt(0.00085)) i/999)^2
def betas() -> Tensor:
    """Returns the variances of the 1000 noise steps, float64."""
    return torch.linspace(0.00085**0.5, 0.012**0.5, STEPS, dtype=torch.float64) ** 2


# abar_i = prod_{j<=i} (1 - beta_j)
def alphas_cumprod() -> Tensor:
    """Returns what is left of the clean latent's variance at each step, (1000,) in float64."""
    return (1 - betas()).cumprod(0)


# sigma_i = sqrt((1 - abar_i)/abar_i)
def sigmas_table() -> Tensor:
    """Returns the noise level of each step, (1000,) in float64, rising to 14.61."""
    abar = alphas_cumprod()
    return ((1 - abar) / abar).sqrt()


def _abar(t: Tensor, like: Tensor) -> Tensor:
    return alphas_cumprod().to(like)[t][:, None, None, None]


# x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps
def noisy(clean: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """Returns latents (B, 4, h, w) at steps `t` (B,)."""
    abar = _abar(t, clean)
    return abar.sqrt() * clean + (1 - abar).sqrt() * noise


# x_0 = (x_t - sqrt(1 - abar_t) eps)/sqrt(abar_t)
def implied_clean(x_t: Tensor, t: Tensor, predicted: Tensor) -> Tensor:
    """Returns the clean latent that the predicted noise implies."""
    abar = _abar(t, x_t)
    return (x_t - (1 - abar).sqrt() * predicted) / abar.sqrt()


# w_t = beta_t^2/(2 v_t alpha_t (1 - abar_t)), v_t = beta_t (1 - abar_{t-1})/(1 - abar_t), w_0 = w_1
# bound = mean_b w_t mean (eps_hat - eps)^2     (Ho et al., arXiv 2006.11239, eq. 12)
def variational_bound(predicted: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Returns the weighted error of the noise, a scalar; the released class logs it only."""
    beta, abar = betas(), alphas_cumprod()
    before = torch.cat([abar.new_ones(1), abar[:-1]])
    weights = beta / (2 * (1 - before) * (1 - beta))
    weights[0] = weights[1]
    return (weights.to(noise)[t] * (predicted - noise).square().mean((1, 2, 3))).mean()


# fidelity = mean_b (1 - sum_d sqrt(p_d g_d + 1e-8)) / 8
def fidelity_loss(probabilities: Tensor, truth: Tensor) -> Tensor:
    """Returns how far the probabilities (B, 8) are from the one-hot truth (B, 8), a scalar."""
    return (1 - (probabilities * truth + 1e-8).sqrt().sum(dim=1)).mean() / truth.shape[1]


# loss = mean (eps_hat - eps)^2 + fidelity + mean (R - clean)^2
def correction_loss(
    predicted: Tensor,
    noise: Tensor,
    probabilities: Tensor,
    truth: Tensor,
    corrected: Tensor,
    clean: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the loss of the last stage and its parts: diffusion, fidelity, correction.

    Only the correction network has gradients there.
    """
    diffusion = (predicted - noise).square().mean()
    fidelity = fidelity_loss(probabilities, truth)
    correction = (corrected - clean).square().mean()
    return diffusion + fidelity + correction, diffusion, fidelity, correction
