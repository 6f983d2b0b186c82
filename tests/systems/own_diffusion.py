"""Small golden files of our own numbers for DiffIR, DiffUIR and FoundIR, which never skip.

    python tests/systems/own_diffusion.py        writes tests/systems/own/NAME.safetensors anew

Each holds what this implementation made of weights that filling.py gives, in float64. They say that
nothing has changed; the golden files of the authors' code say that it is right.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
for folder in (str(HERE.parents[1]), str(HERE)):
    if folder not in sys.path:
        sys.path.insert(0, folder)

import torch  # noqa: E402
from filling import fill_network, picture  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from lit_mimdit.models.residual_diffusion import ResidualDiffusion  # noqa: E402
from lit_mimdit.models.restormer_network import Restormer  # noqa: E402
from lit_mimdit.systems.diffir import objective  # noqa: E402
from lit_mimdit.systems.diffir.network import FirstStage, SecondStage  # noqa: E402
from lit_mimdit.systems.diffir.sampler import generate, schedule_of  # noqa: E402
from lit_mimdit.systems.foundir.wave_mamba import WaveMamba  # noqa: E402

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


def demand_equal(name):
    """AssertionError unless the numbers of today are those of the file, within 1e-9."""
    tensors, numbers = CASES[name]()
    with safe_open(HERE / "own" / f"{name}.safetensors", "pt") as file:
        stored = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        facts = json.loads(file.metadata()["numbers"])
    assert tensors.keys() == stored.keys() and numbers.keys() == facts.keys()
    for key, value in stored.items():
        torch.testing.assert_close(tensors[key].detach(), value, rtol=0, atol=1e-9)
    for key, value in facts.items():
        relative = 1e-9 if key == "loss" else 1e-7
        assert abs(numbers[key] - value) <= relative * abs(value), (key, numbers[key], value)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case, make in CASES.items():
        tensors, numbers = make()
        save_file(
            {key: value.detach().contiguous() for key, value in tensors.items()},
            HERE / "own" / f"{case}.safetensors",
            {"numbers": json.dumps(numbers)},
        )
        print(case, numbers)
