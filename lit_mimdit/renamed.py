"""Classes that a configuration of an earlier version names, and what they are called now."""

from pathlib import Path

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


def refuse_renamed(arguments: list[str]) -> None:
    """ValueError with file, old name and new name if a YAML or the command line has an old one."""
    texts = {"the command line": " ".join(arguments)}
    for argument in arguments:
        path = Path(argument.split("=", 1)[-1])
        if path.suffix in (".yaml", ".yml") and path.is_file():
            texts[str(path)] = path.read_text(encoding="utf-8", errors="replace")
    for where, text in texts.items():
        for old, new in RENAMED.items():
            if old in text:
                raise ValueError(f"{where}: {old} is now {new}; change the name there")
