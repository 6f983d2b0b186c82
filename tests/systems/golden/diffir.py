"""What a golden file of DiffIR holds, both stages. Everything is stored in float32."""

import re

import recipe_weights
import torch
from golden_measures import first_calls
from golden_report import twice
from relative import gradients, scalar

from lit_mimdit.models.padding import pad_to_multiple
from lit_mimdit.systems.diffir import objective, sampler
from lit_mimdit.systems.diffir.network import FirstStage, SecondStage
from lit_mimdit.systems.diffir.official import (
    BUFFERS,
    COPIES,
    buffers,
    from_official,
    official_name,
)

RESULTS = ("fingerprint",)
TEXTS = ("dead_params",)
SMALL, FULL = 2e-6, 2e-5  # float32 error; the page's tolerance is 5 times this


def compare(golden, report):
    small = any(name.startswith("state.") for name in golden.tensors)
    twice(golden, report, _small if small else _full)
    if small:
        _rates(golden, report)


def _arguments(golden, stage):
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in golden.info["constructor"][stage].items()
    }


def _small(golden, report):
    first, second = (
        from_official(golden.state(f"state.{stage}."), **_arguments(golden, stage))
        for stage in ("S1", "S2")
    )
    for stage, network in (("S1", first), ("S2", second)):
        report.loaded(
            map(official_name, network.state_dict()),
            "as the importer compares these copies and tables with what it loads",
            f"state.{stage}.",
        )
        network.to(golden.dtype)
    report.given("input", "gt", "s2.noise", "train.lq", "train.gt", "train.s2.noise")
    check = _checker(golden, report, SMALL)
    with torch.no_grad(), report.part():
        padded = [pad_to_multiple(golden.real(name), 8) for name in ("input", "gt")]
        check("padded_input", padded[0])
        check("padded_gt", padded[1])
        _first(golden, report, check, first, padded)
        _second(golden, check, second, padded[0])
    for name, table in (
        ("schedule", sampler.schedule_of(second)),
        ("schedule_published", sampler.schedule()),
    ):
        for row, values in buffers(table).items():
            if f"{name}.{row}" in golden.tensors:
                report.table(f"{name}.{row}", values)
    with report.part():
        _train(golden, report, check, first, second)


def _first(golden, report, check, network, padded):
    height, width = golden.tensors["input"].shape[-2:]
    modules = {f"G.{name}": module for name, module in network.restorer.named_modules()}
    with first_calls({**modules, "E.E": network.encoder.convolutions}) as seen:
        restored, prior = network(*padded)
    seen["E.E"] = seen["E.E"].mean(dim=(-2, -1), keepdim=True)
    check("s1.ipr", prior)
    check("s1.output_padded", restored)
    check("s1.output", restored[..., :height, :width])
    report.taps("s1.tap.", seen, SMALL)


def _second(golden, check, network, padded):
    table, noise = sampler.schedule_of(network), golden.real("s2.noise")
    condition = network.condition(padded)
    check("s2.condition", condition)
    for step in sampler.trajectory(network, condition, noise, table):
        check(f"s2.traj.t{step.step}.x_t", step.state)
        check(f"s2.traj.t{step.step}.x0_pred", step.prediction)
        check(f"s2.traj.t{step.step}.x_prev", step.result)
    restored = sampler.generate(network, golden.real("input"), noise)
    check("s2.output", restored)


