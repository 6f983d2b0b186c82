"""The files of a fidelity network (models/fidelity.py) and of a SceneLight, safetensors.

Who trains such a network reads and writes it here, without all that restoring needs.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from lit_mimdit.files import write_bytes
from lit_mimdit.models.fidelity import Fidelity, Sizes
from lit_mimdit.models.scene_light import SceneLight

FORMAT = "lit_mimdit.fidelity.3"
CLEANING = "lit_mimdit.fidelity.4"  # has a cleaner, too
LIT = "lit_mimdit.fidelity.5"  # has a light, and may have a cleaner
DEBLURRING = "lit_mimdit.fidelity.6"  # has a deblurrer, and may have the others
FORMATS = FORMAT, CLEANING, LIT, DEBLURRING
LIGHT = "lit_mimdit.scene_light.1"  # a SceneLight by itself
KEY = "lit_mimdit"


def save_fidelity(path: Path, network: Fidelity) -> None:
    """Write a network as one safetensors file of float16, whole or not at all."""
    about = {"format": FORMAT, **_named(network.sizes)}
    if network.cleaner is not None:
        about |= {"format": CLEANING, "cleaner": _named(network.cleaner.sizes)}
    if network.scene_light is not None:
        about |= {"format": LIT, "light": network.scene_light.sizes}
    if network.deblurrer is not None:
        about |= {"format": DEBLURRING, "deblurrer": _named(network.deblurrer.sizes)}
    _write(path, network, about)


def save_light(path: Path, network: SceneLight) -> None:
    """Write a SceneLight by itself, as `save_fidelity` does."""
    _write(path, network, {"format": LIGHT, "light": network.sizes})


def _write(path: Path, network: nn.Module, about: dict[str, Any]) -> None:
    tensors = {
        name: tensor.detach().cpu().half().contiguous()
        for name, tensor in network.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, save(tensors, {KEY: json.dumps(about)}))


def _named(sizes: Sizes) -> dict[str, Any]:
    return dict(zip(("widths", "blocks", "gain"), sizes, strict=True))


def _sizes(values: dict[str, Any]) -> Sizes:
    return tuple(values["widths"]), values["blocks"], values.get("gain", False)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns what a file says of itself, and its tensors, float32."""
    with safe_open(path, "pt") as handle:
        values = json.loads((handle.metadata() or {}).get(KEY, "{}"))
        names = handle.keys()  # it is no mapping
        return values, {name: handle.get_tensor(name).float() for name in names}


BROKEN = SafetensorError, ValueError, KeyError, TypeError, RuntimeError


def read_fidelity(path: Path) -> Fidelity:
    """Returns the network of a file, float32; ValueError if it is no such file."""
    try:
        values, tensors = _read(path)
        if values.get("format") not in FORMATS:
            raise ValueError(
                f"its format is {values.get('format')!r} and none of {', '.join(FORMATS)}"
            )
        cleaner, deblurrer = (
            _sizes(values[name]) if name in values else None for name in ("cleaner", "deblurrer")
        )
        light = tuple(values["light"]) if "light" in values else None
        network = Fidelity(*_sizes(values), cleaner, light, deblurrer)
        network.load_state_dict(tensors)
    except BROKEN as error:
        raise ValueError(
            f"fidelity {path}: not a fidelity network ({error}); give a file that a run of"
            " experiments/nano/fidelity.yaml wrote"
        ) from error
    return network


def read_light(path: Path) -> SceneLight:
    """Returns the SceneLight of a file, float32; ValueError if it is no such file."""
    try:
        values, tensors = _read(path)
        if values.get("format") != LIGHT:
            raise ValueError(f"its format is {values.get('format')!r} and not {LIGHT!r}")
        network = SceneLight(*values["light"])
        network.load_state_dict(tensors)
    except (OSError, *BROKEN) as error:
        raise ValueError(
            f"light {path}: not the light of a scene ({error}); give a file that a run of"
            " experiments/nano/wide_light.yaml wrote"
        ) from error
    return network
