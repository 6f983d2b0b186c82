"""What golden files of DiffUIR and of FoundIR's generalist hold. Everything is in float32."""

import re

import recipe_weights
import torch
from golden_measures import first_calls
from relative import gradients, scalar

from lit_mimdit.models.residual_diffusion import (
    ResidualDiffusion,
    diffuse,
    from_process,
    noise_of,
    restore,
    times,
    to_process,
    trajectory,
)
from lit_mimdit.systems.residual_official import buffers, official_name

SMALL, FULL = 2e-6, 2e-5  # float32 error; the page's tolerance is 5 times this
PARTS = {"first": "0", "second": "1", "attention": "2", "resample": "3"}
NAMES = {"time": "time_mlp", "mid_attention": "mid_attn", "final_block": "final_res_block"}


def overrides(golden):
    """The arguments of the official constructors that the file states."""
    given = {**golden.info["constructor"]["diffusion"], **golden.info["constructor"]["unet"]}
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in given.items()
    }


def checker(golden, report, error):
    """A function that compares a tensor with the stored one of that name, if there is one."""

    def check(name, ours):
        if name not in golden.tensors:
            return  # a run may store fewer of its steps
        report.float32(name, ours, error)

    return check


def small(golden, report, network):
    """Compares everything about the process in a file with weights."""
    check = checker(golden, report, SMALL)
    report.given("input", "gt")
    rename = official_name(len(network.unet.dim_mults))
    report.loaded(
        map(rename, network.unet.state_dict()), "as the importer compares these tables with ours"
    )
    with report.part():
        _unet(golden, report, check, network)
    tables = buffers(network.table)
    for name, row in tables.items():
        report.table(f"schedule.{name}", row)
    for name in ("alphas", "betas", "betas2"):  # entry 0 is overwritten before testing
        if f"schedule_test.{name}" in golden.tensors:
            row = torch.cat([tables[name][1:2], tables[name][1:]])
            report.table(f"schedule_test.{name}", row)
    with report.part():
        _train(golden, report, check, network, rename)
    runs = {found[0] for name in golden.tensors if (found := re.match(r"sample\d+[a-z_]*", name))}
    for run in sorted(runs):
        with report.part():
            _sample(golden, report, check, network, run)


def _unet(golden, report, check, network):
    report.given("unet.x", "unet.t")
    check("unet.time", network.table.time(golden.tensors["unet.t"]))
    modules = {_module_name(name): module for name, module in network.unet.named_modules()}
    with torch.no_grad(), first_calls(modules) as seen:
        check("unet.output", network.unet(golden.real("unet.x"), golden.tensors["unet.time"]))
    report.taps("unet.tap.", seen, SMALL)


def _module_name(name):
    """The official path of a module of our U-Net."""
    if name in NAMES:
        return NAMES[name]
    found = re.fullmatch(r"((?:downs|ups)\.\d+)\.(\w+)", name)
    return f"{found[1]}.{PARTS[found[2]]}" if found else name


def _train(golden, report, check, network, rename):
    names = ("train.lq", "train.gt", "train.noise")
    degraded, clean, noise = (golden.real(name) for name in names)
    t = golden.tensors["train.t"]
    report.given(*names, "train.t")
    x_in, x_0 = to_process(degraded), to_process(clean)
    x_t = diffuse(x_0, x_in, noise, t, network.table)
    check("train.x_t", x_t)
    check("train.target_res", x_in - x_0)
    found = noise_of(x_t, x_in, x_in - x_0, t, network.table)
    check("train.predict_noise_from_true_res", found)
    with torch.no_grad():
        seen = network.unet(torch.cat([x_t, x_in], dim=1), network.table.time(t))
        check("train.model_out", seen)
    loss = network.loss(degraded, clean, noise, t)
    scalar(golden, report, "train.loss", loss)
    network.zero_grad()
    loss.backward()
    norms = {rename(name): float(p.grad.norm()) for name, p in network.unet.named_parameters()}
    order = golden.info["grad_norm_order"]
    gradients(golden, report, "train.grad_norm", norms, order)
    if "dead_params" in report.texts:
        report.names("dead_params", [name for name, norm in norms.items() if norm == 0])


def _sample(golden, report, check, network, run):
    steps = int(re.match(r"sample(\d+)", run)[1])
    stored = golden.tensors
    eta = network.eta
    if f"{run}.eta" in stored:
        eta = float(stored[f"{run}.eta"])
    drawn = sorted(
        (name for name in stored if name.startswith(f"{run}.step_noise.")),
        key=lambda name: int(name.rsplit(".", 1)[1]),
    )
    start = f"{run}.noise" if f"{run}.noise" in stored else f"sample{steps}.noise"
    report.given(start, *drawn, *([f"{run}.eta"] if f"{run}.eta" in stored else []))
    visited = times(steps, network.table.timesteps)
    if f"{run}.times" in stored:
        report.tensor(f"{run}.times", torch.tensor(visited), 0)
    degraded, noise = golden.real("input"), golden.real(start)
    x_in = to_process(degraded)

    def supply():
        left = iter(drawn)
        return lambda _: golden.real(next(left))

    common = (network.table, steps, eta)
    with torch.no_grad():
        path = trajectory(network.unet, x_in, noise, *common, supply(), sum_scale=network.sum_scale)
        for index, step in enumerate(path):
            eps = noise_of(
                step.state, x_in, step.residual, torch.full((len(x_in),), step.t), network.table
            )
            for name, ours in (
                ("x_t", step.state),
                ("pred_res", step.residual),
                ("x_start", step.clean),
                ("pred_noise", eps),
            ):
                check(f"{run}.step{index}.{name}", ours)
        check(f"{run}.output", from_process(step.clean))
        ours = restore(
            network.unet, degraded, noise, *common, supply(), sum_scale=network.sum_scale
        )
        assert torch.equal(ours, from_process(step.clean))
        if steps == network.sampling_timesteps and not drawn:
            assert torch.equal(network(degraded, noise), ours)


def full(golden, report, name, build):
    """Compares a network of published size whose weights follow the recipe.

    name: of the network in the file. build: the importer of official state dicts.
    """
    sizes = golden.info["constructor"][name]
    arguments = (sizes["dim"], sizes["dim_mults"], sizes["delta_end"], sizes["sampling_timesteps"])
    with torch.device("meta"):
        bare = ResidualDiffusion(*arguments)
    rename = official_name(len(sizes["dim_mults"]))
    shapes = {rename(own): value.shape for own, value in bare.unet.named_parameters()}
    state = recipe_weights.state(shapes, golden.info["init_const"][name])
    recipe_weights.fingerprint(report, name, state)
    table = ResidualDiffusion(8, (1,), *arguments[2:]).table
    file = {"ema": {f"ema_model.{key}": v for key, v in {**state, **buffers(table)}.items()}}
    network = build(file, **{key: sizes[key] for key in ("delta_end", "sampling_timesteps")})
    network.to(golden.dtype)
    check = checker(golden, report, FULL)
    degraded, noise = golden.real("input"), golden.real("noise")
    with torch.no_grad():
        check(f"{name}.sample_output", network(degraded, noise))
        both = torch.cat([noise, to_process(degraded)], dim=1)
        for key in golden.tensors:
            if found := re.fullmatch(rf"{name}\.unet_output_t(\d+)", key):
                t = torch.full((len(both),), int(found[1]))
                check(key, network.unet(both, network.table.time(t)))
