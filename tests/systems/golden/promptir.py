"""What a golden file of PromptIR holds."""

import torch
from golden_measures import first_calls, gradient_norms, rates, stated_error, tied
from golden_report import F64, GRADIENTS

from lit_mimdit.models.padding import pad_to_multiple
from lit_mimdit.systems.promptir import objective
from lit_mimdit.systems.promptir.official import from_official, official_name

RESULTS = ("losses_and_gradient_norms_f64", "float32_vs_float64")
TEXTS = ("dead", "tied_keys")


def overrides(info):
    """The arguments of the official constructor that the file states."""
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in info["config"].items()
    }


def compare(golden, report):
    tensors = golden.tensors
    network = from_official(golden.state(), **overrides(golden.info))
    report.given("input", "target")
    loaded = {official_name(name) for name in network.state_dict()}
    report.loaded(loaded, "as they act on nothing")
    dead = golden.state().keys() - loaded
    report.names("dead", dead)
    report.names("tied_keys", tied(network, official_name))
    error = stated_error(golden, report, "float32_vs_float64", "output", "output_f64")
    with torch.no_grad():
        report.float32("output", network(tensors["input"]), error)
    if "odd.input" in tensors or "odd.output" in tensors:
        with report.part():
            report.given("odd.input")
            _odd(golden, report, network, error)

    network.double()
    modules = {
        official_name(name + ".").removesuffix("."): module
        for name, module in network.named_modules()
    }
    # the official paths of these modules end before the convolution
    modules["patch_embed"] = network.patch_embed
    modules |= {"up4_3": network.up3, "up3_2": network.up2, "up2_1": network.up1}
    with first_calls(modules) as seen:
        restored = network(golden.real("input"))
    report.tensor("output_f64", restored, F64)
    report.taps("tap.", seen, error, tensors["output"])

    with report.part():
        loss = objective.loss(restored, golden.real("target"))
        base = RESULTS[0]
        report.number(f"{base}/loss", loss.item(), F64)
        norms = gradient_norms(loss, dict(network.named_parameters()))
        for name, norm in norms.items():
            report.number(f"{base}/grad_l2/{official_name(name)}", norm, GRADIENTS)
        for name in sorted(dead):
            report.number(f"{base}/grad_l2/{name}", None, GRADIENTS)
    rates(golden, report, "PromptIR", objective.learning_rate)


def _odd(golden, report, network, error):
    """Compares an image whose sides are no multiples of 8."""
    odd = golden.tensors["odd.input"]
    height, width = odd.shape[-2:]
    with torch.no_grad():
        restored = network(pad_to_multiple(odd, 8))[..., :height, :width]
    report.float32("odd.output", restored, error)
