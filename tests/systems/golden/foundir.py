"""What a golden file of FoundIR holds: the generalist, both specialists, tiles, and their chain."""

import recipe_weights
import residual_golden
import torch
from check_golden import first_calls

from lit_mimdit.models.restormer_network import Restormer
from lit_mimdit.systems import restormer_official
from lit_mimdit.systems.foundir import sampler
from lit_mimdit.systems.foundir.official import from_official, low_light_name
from lit_mimdit.systems.foundir.selective_scan import selective_scan
from lit_mimdit.systems.foundir.wave_mamba import WaveMamba
from lit_mimdit.systems.foundir.wavelet import analyse, synthesise

RESULTS = ("fingerprint",)
ROUNDING = 0.5 + 255e-5  # of 255 levels, between our number and a stored 8-bit one
PREFIX = "restoration_network."


def compare(golden, report):
    if not any(name.startswith("state.") for name in golden.tensors):
        _full(golden, report)
        return
    report.given(*(name for name in golden.tensors if name.startswith("state_")))
    generalist = from_official(golden.state(), **residual_golden.overrides(golden)).double()
    residual_golden.small(golden, report, generalist)
    specialists = {
        name: from_official(
            {"params": golden.state(golden.info["specialists"][name]["prefix"])},
            **_arguments(golden, name),
        ).double()
        for name in ("weather", "lowlight")
    }
    check = residual_golden.checker(golden, report, residual_golden.SMALL)
    with torch.no_grad():
        if "tile.input" in golden.tensors:
            _tiles(golden, report, check, generalist)
        if "spec.input" in golden.tensors:
            _specialists(golden, report, check, specialists)
        if "spec.scan.u" in golden.tensors:
            _scan(golden, report, check)
        if "chain.input" in golden.tensors:
            _chain(golden, report, check, generalist, specialists)


def _arguments(golden, name):
    return {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in golden.info["specialists"][name]["constructor"].items()
    }


def _tiles(golden, report, check, network):
    tile, overlap = golden.tensors["tile.crop_overlap"].tolist()
    image, noise = golden.double("tile.input"), golden.double("tile.noise")
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
    image, low = golden.double("spec.input"), networks["lowlight"]
    check("spec.weather.output", networks["weather"](image))
    scan, down = low.down[0].low[0].scan, low.down[0]
    modules = {
        "ss2d": scan, "hfe": down.high[0], "skff": down.fusion, "dg1_l": down.low,
        "dg1_h": down, "up3": low.up[2], "up1": low.up[0],
    }  # fmt: skip
    with first_calls(modules) as seen:
        check("spec.lowlight.output", low(image))
    seen["ss2d"] = seen["ss2d"].movedim(1, -1)
    for name in golden.tensors:
        if name.startswith("spec.lowlight.tap."):
            check(name, seen[name.removeprefix("spec.lowlight.tap.")])


def _scan(golden, report, check):
    report.given("spec.dwt.input")
    bands = analyse(golden.double("spec.dwt.input"))
    check("spec.dwt.out_LL_HL_LH_HH", torch.cat(bands, dim=1))
    check("spec.iwt.of_that", synthesise(*bands))
    names = [f"spec.scan.{name}" for name in ("u", "delta", "A", "B", "C", "D", "delta_bias")]
    report.given(*names)
    check("spec.scan.out", selective_scan(*(golden.double(name) for name in names)))


def _chain(golden, report, check, generalist, specialists):
    report.given("chain.input", "chain.noise")
    noise = golden.double("chain.noise")
    restored = sampler.restore(generalist, golden.double("chain.input"), lambda _: noise)
    check("chain.generalist_output", restored)
    name = "chain.generalist_png_rgb_u8"
    report.tensor(name, _levels(restored), ROUNDING)
    # each specialist reads the file, so the next step starts from the stored levels
    image = golden.double(name).permute(2, 0, 1)[None] / 255
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
        network = from_official({"params": state}).double()
        with torch.no_grad():
            check(f"{name}.output", network(golden.double("input")))
