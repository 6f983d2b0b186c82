"""What a golden file of DGUNet or DGUNet+ holds."""

import torch
from check_golden import F64, GRADIENTS, first_calls, float32_tolerance, rates

from lit_mimdit.models.padding import pad_to_multiple
from lit_mimdit.systems.dgunet import objective
from lit_mimdit.systems.dgunet.official import DEAD, from_official, official_name

RESULTS = ("losses_and_gradient_norms_f64", "gram_condition_numbers")
PLAIN, DENOISING = objective.RECIPES["deraining"], objective.RECIPES["denoising"]


def compare(golden, report):
    info, tensors = golden.info, golden.tensors
    plus = "plus" in info["system"].lower()
    network = from_official(golden.state(), plus=plus, **info["config"])
    errors = info["float32_vs_float64"]
    report.given("input", "target", "odd.input")
    with torch.no_grad():
        pictures = network(tensors["input"])
    for i, picture in enumerate(pictures):
        stored = tensors[f"output.{i}"]
        tolerance = float32_tolerance(stored, errors[f"output.{i}"])
        report.tensor(f"output.{i}", picture, tolerance)
    report.tensor("output", pictures[0], float32_tolerance(tensors["output"], errors["output.0"]))

    network.double()
    modules = {
        official_name(name, plus): module for name, module in network.named_modules() if "." in name
    }
    merges = [stage.merge for stage in network.middle]
    if network.last.merge is not None:
        merges.append(network.last.merge)
    bases = []
    handles = [
        merge.subnet.register_forward_hook(lambda _, __, out: bases.append(out)) for merge in merges
    ]
    with first_calls(modules) as seen:
        pictures = network(golden.double("input"))
    for handle in handles:
        handle.remove()
    for i, picture in enumerate(pictures):
        report.tensor(f"output_f64.{i}", picture, F64)
    report.tensor("output_f64", pictures[0], F64)
    for name, stored in tensors.items():
        if name.startswith("tap."):
            tolerance = float32_tolerance(stored, max(errors.values()), tensors["output"])
            report.tensor(name, seen[name.removeprefix("tap.")], tolerance)
    with torch.no_grad():
        odd = golden.double("odd.input")
        height, width = odd.shape[-2:]
        restored = network(pad_to_multiple(odd, 8))[0][..., :height, :width]
        report.tensor("odd.output_f64", restored, F64)
    _conditions(bases, report)

    clean = golden.double("target")
    loss = objective.loss(pictures, clean, PLAIN)
    base = RESULTS[0]
    stages = [objective.charbonnier(picture, clean) for picture in pictures]
    edges = [objective.edge(picture, clean) for picture in pictures]
    denoising = objective.loss(pictures, clean, DENOISING)
    for name, value in {
        "loss": loss,
        "parts/charbonnier_sum": sum(stages),
        "parts/edge_sum": sum(edges),
        "parts/denoising_variant_charbonnier_of_clamped": denoising,
        **{f"parts/per_stage_charbonnier/{i}": value for i, value in enumerate(stages)},
        **{f"parts/per_stage_edge/{i}": value for i, value in enumerate(edges)},
    }.items():
        report.number(f"{base}/{name}", value.item(), F64)
    gradients(network, loss, report, f"{base}/grad_l2/")
    for task in objective.RECIPES:
        recipe = objective.RECIPES[task]
        rates(
            golden,
            report,
            f"DGUNet_{task.capitalize()}",
            lambda epoch, recipe=recipe: objective.learning_rate(epoch, recipe),
        )


def gradients(network, loss, report, base):
    """Compares the norm of every gradient; tied parameters have one name in the file."""
    loss.backward()
    dead = set(DEAD)
    for name, parameter in network.named_parameters(remove_duplicate=False):
        official = base + official_name(name, network.plus)
        if official in report.facts:
            report.number(official, float(parameter.grad.norm()), GRADIENTS)
    for name in dead:
        if base + name in report.facts:
            report.number(base + name, None, GRADIENTS)


def _conditions(bases, report):
    """Compares the condition numbers of the Gram matrices, in the order of the calls."""
    for i, basis in enumerate(bases):
        v = basis.detach().flatten(2)
        v = v / (1e-6 + v.abs().sum(dim=2, keepdim=True))
        name = f"gram_condition_numbers/{i}"
        report.number(name, float(torch.linalg.cond(v @ v.transpose(1, 2))[0]), 1e-7)
