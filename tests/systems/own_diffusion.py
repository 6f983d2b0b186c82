"""The small networks of which own/ keeps our numbers: DiffIR, DiffUIR, FoundIR's specialists."""

import torch
from filling import fill_network, picture

from lit_mimdit.models.residual_diffusion import ResidualDiffusion
from lit_mimdit.models.restormer_network import Restormer
from lit_mimdit.systems.diffir import objective
from lit_mimdit.systems.diffir.network import FirstStage, SecondStage
from lit_mimdit.systems.diffir.sampler import generate, schedule_of
from lit_mimdit.systems.foundir.wave_mamba import WaveMamba

SEED = 2026
SIZES = {
    "dim": 8,
    "num_blocks": (1, 1, 1, 1),
    "num_refinement_blocks": 1,
    "n_feats": 4,
    "n_encoder_res": 1,
}


def _filled(network):
    return fill_network(network, SEED).double()


def _picture(name, *size):
    return picture(SEED, name, (1, 3, *size)).double()


def _normal(name, *shape):
    uniform = picture(SEED, name, shape, 1e-6, 1 - 1e-6).double()
    return torch.special.ndtri(uniform)


def _gradient(network, loss):
    """The L2 norm of the gradient of all parameters together."""
    gradients = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    return float(sum(g.square().sum() for g in gradients if g is not None).sqrt())


def diffir():
    first, second = _filled(FirstStage(**SIZES)), _filled(SecondStage(**SIZES))
    degraded, clean = _picture("input", 16, 24), _picture("clean", 16, 24)
    noise = _normal("noise", 1, 16)
    with torch.no_grad():
        restored, target = first(degraded, clean)
        output = generate(second, degraded[..., 1:, 3:], noise)
    prior = objective.distilled_prior(second, degraded, target, noise, schedule_of(second))
    loss = objective.joint_loss(second.restorer(degraded, prior), clean, prior, target)
    tensors = {"first": restored, "target": target, "prior": prior, "output": output}
    return tensors, {"loss": loss.item(), "gradient": _gradient(second, loss)}


def _process(delta_end, steps):
    network = _filled(ResidualDiffusion(8, (1, 2), delta_end, steps))
    degraded, clean = _picture("input", 14, 18), _picture("clean", 14, 18)
    noise = _normal("noise", 1, 3, 14, 18)
    with torch.no_grad():
        output = network(degraded, noise)
    loss = network.loss(degraded, clean, noise, torch.tensor([700]))
    return {"output": output}, {"loss": loss.item(), "gradient": _gradient(network, loss)}


def diffuir():
    return _process(1.8e-3, 3)


def foundir():
    tensors, numbers = _process(1.4e-3, 4)
    image = _picture("input", 16, 24)
    low = _filled(WaveMamba(3, 8, (1, 1, 1), (1, 1, 1)))
    with torch.no_grad():
        tensors["weather"] = _filled(Restormer(dim=8, num_blocks=(1,) * 4))(image)
        tensors["low_light"] = low(image)
    return tensors, numbers


CASES = {"diffir": diffir, "diffuir": diffuir, "foundir": foundir}
