"""What a golden file of TransWeather holds."""

import re

import torch
from filling import fill_network
from golden_measures import first_calls, gradient_norms, rates, stated_error, tied
from golden_report import F64, GRADIENTS

from lit_mimdit.systems.transweather import objective
from lit_mimdit.systems.transweather.blocks import DropPath
from lit_mimdit.systems.transweather.network import TransWeatherNetwork
from lit_mimdit.systems.transweather.official import dead, from_official, official_name
from lit_mimdit.systems.vgg import VGGFeatures

RESULTS = ("losses_and_gradient_norms_f64", "drop_path", "float32_vs_float64")
TEXTS = ("dead", "tied_keys")
VGG_SEED = 77  # of the public file, where the note on the losses names no seed
SEEDED = "train.output_seed"  # + the seed that decides which branches are dropped


def vgg_seed(info):
    """The seed of VGG16's weights, which stands in the note on the losses."""
    note = str(info[RESULTS[0]].get("note", ""))
    found = re.search(r"\bseed (\d+)", note)
    return int(found[1]) if found else VGG_SEED


def compare(golden, report):
    info, tensors = golden.info, golden.tensors
    config = {k: tuple(v) if isinstance(v, list) else v for k, v in info["config"].items()}
    network = from_official(golden.state(), **config).eval()
    report.given("input", "target")
    loaded = {official_name(name) for name in network.state_dict()}
    report.loaded(loaded, "as they act on nothing")
    report.names("dead", golden.state().keys() - loaded)
    report.names("tied_keys", tied(network, official_name))
    error = stated_error(golden, report, "float32_vs_float64", "output", "output_f64")
    with torch.no_grad():
        report.float32("output", network(tensors["input"]), error)
        for name in [name for name in tensors if name.endswith(".input")]:
            report.given(name)
            report.float32(name.replace("input", "output"), network(tensors[name]), error)
        if "base.output" in tensors:
            report.float32("base.output", _base(info, config)(tensors["input"]), error)
        for name in [name for name in tensors if re.fullmatch(rf"{SEEDED}\d+", name)]:
            torch.manual_seed(int(name.removeprefix(SEEDED)))
            report.float32(name, network.train()(tensors["input"]), error)

    network.eval().double()
    modules = {official_name(name): module for name, module in network.named_modules() if name}
    with first_calls(modules) as seen:
        restored = network(golden.real("input"))
    report.tensor("output_f64", restored, F64)
    with torch.no_grad():
        maps = network.encoder(golden.real("input"))
    for i, level in enumerate(maps):
        seen[f"Tenc.out{i}"] = level
    report.taps("tap.", seen, error, tensors["output"])
    with report.part():
        _losses(golden, report, network, restored)
    for name, module in network.named_modules():
        if isinstance(module, DropPath) and module.p:
            path = f"drop_path/{official_name(name)}_path"
            report.number(path, module.p, 1e-6)  # stored in float32
    rates(golden, report, "TransWeather", objective.learning_rate)


def _base(info, config):
    """The network without decoder, filled by the rule with the file's seed."""
    sizes = {name: value for name, value in config.items() if name != "which"}
    base = TransWeatherNetwork(**sizes, decoder=False).eval()
    return fill_network(
        base, info["fill_seed"], lambda name: official_name(name, False), info["fill_gain"]
    )


def _losses(golden, report, network, restored):
    clean = golden.real("target")
    features = VGGFeatures()
    fill_network(features.layers, vgg_seed(golden.info))
    features.double()
    loss = objective.loss(restored, clean, features)
    base = RESULTS[0]
    perceptual = objective.perceptual(restored, clean, features)
    smooth = torch.nn.functional.smooth_l1_loss(restored, clean)
    report.number(f"{base}/loss", loss.item(), F64)
    report.number(f"{base}/parts/smooth_l1", smooth.item(), F64)
    report.number(f"{base}/parts/perceptual_with_fill_rule_vgg", perceptual.item(), F64)
    for name, norm in gradient_norms(loss, dict(network.named_parameters())).items():
        report.number(f"{base}/grad_l2/{official_name(name)}", norm, GRADIENTS)
    for name in [name for name in report.left if dead(name.removeprefix(f"{base}/grad_l2/"))]:
        report.number(name, None, GRADIENTS)
