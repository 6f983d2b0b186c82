"""Recomputes a golden file of AutoDIR."""

from typing import Any

import torch
from check_golden import Golden, Report
from golden.daclip import LONG, PASS, near

from lit_mimdit.systems.autodir import objective, sampler
from lit_mimdit.systems.autodir.network import AutoDIRNetwork, tokens
from lit_mimdit.systems.autodir.official import from_official
from lit_mimdit.systems.colour import adain

ARGUMENTS = ("unet_args", "vae_args", "clip_args", "scm_args")
LEVEL = 1  # of 255: a float that lies at a whole number is truncated to either side


def build(golden: Golden) -> AutoDIRNetwork:
    state = golden.state(dtype=torch.float32)
    return from_official(state, **{name: golden.info[name] for name in ARGUMENTS}).double()


def tokenize(golden: Golden) -> sampler.Tokens:
    """Token ids as the file renumbers them."""
    known = torch.tensor(golden.info["tokenizer_ids"])

    def renumbered(category: str | None) -> tuple[torch.Tensor, torch.Tensor]:
        ids, mask = tokens(category)
        places = torch.searchsorted(known, ids)
        assert torch.equal(known[places], ids), "a token that the file does not have"
        return places, mask

    return renumbered


def compare(golden: Golden, report: Report) -> None:
    torch.set_grad_enabled(False)
    try:
        network = build(golden)
        parts(golden, report, network)
        schedule(golden, report)
        training(golden, report, network)
        for name in golden.info["e2e"]:
            end_to_end(golden, report, network, name)
    finally:
        torch.set_grad_enabled(True)


def parts(golden: Golden, report: Report, network: AutoDIRNetwork) -> None:
    d, t = golden.double, golden.tensors
    given = ("image", "latent", "assess.attention_mask", "assess.input_ids", "assess.null_ids")
    report.given(*given, "scm.decoded")
    report.given(*(f"unet.{name}" for name in ("x", "concat", "context", "t")))
    ids, mask = t["assess.input_ids"], t["assess.attention_mask"]
    probabilities, logits, hidden = network.assess(d("image"), ids, mask)
    near(report, "assess.pixel_values", network.pixels(d("image")), PASS)
    near(report, "assess.logits_per_text", logits, PASS)
    near(report, "assess.probabilities", probabilities, LONG)
    near(report, "assess.text_hidden", hidden, PASS)
    near(report, "assess.null_hidden", network.hidden(t["assess.null_ids"]), PASS)

    posterior = network.vae.encode(d("image")).latent_dist
    near(report, "vae.mode", network.encode(d("image")), PASS)
    near(report, "vae.logvar", posterior.logvar, PASS)
    near(report, "vae.decoded", network.decode(d("latent")), PASS)
    x, z, context = d("unet.x"), d("unet.concat"), d("unet.context")
    near(report, "unet.eps", network.noise(x, z, t["unet.t"], context), PASS)
    near(report, "scm.out", network.correction(d("image"), d("scm.decoded")), PASS)


def schedule(golden: Golden, report: Report) -> None:
    abar = objective.alphas_cumprod()
    for name, ours in (
        ("betas", objective.betas()),
        ("alphas_cumprod", abar),
        ("sqrt_alphas_cumprod", abar.sqrt()),
        ("sqrt_one_minus_alphas_cumprod", (1 - abar).sqrt()),
        ("sigmas_table", objective.sigmas_table()),
    ):
        near(report, f"schedule.{name}", ours, PASS)
    for name in [name for name in report.left if name.startswith("schedule.")]:
        levels = sampler.sampling_sigmas(int(name.rpartition("_")[2]))
        if name.startswith("schedule.t_of_"):
            levels = sampler.network_time(levels[:-1])
        near(report, name, levels, PASS)


