"""What a golden file of DiffUIR holds."""

import residual_golden
import torch
from golden_report import twice

from lit_mimdit.systems.diffuir.official import from_official
from lit_mimdit.systems.diffuir.sampler import equalize

RESULTS = ("fingerprint",)
TEXTS = ("dead_params",)


def compare(golden, report):
    if any(name.startswith("state.") for name in golden.tensors):
        twice(golden, report, _small)
    else:
        twice(golden, report, _full)
    if "prep.lol.rgb_u8" in golden.tensors:
        report.given("prep.lol.rgb_u8")
        ours = torch.from_numpy(equalize(golden.tensors["prep.lol.rgb_u8"].numpy()))
        report.tensor("prep.lol.equalized_rgb_u8", ours, 0)


def _small(golden, report):
    network = from_official(golden.state(), **residual_golden.overrides(golden))
    residual_golden.small(golden, report, network.to(golden.dtype))


def _full(golden, report):
    report.given("input", "noise")
    for variant in golden.info["constructor"]:
        residual_golden.full(golden, report, variant, from_official)