def _train(golden, report, check, first, second):
    degraded, clean = golden.real("train.lq"), golden.real("train.gt")
    orders = golden.info["grad_norm_order"]
    restored, target = first(degraded, clean)
    loss = objective.pixel_loss(restored, clean)
    check("train.s1.output", restored)
    scalar(golden, report, "train.s1.loss_l_pix", loss)
    norms = _norms(first, loss)
    gradients(golden, report, "train.s1.grad_norm", norms, orders["s1"])
    _dead(report, "S1", norms)

    table, noise = sampler.schedule_of(second), golden.real("train.s2.noise")
    last = len(table.beta) - 1
    target = target.detach()
    check("train.s2.ipr_s1", target)
    for step in range(last + 1):
        check(f"train.s2.q_sample.t{step}", sampler.diffuse(target, noise, step, table))
    noisy = sampler.diffuse(target, noise, last, table)
    check("train.s2.x_noisy", noisy)
    steps = list(sampler.trajectory(second, second.condition(degraded), noisy, table))
    prior = objective.distilled_prior(second, degraded, target, noise, table)
    assert torch.equal(prior, steps[-1].result)
    restored = second.restorer(degraded, prior)
    check("train.s2.joint.output", restored)
    scalar(golden, report, "train.s2.joint.loss_l_pix", objective.pixel_loss(restored, clean))
    losses = {
        "prior": objective.prior_loss(prior, target),
        "joint": objective.joint_loss(restored, clean, prior, target),
    }
    for phase, loss in losses.items():
        base = f"train.s2.{phase}"
        for step in steps:
            check(f"{base}.t{step.step}.x_prev", step.result)
        scalar(golden, report, f"{base}.loss_l_abs_{last}", losses["prior"])
        divergence = objective.prior_divergence(prior, target)
        scalar(golden, report, f"{base}.loss_l_kd_{last}", divergence)
        norms = _norms(second, loss)
        gradients(golden, report, f"{base}.grad_norm", norms, orders["s2"])
    _dead(report, "S2", norms)  # of both losses together


def _dead(report, stage, norms):
    """Compares which parameters act on nothing, if the file says."""
    if f"dead_params/{stage}" in report.texts:
        report.names(f"dead_params/{stage}", [name for name, norm in norms.items() if norm == 0])


def _norms(network, loss):
    parameters = {official_name(name): value for name, value in network.named_parameters()}
    graph = torch.autograd.grad(
        loss, list(parameters.values()), retain_graph=True, allow_unused=True
    )
    return {
        name: 0.0 if gradient is None else float(gradient.norm())
        for name, gradient in zip(parameters, graph, strict=True)
    }


def _rates(golden, report):
    for stage, rate in (
        ("stage1", objective.first_stage_rate),
        ("stage2", objective.second_stage_rate),
    ):
        with report.part():
            iterations = golden.tensors[f"lr.{stage}.iter"].tolist()
            report.given(f"lr.{stage}.iter")
            ours = torch.tensor([rate(iteration) for iteration in iterations], dtype=torch.float64)
            report.tensor(f"lr.{stage}.lr", ours, 1e-12)


def _full(golden, report):
    report.given("input", "gt", "noise")
    check = _checker(golden, report, FULL)
    padded = [pad_to_multiple(golden.real(name), 8) for name in ("input", "gt")]
    height, width = golden.tensors["input"].shape[-2:]
    with torch.no_grad():
        first = _built(golden, report, "S1", FirstStage)
        restored, prior = first(*padded)
        check("s1.ipr", prior)
        check("s1.output", restored[..., :height, :width])
        del first
        second = _built(golden, report, "S2", SecondStage)
        table, noise = sampler.schedule_of(second), golden.real("noise")
        check("s2.ipr", sampler.denoised(second, second.condition(padded[0]), noise, table))
        check("s2.output", sampler.generate(second, golden.real("input"), noise))


def _built(golden, report, stage, kind):
    """The network with the recipe's weights, through an official state dict."""
    arguments = _arguments(golden, stage)
    with torch.device("meta"):
        bare = kind(**arguments)
    shapes = {official_name(name): value.shape for name, value in bare.named_parameters()}
    state = recipe_weights.state(shapes, golden.info["init_const"][stage])
    recipe_weights.fingerprint(report, stage, state)
    if kind is SecondStage:
        for copy, original in COPIES.items():
            twins = {name: value for name, value in state.items() if name.startswith(original)}
            state |= {re.sub(f"^{original}", copy, name): twin for name, twin in twins.items()}
        state |= {BUFFERS + name: row for name, row in buffers(sampler.schedule_of(bare)).items()}
    return from_official({"params_ema": state}, **arguments).to(golden.dtype)


def _checker(golden, report, error):
    def check(name, ours):
        if name not in golden.tensors:
            return  # a file may store fewer of its steps
        report.float32(name, ours, error)

    return check
