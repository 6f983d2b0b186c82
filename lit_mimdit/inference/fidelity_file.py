"""The file of a fidelity network (models/fidelity.py), safetensors.

Who trains such a network reads and writes it here, without all that restoring needs.
"""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from lit_mimdit.files import write_bytes
from lit_mimdit.models.fidelity import Fidelity

FORMAT = "lit_mimdit.fidelity.3"
KEY = "lit_mimdit"


def save_fidelity(path: Path, network: Fidelity) -> None:
    """Write a network as one safetensors file of float16, whole or not at all."""
    tensors = {
        name: tensor.detach().cpu().half().contiguous()
        for name, tensor in network.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(
        path,
        save(
            tensors,
            {
                KEY: json.dumps(
                    {
                        "format": FORMAT,
                        "widths": network.widths,
                        "blocks": network.blocks,
                        "gain": network.gain,
                    }
                )
            },
        ),
    )


def read_fidelity(path: Path) -> Fidelity:
    """Returns the network of a file, float32; ValueError if it is no such file."""
    try:
        with safe_open(path, "pt") as handle:
            values = json.loads((handle.metadata() or {}).get(KEY, "{}"))
            names = handle.keys()  # it is no mapping
            tensors = {name: handle.get_tensor(name).float() for name in names}
        if values.get("format") != FORMAT:
            raise ValueError(f"its format is {values.get('format')!r} and not {FORMAT!r}")
        network = Fidelity(tuple(values["widths"]), values["blocks"], values.get("gain", False))
        network.load_state_dict(tensors)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"fidelity {path}: not a fidelity network ({error}); give a file that a run of"
            " experiments/nano/fidelity.yaml wrote"
        ) from error
    return network
