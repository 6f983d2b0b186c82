"""What a golden file of DiffUIR holds."""

import residual_golden
import torch

from lit_mimdit.systems.diffuir.official import from_official
from lit_mimdit.systems.diffuir.sampler import equalize

RESULTS = ("fingerprint",)


def compare(golden, report):
    if not any(name.startswith("state.") for name in golden.tensors):
        report.given("input", "noise")
        for variant in golden.info["constructor"]:
            residual_golden.full(golden, report, variant, from_official)
        return
    network = from_official(golden.state(), **residual_golden.overrides(golden)).double()
    residual_golden.small(golden, report, network)
    if "prep.lol.rgb_u8" in golden.tensors:
        report.given("prep.lol.rgb_u8")
        ours = torch.from_numpy(equalize(golden.tensors["prep.lol.rgb_u8"].numpy()))
        report.tensor("prep.lol.equalized_rgb_u8", ours, 0)
