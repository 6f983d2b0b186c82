"""The file of a fidelity network (models/fidelity.py), safetensors.

Who trains such a network reads and writes it here, without all that restoring needs.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from lit_mimdit.files import write_bytes
from lit_mimdit.models.fidelity import Fidelity, Sizes

FORMAT = "lit_mimdit.fidelity.3"
CLEANING = "lit_mimdit.fidelity.4"  # has a cleaner, too
KEY = "lit_mimdit"


def save_fidelity(path: Path, network: Fidelity) -> None:
    """Write a network as one safetensors file of float16, whole or not at all."""
    tensors = {
        name: tensor.detach().cpu().half().contiguous()
        for name, tensor in network.state_dict().items()
    }
    about = {"format": FORMAT, **_named(network.sizes)}
    if network.cleaner is not None:
        about |= {"format": CLEANING, "cleaner": _named(network.cleaner.sizes)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, save(tensors, {KEY: json.dumps(about)}))


def _named(sizes: Sizes) -> dict[str, Any]:
    return dict(zip(("widths", "blocks", "gain"), sizes, strict=True))


def _sizes(values: dict[str, Any]) -> Sizes:
    return tuple(values["widths"]), values["blocks"], values.get("gain", False)


def read_fidelity(path: Path) -> Fidelity:
    """Returns the network of a file, float32; ValueError if it is no such file."""
    try:
        with safe_open(path, "pt") as handle:
            values = json.loads((handle.metadata() or {}).get(KEY, "{}"))
            names = handle.keys()  # it is no mapping
            tensors = {name: handle.get_tensor(name).float() for name in names}
        if values.get("format") not in (FORMAT, CLEANING):
            raise ValueError(
                f"its format is {values.get('format')!r} and not {FORMAT!r} or {CLEANING!r}"
            )
        cleaner = _sizes(values["cleaner"]) if "cleaner" in values else None
        network = Fidelity(*_sizes(values), cleaner)
        network.load_state_dict(tensors)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"fidelity {path}: not a fidelity network ({error}); give a file that a run of"
            " experiments/nano/fidelity.yaml wrote"
        ) from error
    return network
