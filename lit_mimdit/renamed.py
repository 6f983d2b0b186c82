"""Classes that a configuration of an earlier version names, and what they are called now.

Old names are read as the new ones, with a note.
"""

import re
import sys
from collections.abc import Callable

RENAMED = {
    "lit_mimdit.training.module.MiMDiTModule": "lit_mimdit.systems.mimdit.MiMDiT",
    "lit_mimdit.training.baselines.ControlNetModule": "lit_mimdit.systems.controlnet.ControlNet",
    "lit_mimdit.baselines.regression.Regression": "lit_mimdit.systems.regression.Regression",
    "lit_mimdit.pretraining.fidelity.FidelityTraining": (
        "lit_mimdit.systems.fidelity.FidelitySystem"
    ),
    "lit_mimdit.pretraining.degraded.DegradedPhotos": "lit_mimdit.data.degraded.DegradedPhotos",
    "lit_mimdit.pretraining.photos.PhotoCrops": "lit_mimdit.data.photos.PhotoCrops",
    "lit_mimdit.pretraining.vae.NanoVAE": "lit_mimdit.nano.vae.NanoVAE",
    "lit_mimdit.pretraining.mmdit.NanoMMDiT": "lit_mimdit.nano.mmdit.NanoMMDiT",
}

_OLD = re.compile("|".join(rf"{re.escape(old)}\b" for old in RENAMED))


def with_new_names(text: str) -> str:
    """Returns a YAML or an option in which every old name is the new one.

    Each old name is told once a process, on stderr.
    """

    def replaced(match: re.Match[str]) -> str:
        old = match[0]
        if old not in _told:
            _told.add(old)
            print(f"note: {old} is now {RENAMED[old]}; change the name", file=sys.stderr)
        return RENAMED[old]

    return _OLD.sub(replaced, text)


_told: set[str] = set()


def reading_old_names(load: Callable[[str], object]) -> Callable[[str], object]:
    """Returns `load`, a reader of YAML texts, that takes old names for the new ones."""

    def loaded(text: str) -> object:
        return load(with_new_names(text))

    return loaded
