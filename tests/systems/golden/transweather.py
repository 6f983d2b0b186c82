"""What a golden file of TransWeather holds."""

import torch
from check_golden import F64, GRADIENTS, first_calls, float32_tolerance, gradient_norms, rates
from filling import fill_network

from lit_mimdit.systems.transweather import objective
from lit_mimdit.systems.transweather.blocks import DropPath
from lit_mimdit.systems.transweather.network import TransWeatherNetwork
from lit_mimdit.systems.transweather.official import dead, from_official, official_name
from lit_mimdit.systems.vgg import VGGFeatures

RESULTS = ("losses_and_gradient_norms_f64", "drop_path")
VGG_SEED = 77


def compare(golden, report):
    info, tensors = golden.info, golden.tensors
    config = {k: tuple(v) if isinstance(v, list) else v for k, v in info["config"].items()}
    network = from_official(golden.state(), **config).eval()
    error, output = info["float32_vs_float64"], tensors["output"]
    report.given("input", "target")

    def compare32(name, ours):
        report.tensor(name, ours, float32_tolerance(tensors[name], error))

    with torch.no_grad():
        compare32("output", network(tensors["input"]))
        for name in [name for name in tensors if name.endswith(".input")]:
            report.given(name)
            compare32(name.replace("input", "output"), network(tensors[name]))
        config.pop("which")
        base = TransWeatherNetwork(**config, decoder=False).eval()
        fill_network(
            base, info["fill_seed"], lambda name: official_name(name, False), info["fill_gain"]
        )
        compare32("base.output", base(tensors["input"]))
        torch.manual_seed(5)
        compare32("train.output_seed5", network.train()(tensors["input"]))

    network.eval().double()
    modules = {official_name(name): module for name, module in network.named_modules() if name}
    with first_calls(modules) as seen:
        restored = network(golden.double("input"))
    report.tensor("output_f64", restored, F64)
    with torch.no_grad():
        maps = network.encoder(golden.double("input"))
    for i, level in enumerate(maps):
        seen[f"Tenc.out{i}"] = level
    for name, stored in tensors.items():
        if name.startswith("tap."):
            tolerance = float32_tolerance(stored, error, output)
            report.tensor(name, seen[name.removeprefix("tap.")], tolerance)

    clean = golden.double("target")
    features = VGGFeatures()
    fill_network(features.layers, VGG_SEED)
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
    for name, module in network.named_modules():
        if isinstance(module, DropPath) and module.p:
            path = f"drop_path/{official_name(name)}_path"
            report.number(path, module.p, 1e-6)  # stored in float32
    rates(golden, report, "TransWeather", objective.learning_rate)
