"""The model card of an exported pipeline, and the file that names its class to diffusers."""

from typing import Any

from lit_mimdit.models.branch_config import BranchConfig

# beside model_index.json: diffusers looks there for a class that is not its own
CODE = "pipeline.py"
CODE_TEXT = '''\
"""Names the class of this pipeline, which is part of the installed package lit_mimdit.

DiffusionPipeline.from_pretrained(folder, trust_remote_code=True) reads this file.
"""

from lit_mimdit.inference.pipeline import MiMDiTPipeline

__all__ = ["MiMDiTPipeline"]
'''


def card(
    branch: BranchConfig,
    sampling: dict[str, Any],
    backbone: str,
    parameters: int,
    fidelity: str,
    prompt: str,
) -> str:
    """Returns the model card: what the pipeline is, how it is used, what it was made of.

    Args:
        branch: configuration of the trained branch.
        sampling: SamplingConfig as plain values.
        backbone: name of the frozen transformer.
        parameters: how many were trained.
        fidelity: one phrase about the fidelity network.
        prompt: text that the backbone is told.
    """
    licence = (
        "Apache-2.0, as lit_mimdit"
        if backbone == "nano"
        else "that of the backbone (Stable Diffusion 3.5: Stability AI Community License)"
    )
    parts = f"{', '.join(branch.groups)}, {branch.intra.experts} sub-experts each"
    steps = f"{sampling['steps']} steps, {sampling['solver']}, from {sampling['start']}"
    return f"""---
library_name: diffusers
pipeline_tag: image-to-image
tags: [image-restoration, mim-dit, mixture-of-experts]
---
# MiM-DiT on {backbone}

Restores photographs that are blurred, noisy, hazy, rainy or dark. A frozen transformer ({backbone})
is conditioned by a trained branch of {parameters / 1e6:.2f} M parameters.
The method is [MiM-DiT](https://arxiv.org/abs/2603.02710), trained with lit_mimdit.

```python
from lit_mimdit.inference.pipeline import MiMDiTPipeline
pipeline = MiMDiTPipeline.from_pretrained("this folder")
pipeline(image).images[0].save("restored.png")
```

This needs `lit_mimdit` installed. `DiffusionPipeline.from_pretrained` finds the same class through
`pipeline.py`, if it is given `trust_remote_code=True`.
Without a generator the same photograph gives the same picture every time.

| | |
|---|---|
| branch | width {branch.width}, {parts}, {branch.base}, {branch.fusion} |
| sampling | {steps}, tiles of {sampling["tile"]} px |
| fidelity network | {fidelity} |
| prompt | {prompt or "empty"} |
| licence | {licence} |

It invents detail: not for evidence, medicine or identification.
"""
