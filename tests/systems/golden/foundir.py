"""What a golden file of FoundIR holds: the generalist, both specialists, tiles, and their chain."""

import recipe_weights
import residual_golden
import torch
from golden_measures import first_calls
from golden_report import twice

from lit_mimdit.models.restormer_network import Restormer
from lit_mimdit.systems import restormer_official
from lit_mimdit.systems.foundir import sampler
from lit_mimdit.systems.foundir.official import from_official, low_light_name
from lit_mimdit.systems.foundir.selective_scan import selective_scan
from lit_mimdit.systems.foundir.wave_mamba import WaveMamba
from lit_mimdit.systems.foundir.wavelet import analyse, synthesise

RESULTS = ("fingerprint",)
TEXTS = ("dead_params", "specialists/weather/dead", "specialists/lowlight/dead")
ROUNDING = 0.5 + 255e-5  # of 255 levels, between our number and a stored 8-bit one
PREFIX = "restoration_network."


def compare(golden, report):
    small = any(name.startswith("state.") for name in golden.tensors)
    twice(golden, report, _small if small else _full)


def _small(golden, report):
    generalist = from_official(golden.state(), **residual_golden.overrides(golden))
    residual_golden.small(golden, report, generalist.to(golden.dtype))
    specialists, renamed = {}, {}
    for name, rename in (
        ("weather", restormer_official.official_name),
        ("lowlight", lambda own: PREFIX + low_light_name(own)),
    ):
        prefix = golden.info["specialists"][name]["prefix"]
        state = golden.state(prefix)
        network = from_official({"params": state}, **_arguments(golden, name))
        # the file may keep the prefix that the importer cuts
        names = {rename(own).removeprefix(PREFIX) for own in network.state_dict()}
        report.loaded(
            [key for key in state if key.removeprefix(PREFIX) in names],
            "as they act on nothing",
            prefix,
        )
        specialists[name], renamed[name] = network.to(golden.dtype), rename
    for name, network in specialists.items():
        with report.part():
            _dead(golden, report, name, network, renamed[name])
    check = residual_golden.checker(golden, report, residual_golden.SMALL)
    for kind, run in (
        ("tile.input", lambda: _tiles(golden, report, check, generalist)),
        ("spec.input", lambda: _specialists(golden, report, check, specialists)),
        ("spec.scan.u", lambda: _scan(golden, report, check)),
        ("chain.input", lambda: _chain(golden, report, check, generalist, specialists)),
    ):
        if kind in golden.tensors:
            with torch.no_grad(), report.part():
                run()


def _arguments(golden, name):
    return {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in golden.info["specialists"][name]["constructor"].items()
    }


def _dead(golden, report, name, network, rename):
    """Compares which parameters have no gradient, if the file says."""
    path = f"specialists/{name}/dead"
    if path not in report.texts:
        return
    names, parameters = zip(*network.named_parameters(), strict=True)
    with torch.enable_grad():
        total = network(golden.real("spec.input")).sum()
        found = torch.autograd.grad(total, parameters, allow_unused=True)
    idle = [own for own, grad in zip(names, found, strict=True) if grad is None or not grad.any()]
    report.names(path, [rename(own).removeprefix(PREFIX) for own in idle])


def _tiles(golden, report, check, network):
    tile, overlap = golden.tensors["tile.crop_overlap"].tolist()
    image, noise = golden.real("tile.input"), golden.real("tile.noise")
    report.given("tile.crop_overlap", "tile.input", "tile.noise")
    corners = sampler.corners(*image.shape[-2:], tile, overlap)
    report.tensor("tile.idx_ij", torch.tensor(corners), 0)
    parts = torch.cat([image[..., top : top + tile, left : left + tile] for top, left in corners])
    check("tile.patch_out", network(parts, noise))
    left = iter(noise)
    merged = sampler.restore(network, image, lambda _: next(left)[None], tile, overlap)
    check("tile.merged", merged)
    for name in golden.tensors:
        if name.startswith("tile.published_idx."):
            height, width = (int(side) for side in name.rsplit(".", 1)[1].split("x"))
            ours = sampler.corners(height, width, sampler.TILE, sampler.OVERLAP)
            report.tensor(name, torch.tensor(ours), 0)


def _specialists(golden, report, check, networks):
    report.given("spec.input")
    image, low = golden.real("spec.input"), networks["lowlight"]
    check("spec.weather.output", networks["weather"](image))
    scan, down = low.down[0].low[0].scan, low.down[0]
    modules = {
        "ss2d": scan, "hfe": down.high[0], "skff": down.fusion, "dg1_l": down.low,
        "dg1_h": down, "up3": low.up[2], "up1": low.up[0],
    }  # fmt: skip
    with first_calls(modules) as seen:
        check("spec.lowlight.output", low(image))
    seen["ss2d"] = seen["ss2d"].movedim(1, -1)
    report.taps("spec.lowlight.tap.", seen, residual_golden.SMALL)


def _scan(golden, report, check):
    report.given("spec.dwt.input")
    bands = analyse(golden.real("spec.dwt.input"))
    check("spec.dwt.out_LL_HL_LH_HH", torch.cat(bands, dim=1))
    check("spec.iwt.of_that", synthesise(*bands))
    names = [f"spec.scan.{name}" for name in ("u", "delta", "A", "B", "C", "D", "delta_bias")]
    report.given(*names)
    check("spec.scan.out", selective_scan(*(golden.real(name) for name in names)))


def _chain(golden, report, check, generalist, specialists):
    report.given("chain.input", "chain.noise")
    noise = golden.real("chain.noise")
    restored = sampler.restore(generalist, golden.real("chain.input"), lambda _: noise)
    check("chain.generalist_output", restored)
    name = "chain.generalist_png_rgb_u8"
    report.tensor(name, _levels(restored), ROUNDING)
    # each specialist reads the file, so the next step starts from the stored levels
    image = golden.real(name).permute(2, 0, 1)[None] / 255
    facts = golden.info["specialists"]
    window = facts["weather"]["script_sizes"]["window_size"]
    ours = sampler.restore_weather(specialists["weather"], image, window)
    report.tensor("chain.weather_png_rgb_u8", _levels(ours), ROUNDING)
    ours = sampler.restore_low_light(specialists["lowlight"], image, facts["lowlight"]["window"])
    report.tensor("chain.lowlight_png_rgb_u8", _levels(ours), ROUNDING)


def _levels(image):
    """An image (1, 3, H, W) in [0, 1] as (H, W, 3) from 0 to 255, not rounded."""
    return image[0].permute(1, 2, 0) * 255


def _full(golden, report):
    report.given("input", "noise")
    residual_golden.full(golden, report, "L", from_official)
    check = residual_golden.checker(golden, report, residual_golden.FULL)
    for name, kind, rename in (
        ("weather", Restormer, restormer_official.official_name),
        ("lowlight", WaveMamba, lambda own: PREFIX + low_light_name(own)),
    ):
        arguments = golden.info["constructor"][name]
        arguments = arguments if isinstance(arguments, dict) else {}  # the defaults, in words
        with torch.device("meta"):
            shapes = {rename(own): v.shape for own, v in kind(**arguments).named_parameters()}
        state = recipe_weights.state(shapes, golden.info["init_const"][name])
        recipe_weights.fingerprint(report, name, state)
        network = from_official({"params": state}).to(golden.dtype)
        with torch.no_grad():
            check(f"{name}.output", network(golden.real("input")))
