"""What a golden file of PromptIR holds."""

import torch
from check_golden import F64, GRADIENTS, first_calls, float32_tolerance, gradient_norms, rates

from lit_mimdit.models.padding import pad_to_multiple
from lit_mimdit.systems.promptir import objective
from lit_mimdit.systems.promptir.official import DEAD, from_official, official_name

RESULTS = ("losses_and_gradient_norms_f64",)


def overrides(info):
    """The arguments of the official constructor that the file states."""
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in info["config"].items()
    }


def compare(golden, report):
    info, tensors = golden.info, golden.tensors
    network = from_official(golden.state(), **overrides(info))
    error, output = info["float32_vs_float64"], tensors["output"]
    report.given("input", "target", "odd.input")
    with torch.no_grad():
        report.tensor("output", network(tensors["input"]), float32_tolerance(output, error))
        odd = tensors["odd.input"]
        height, width = odd.shape[-2:]
        restored = network(pad_to_multiple(odd, 8))[..., :height, :width]
        report.tensor("odd.output", restored, float32_tolerance(tensors["odd.output"], error))

    network.double()
    modules = {
        official_name(name + ".").removesuffix("."): module
        for name, module in network.named_modules()
    }
    # the official paths of these modules end before the convolution
    modules["patch_embed"] = network.patch_embed
    modules |= {"up4_3": network.up3, "up3_2": network.up2, "up2_1": network.up1}
    with first_calls(modules) as seen:
        restored = network(golden.double("input"))
    report.tensor("output_f64", restored, F64)
    for name, stored in tensors.items():
        if name.startswith("tap."):
            tolerance = float32_tolerance(stored, error, output)
            report.tensor(name, seen[name.removeprefix("tap.")], tolerance)

    loss = objective.loss(restored, golden.double("target"))
    base = RESULTS[0]
    report.number(f"{base}/loss", loss.item(), F64)
    norms = gradient_norms(loss, dict(network.named_parameters()))
    for name, norm in norms.items():
        report.number(f"{base}/grad_l2/{official_name(name)}", norm, GRADIENTS)
    for name in DEAD:
        report.number(f"{base}/grad_l2/{name}", None, GRADIENTS)
    rates(golden, report, "PromptIR", objective.learning_rate)
