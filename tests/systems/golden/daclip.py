"""Recomputes a golden file of DA-CLIP, standard or wild."""

import copy

import torch
import torch.nn.functional as F
from check_golden import Golden, Report

from lit_mimdit.systems.daclip.objective import (
    SDE,
    build_sde,
    clip_loss,
    drift_step,
    marginal,
    posterior_mean,
    restoration_loss,
)
from lit_mimdit.systems.daclip.official import DACLIPNetwork, from_official
from lit_mimdit.systems.daclip.sampler import clip_pixels, first_state, trajectory

PASS = 2e-6  # of a tensor's largest value: one forward pass, which the authors ran in float32
UNET = (
    4e-6  # the same through the U-Net, whose own float32 error is above 1e-6; a lone norm is 9e-6
)
LONG = 1e-5  # the same for trajectories, losses and gradients
TABLE = 2e-6  # tables, which the authors keep in float32


def build(golden: Golden) -> DACLIPNetwork:
    """The networks of the file in float64."""
    return from_official(
        golden.state(dtype=torch.float32), **golden.info["clip_args"], **golden.info["unet_args"]
    ).double()


def near(report: Report, name: str, ours: torch.Tensor, relative: float) -> None:
    """Compares relative to the stored tensor's largest value."""
    report.tensor(name, ours, relative * float(report.tensors[name].double().abs().max()))


def compare(golden: Golden, report: Report) -> None:
    torch.set_grad_enabled(False)
    try:
        networks = build(golden)
        clip(golden, report, networks)
        unet(golden, report, networks)
        sampling(golden, report, networks)
        training(golden, report, networks)
    finally:
        torch.set_grad_enabled(True)


def clip(golden: Golden, report: Report, networks: DACLIPNetwork) -> None:
    net, d = networks.clip, golden.double
    report.given("clip.image", "clip.tokens", "pre.image_u8")
    size = golden.info["clip_args"]["vision_cfg"]["image_size"]
    near(report, "pre.clip", clip_pixels(golden.tensors["pre.image_u8"].numpy(), size), PASS)

    degradation, controls = net.control(d("clip.image"))
    content = net.content(d("clip.image"), controls)
    for block, control in enumerate(controls):
        near(report, f"clip.control_hidden.{block}", control, PASS)
    near(report, "clip.degra_features", degradation, PASS)
    near(report, "clip.image_features", content, PASS)
    near(report, "clip.image_features_plain", net.content(d("clip.image")), PASS)

    # both halves of a caption "caption: degradation" lie side by side
    captions, words = golden.tensors["clip.tokens"].chunk(2, dim=1)
    caption, word, scale = net.text(captions), net.text(words), net.logit_scale.exp()
    near(report, "clip.text_features", caption, PASS)
    near(report, "clip.text_degra_features", word, PASS)
    for name, value in (
        ("image_features", content),
        ("image_degra_features", degradation),
        ("text_features", caption),
        ("text_degra_features", word),
    ):
        near(report, f"clip.forward.{name}", F.normalize(value, dim=1), PASS)
    near(report, "clip.forward.logit_scale", scale, PASS)
    near(report, "clip.loss.contrastive", clip_loss(content, caption, scale), LONG)
    near(report, "clip.loss.degra", clip_loss(degradation, word, scale), LONG)


def unet(golden: Golden, report: Report, networks: DACLIPNetwork) -> None:
    d = golden.double
    names = ("xt", "cond", "time", "text_context", "image_context")
    report.given(*(f"unet.{name}" for name in names))
    x, mu, t, text, image = (d(f"unet.{name}") for name in names)
    near(report, "unet.out", networks.unet(x, mu, t, text, image), UNET)
    near(report, "unet.out_no_text", networks.unet(x, mu, t, None, image), UNET)


def tables(name: str, sde: SDE, report: Report) -> None:
    for stored, ours in (
        ("dt", torch.tensor(sde.dt)),
        ("sigma_bars", sde.bar),
        ("sigmas", sde.sigma),
        ("thetas", sde.theta),
        ("thetas_cumsum", sde.cumulated),
        ("posterior_std", sde.std),
    ):
        near(report, f"sde.{name}.{stored}", ours, TABLE)


def sampling(golden: Golden, report: Report, networks: DACLIPNetwork) -> None:
    """Trajectories are in float32 as the authors' are: 1 - exp(-2 Theta_t dt) of the last steps has
    three digits in it.
    """
    names = ("LQ", "init_noise", "step_noise", "text_context", "image_context")
    report.given(*(f"sample.{name}" for name in names))
    mu, first, noises, text, image = (golden.tensors[f"sample.{name}"] for name in names)
    unet = copy.deepcopy(networks.unet).float()

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return unet(x, mu, t, text, image)

    for name, arguments in golden.info["sde_args"].items():
        tables(name, build_sde(**arguments), report)
        sde = build_sde(**arguments, dtype=torch.float32)
        start = first_state(sde, mu, first)
        near(report, f"sde.{name}.xT", start, TABLE)
        for mode in golden.info["modes"][name]:
            states = trajectory(sde, network, mu, start, mode, iter(noises))
            near(report, f"sde.{name}.traj_{mode}", torch.stack(list(states)), LONG)


def training(golden: Golden, report: Report, networks: DACLIPNetwork) -> None:
    d = golden.double
    names = ("GT", "LQ", "noise", "text_context", "image_context")
    report.given("train.t", *(f"train.{name}" for name in names))
    clean, mu, noise, text, image = (d(f"train.{name}") for name in names)
    t, sde = golden.tensors["train.t"], build_sde(**golden.info["sde_args"]["full"])
    x = marginal(sde, clean, mu, t, noise)
    parameters = dict(networks.unet.named_parameters())
    keys = golden.info["grad_keys"]
    with torch.enable_grad():
        predicted = networks.unet(x, mu, sde.time[t], text, image)
        loss = restoration_loss(sde, x, mu, t, predicted, clean)
        gradients = torch.autograd.grad(loss, [parameters[key] for key in keys])
    near(report, "train.xt", x, PASS)
    near(report, "train.pred_noise", predicted, UNET)
    near(report, "train.expectation", drift_step(sde, x, mu, t, predicted), LONG)
    single = build_sde(**golden.info["sde_args"]["full"], dtype=torch.float32)
    target = posterior_mean(single, x.float(), mu.float(), t, clean.float())
    near(report, "train.target_x_tm1", target, PASS)
    near(report, "train.loss", loss, LONG)
    for key, gradient in zip(keys, gradients, strict=True):
        near(report, f"train.grad.{key}", gradient, LONG)