def training(golden: Golden, report: Report, network: AutoDIRNetwork) -> None:
    d, t = golden.double, golden.tensors["train.t"]
    given = ("gt", "lq", "noise", "gt_logits", "x_start", "concat", "text_mix", "probabilities")
    report.given("train.t", *(f"train.{name}" for name in given[:4]))
    categories = golden.info["sizes"]["train_class"]
    ids, mask = golden.tensors["assess.input_ids"], golden.tensors["assess.attention_mask"]
    probabilities, _, hidden = network.assess(d("train.lq"), ids, mask)
    near(report, "train.probabilities", probabilities, LONG)
    context = hidden[categories]  # of the true sentence
    near(report, "train.text_mix", context, PASS)
    near(report, "train.concat", network.encode(d("train.lq")), PASS)
    x_0 = d("train.x_start")
    report.given("train.x_start")

    x_t = objective.noisy(x_0, t, d("train.noise"))
    near(report, "train.x_noisy", x_t, PASS)
    predicted = network.noise(x_t, d("train.concat"), t, context)
    decoded = network.decode(objective.implied_clean(x_t, t, predicted))
    keys = [k for k in golden.tensors if k.startswith("train.grad.")]
    weights = dict(network.correction.named_parameters())
    with torch.enable_grad():
        corrected = network.correction(d("train.lq"), decoded)
        loss, diffusion, fidelity, final = objective.correction_loss(
            predicted,
            d("train.noise"),
            probabilities,
            d("train.gt_logits"),
            corrected,
            d("train.gt"),
        )
        names = [k.removeprefix("train.grad.NAFNet.") for k in keys]
        gradients = torch.autograd.grad(loss, [weights[name] for name in names])
    for name, ours in (
        ("loss", loss),
        ("loss_simple", diffusion),
        ("clip_loss", fidelity),
        ("loss_final", final),
        ("loss_vlb", objective.variational_bound(predicted, d("train.noise"), t)),
    ):
        near(report, f"train.{name}", ours, LONG)
    for key, gradient in zip(keys, gradients, strict=True):
        near(report, key, gradient, LONG)


def end_to_end(golden: Golden, report: Report, network: AutoDIRNetwork, name: str) -> None:
    d, options = golden.double, golden.info["e2e"][name]
    report.given("e2e.image_u8")
    image = 2 * d("e2e.image_u8").permute(2, 0, 1)[None] / 255 - 1
    tokenizer, largest = tokenize(golden), sampler.sampling_sigmas(1)[0]
    sentence = None
    if "customize" in options:
        category = options["customize"].removeprefix("A photo needs ")
        sentence = tokenizer(category.removesuffix(" artifact reduction"))[0][None]

    def noises(number: int) -> tuple[torch.Tensor, Any]:
        at = f"e2e.{name}.{number}"
        report.given(f"{at}.z_init", f"{at}.noise")
        return d(f"{at}.z_init") / largest, iter(d(f"{at}.noise"))

    run = sampler.restore(
        network,
        image,
        noises,
        options["steps"],
        options.get("cfg-text", 1.0),
        options.get("cfg-image", 1.0),
        sentence,
        tokenizer,
    )
    chosen = []
    for number, step in enumerate(run):
        at, found = f"e2e.{name}.{number}", {}
        chosen.append([list(step.left), step.chosen])
        found["input"], found["probabilities"] = step.image, step.probabilities
        found["context" if sentence is not None else "text_mix"] = step.context
        if step.decoded is not None:
            found |= {
                "concat": step.z,
                "sigmas": sampler.sampling_sigmas(options["steps"]),
                "states": step.states,
                "denoised": step.cleans,
                "decoded": step.decoded,
                "corrected": step.corrected,
            }
            pictures(report, f"e2e.{name}.png.step_{number}", step)
        for key, ours in found.items():
            if f"{at}.{key}" in golden.tensors:
                near(report, f"{at}.{key}", ours, LONG)
    if golden.info["chosen"][name] and chosen != golden.info["chosen"][name]:
        report.failures.append(f"e2e.{name}: chose {chosen}")


def pictures(report: Report, at: str, step: sampler.Iteration) -> None:
    for suffix, image in (("result", step.decoded), ("result_w_SCM", step.corrected)):
        for colour, ours in (("", image), ("_colorcorrect", adain(image, step.image))):
            if f"{at}_{suffix}{colour}" in report.tensors:
                picture = torch.from_numpy(sampler.to_bytes(ours))
                report.tensor(f"{at}_{suffix}{colour}", picture, LEVEL)
