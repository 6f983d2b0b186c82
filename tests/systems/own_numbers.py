"""Small golden files of our own numbers, which stay in the repository and are always tested.

    python tests/systems/own_numbers.py          writes tests/systems/own/NAME.safetensors anew

Each holds what this implementation made of weights that filling.py gives, in float64: outputs, and
losses with the norm of the whole gradient in the metadata. They say that nothing has changed; the
golden files of the authors' code say that it is right.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
for folder in (str(HERE.parents[1]), str(HERE)):
    if folder not in sys.path:
        sys.path.insert(0, folder)

import own_diffusion  # noqa: E402
import torch  # noqa: E402
from filling import fill_network, picture  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from lit_mimdit.systems.airnet import network as airnet_network  # noqa: E402
from lit_mimdit.systems.airnet import objective as airnet_objective  # noqa: E402
from lit_mimdit.systems.dgunet import network as dgunet_network  # noqa: E402
from lit_mimdit.systems.dgunet import objective as dgunet_objective  # noqa: E402
from lit_mimdit.systems.promptir import network as promptir_network  # noqa: E402
from lit_mimdit.systems.promptir import objective as promptir_objective  # noqa: E402
from lit_mimdit.systems.transweather import network as transweather_network  # noqa: E402
from lit_mimdit.systems.transweather import objective as transweather_objective  # noqa: E402

SEED = 2026
Numbers = tuple[dict[str, Tensor], dict[str, float]]


def _filled(network: nn.Module, gain: float = 1.0) -> nn.Module:
    return fill_network(network, SEED, gain=gain).double()


def _picture(name: str, *size: int) -> Tensor:
    return picture(SEED, name, (1, 3, *size)).double()


def _gradient(network: nn.Module, loss: Tensor) -> float:
    """The L2 norm of the gradient of all parameters together."""
    trained = [value for value in network.parameters() if value.requires_grad]
    gradients = torch.autograd.grad(loss, trained, allow_unused=True)
    return float(sum(g.square().sum() for g in gradients if g is not None).sqrt())


def airnet_numbers() -> Numbers:
    network = _filled(airnet_network.AirNetNetwork(1, 1, 4, (4, 6, 8), 8, 16))
    query, key, clean = (
        torch.cat([_picture(f"{which}{i}", 8, 12) for i in range(2)])
        for which in ("query", "key", "clean")
    )
    with torch.no_grad():
        output = network.eval()(query[:1])
    restored, logits, labels = network.train().forward_pair(query, key)
    loss = airnet_objective.loss(restored, clean, logits, labels)
    numbers = {"loss": loss.item(), "gradient": _gradient(network, loss)}
    tensors = {"output": output, "restored": restored, "logits": logits}
    return {**tensors, "queue": network.contrast.queue[:, :4]}, numbers


def _dgunet(plus: bool) -> Numbers:
    network = _filled(dgunet_network.DGUNetNetwork(4, 2, 2, 2, 2, plus), gain=0.8)
    pictures = network(_picture("input", 16, 24))
    loss = dgunet_objective.loss(
        pictures, _picture("clean", 16, 24), dgunet_objective.RECIPES["deraining"]
    )
    numbers = {"loss": loss.item(), "gradient": _gradient(network, loss)}
    return {"output": pictures[0], "first": pictures[-1]}, numbers


def transweather_numbers() -> Numbers:
    network = _filled(
        transweather_network.TransWeatherNetwork((4, 4, 8, 8), (4, 4), (1, 2, 2, 2), 2, 6)
    ).eval()
    restored = network(2 * _picture("input", 48, 64) - 1)
    clean = _picture("clean", 48, 64)
    loss = transweather_objective.loss(restored, clean, lambda x: [x, x.square()])
    numbers = {"loss": loss.item(), "gradient": _gradient(network, loss)}
    return {"output": restored[..., ::2, ::2].contiguous()}, numbers


def promptir_numbers() -> Numbers:
    network = _filled(
        promptir_network.PromptIRNetwork(
            4, (1, 1, 1, 1), 1, (1, 2, 2, 4), 2.66, True, (4, 4, 4), 3, (5, 3, 2)
        )
    )
    restored = network(_picture("input", 16, 24))
    loss = promptir_objective.loss(restored, _picture("clean", 16, 24))
    return {"output": restored}, {"loss": loss.item(), "gradient": _gradient(network, loss)}


CASES: dict[str, Callable[[], Numbers]] = {
    "airnet": airnet_numbers,
    "dgunet": lambda: _dgunet(False),
    "dgunet_plus": lambda: _dgunet(True),
    "transweather": transweather_numbers,
    "promptir": promptir_numbers,
    **own_diffusion.CASES,
}


def stored(name: str) -> Numbers:
    """The numbers of the file in the repository."""
    with safe_open(HERE / "own" / f"{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, json.loads(  # noqa: SIM118
            file.metadata()["numbers"]
        )


def demand_equal(name: str) -> None:
    """AssertionError unless the numbers of today are those of the file, within 1e-9."""
    tensors, numbers = CASES[name]()
    old_tensors, old_numbers = stored(name)
    assert tensors.keys() == old_tensors.keys() and numbers.keys() == old_numbers.keys()
    for key, value in old_tensors.items():
        torch.testing.assert_close(tensors[key].detach(), value, rtol=0, atol=1e-9)
    for key, value in old_numbers.items():
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
