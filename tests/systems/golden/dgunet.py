"""What a golden file of DGUNet or DGUNet+ holds."""

import torch
from golden_measures import first_calls, gradient_norms, rates, stated_error
from golden_report import F64, GRADIENTS

from lit_mimdit.models.padding import pad_to_multiple
from lit_mimdit.systems.dgunet import objective
from lit_mimdit.systems.dgunet.official import from_official, official_name, ties

RESULTS = ("losses_and_gradient_norms_f64", "gram_condition_numbers", "float32_vs_float64")
TEXTS = ("dead", "dead_for_the_final_output_only", "tied_keys")
PLAIN, DENOISING = objective.RECIPES["deraining"], objective.RECIPES["denoising"]


def compare(golden, report):
    info, tensors = golden.info, golden.tensors
    plus = "plus" in golden.info.get("system", golden.path.stem).lower()
    network = from_official(golden.state(), plus=plus, **info["config"])
    report.given("input", "target")
    loaded = {official_name(name, plus) for name in network.state_dict()}
    report.loaded(loaded, "as they act on nothing")
    dead = golden.state().keys() - loaded
    report.names("dead", dead)
    report.names("tied_keys", ties(network))
    with torch.no_grad():
        pictures = network(tensors["input"])
    errors = []
    for i, picture in enumerate(pictures):
        path, name = f"float32_vs_float64/output.{i}", f"output.{i}"
        errors.append(stated_error(golden, report, path, name, f"output_f64.{i}"))
        report.float32(name, picture, errors[i])
    report.float32("output", pictures[0], errors[0])

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
        pictures = network(golden.real("input"))
    for handle in handles:
        handle.remove()
    for i, picture in enumerate(pictures):
        report.tensor(f"output_f64.{i}", picture, F64)
    report.tensor("output_f64", pictures[0], F64)
    report.taps("tap.", seen, max(errors), tensors["output"])
    if "odd.input" in tensors or "odd.output_f64" in tensors:
        with report.part():
            report.given("odd.input")
            _odd(golden, report, network)
    _conditions(bases, report)
    _idle(network, pictures[0], report)
    with report.part():
        _losses(golden, report, network, pictures, dead)
    for task in objective.RECIPES:
        recipe = objective.RECIPES[task]
        rates(
            golden,
            report,
            f"DGUNet_{task.capitalize()}",
            lambda epoch, recipe=recipe: objective.learning_rate(epoch, recipe),
        )


def _odd(golden, report, network):
    """Compares an image whose sides are no multiples of 8."""
    odd = golden.real("odd.input")
    height, width = odd.shape[-2:]
    with torch.no_grad():
        restored = network(pad_to_multiple(odd, 8))[0][..., :height, :width]
    report.tensor("odd.output_f64", restored, F64)


def _losses(golden, report, network, pictures, dead):
    clean = golden.real("target")
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
    _gradients(network, loss, report, f"{base}/grad_l2/", dead)


def _gradients(network, loss, report, base, dead):
    """Compares the norm of every gradient; tied parameters have one name in the file."""
    loss.backward()
    for name, parameter in network.named_parameters(remove_duplicate=False):
        official = base + official_name(name, network.plus)
        if official in report.facts:
            report.number(official, float(parameter.grad.norm()), GRADIENTS)
    for name in dead:
        if base + name in report.facts:
            report.number(base + name, None, GRADIENTS)


def _idle(network, picture, report):
    """Compares which parameters act on other pictures than the last stage's alone."""
    norms = gradient_norms(picture.sum(), dict(network.named_parameters()))
    idle = [official_name(name, network.plus) for name, norm in norms.items() if norm is None]
    report.names("dead_for_the_final_output_only", idle)


def _conditions(bases, report):
    """Compares the condition numbers of the Gram matrices, in the order of the calls."""
    for i, basis in enumerate(bases):
        v = basis.detach().flatten(2)
        v = v / (1e-6 + v.abs().sum(dim=2, keepdim=True))
        name = f"gram_condition_numbers/{i}"
        report.number(name, float(torch.linalg.cond(v @ v.transpose(1, 2))[0]), 1e-7)
