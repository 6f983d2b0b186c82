"""Recomputes a golden file of DA-CLIP, standard or wild."""

import copy

import torch
import torch.nn.functional as F
from golden_file import Golden
from golden_report import Report, twice

from lit_mimdit.systems.daclip.objective import (
    SDE,
    build_sde,
    clip_loss,
    drift_step,
    marginal,
    posterior_mean,
    restoration_loss,
)
from lit_mimdit.systems.daclip.official import DACLIPNetwork, from_official, official_name
from lit_mimdit.systems.daclip.sampler import clip_pixels, first_state, trajectory

TEXTS = ("dead",)
PASS = 2e-6  # of a tensor's largest value: one forward pass, which the authors ran in float32
UNET = (
    4e-6  # the same through the U-Net, whose own float32 error is above 1e-6; a lone norm is 9e-6
)
LONG = 1e-5  # the same for trajectories, losses and gradients
TABLE = 2e-6  # tables, which the authors keep in float32


def build(golden: Golden) -> DACLIPNetwork:
    """The networks of the file."""
    return from_official(
        golden.state(dtype=torch.float32), **golden.info["clip_args"], **golden.info["unet_args"]
    ).to(golden.dtype)


def compare(golden: Golden, report: Report) -> None:
    with torch.no_grad():
        twice(golden, report, run)


def run(golden: Golden, report: Report) -> None:
    networks = build(golden)
    # open_clip keeps queries, keys and values in one tensor
    own = {official_name(name).partition("[")[0] for name in networks.clip.state_dict()}
    report.loaded(own, "as the importer compares these copies with what it loads", "state.daclip.")
    report.loaded(networks.unet.state_dict(), "as they act on nothing", "state.unet.")
    dead(report, networks)
    for part in (clip, unet, sampling, training):
        with report.part():
            part(golden, report, networks)


def dead(report: Report, networks: DACLIPNetwork) -> None:
    """Compares which parameters act on nothing.

    A bias of keys adds the same to every score of a query. A cross-attention with one key has no
    scores to weigh. The logit scale of CLIP gives way to the controller's.
    """
    keys = [
        official_name(name)
        for name in networks.clip.state_dict()
        if name.endswith("self_attn.k_proj.bias")
    ]
    report.names("dead/clip", ["clip.logit_scale", *keys])
    blind = {"attn2.to_q.weight": "[all]", "attn2.to_k.weight": ""}
    blind |= {"norm2.weight": "", "norm2.bias": ""}
    report.names(
        "dead/unet",
        [
            name + mark
            for name in networks.unet.state_dict()
            for end, mark in blind.items()
            if ".transformer_blocks." in name and name.endswith(end)
        ],
    )


def clip(golden: Golden, report: Report, networks: DACLIPNetwork) -> None:
    net, d = networks.clip, golden.real
    report.given("clip.image", "clip.tokens", "pre.image_u8")
    size = golden.info["clip_args"]["vision_cfg"]["image_size"]
    report.near("pre.clip", clip_pixels(golden.tensors["pre.image_u8"].numpy(), size), PASS)

    degradation, controls = net.control(d("clip.image"))
    content = net.content(d("clip.image"), controls)
    for block, control in enumerate(controls):
        report.near(f"clip.control_hidden.{block}", control, PASS)
    report.near("clip.degra_features", degradation, PASS)
    report.near("clip.image_features", content, PASS)
    report.near("clip.image_features_plain", net.content(d("clip.image")), PASS)

    # both halves of a caption "caption: degradation" lie side by side
    captions, words = golden.tensors["clip.tokens"].chunk(2, dim=1)
    caption, word, scale = net.text(captions), net.text(words), net.logit_scale.exp()
    report.near("clip.text_features", caption, PASS)
    report.near("clip.text_degra_features", word, PASS)
    for name, value in (
        ("image_features", content),
        ("image_degra_features", degradation),
        ("text_features", caption),
        ("text_degra_features", word),
    ):
        report.near(f"clip.forward.{name}", F.normalize(value, dim=1), PASS)
    report.near("clip.forward.logit_scale", scale, PASS)
    report.near("clip.loss.contrastive", clip_loss(content, caption, scale), LONG)
    report.near("clip.loss.degra", clip_loss(degradation, word, scale), LONG)


def unet(golden: Golden, report: Report, networks: DACLIPNetwork) -> None:
    d = golden.real
    names = ("xt", "cond", "time", "text_context", "image_context")
    report.given(*(f"unet.{name}" for name in names))
    x, mu, t, text, image = (d(f"unet.{name}") for name in names)
    report.near("unet.out", networks.unet(x, mu, t, text, image), UNET)
    report.near("unet.out_no_text", networks.unet(x, mu, t, None, image), UNET)


def tables(name: str, sde: SDE, report: Report) -> None:
    for stored, ours in (
        ("dt", torch.tensor(sde.dt)),
        ("sigma_bars", sde.bar),
        ("sigmas", sde.sigma),
        ("thetas", sde.theta),
        ("thetas_cumsum", sde.cumulated),
        ("posterior_std", sde.std),
    ):
        report.near(f"sde.{name}.{stored}", ours, TABLE)


def sampling(golden: Golden, report: Report, networks: DACLIPNetwork) -> None:
    """Trajectories are in float32 as the authors' are: 1 - exp(-2 Theta_t dt) of the last steps has
    three digits in it. What float32 rounds is then measured in float64, on the same tables.
    """
    names = ("LQ", "init_noise", "step_noise", "text_context", "image_context")
    report.given(*(f"sample.{name}" for name in names))
    kind = torch.float32 if golden.dtype == torch.float64 else torch.float64
    mu, first, noises, text, image = (golden.tensors[f"sample.{name}"].to(kind) for name in names)
    unet = copy.deepcopy(networks.unet).to(kind)

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return unet(x, mu, t, text, image)

    for name, arguments in golden.info["sde_args"].items():
        tables(name, build_sde(**arguments, dtype=golden.dtype), report)
        sde = build_sde(**arguments, dtype=torch.float32)
        start = first_state(sde, mu, first)
        report.near(f"sde.{name}.xT", start, TABLE)
        for mode in golden.info["modes"][name]:
            states = trajectory(sde, network, mu, start, mode, iter(noises))
            report.near(f"sde.{name}.traj_{mode}", torch.stack(list(states)), LONG)


def training(golden: Golden, report: Report, networks: DACLIPNetwork) -> None:
    d = golden.real
    names = ("GT", "LQ", "noise", "text_context", "image_context")
    report.given("train.t", *(f"train.{name}" for name in names))
    clean, mu, noise, text, image = (d(f"train.{name}") for name in names)
    t, sde = golden.tensors["train.t"], build_sde(**golden.info["sde_args"]["full"])
    x = marginal(sde, clean, mu, t, noise)
    parameters = dict(networks.unet.named_parameters())
    keys = golden.info["grad_keys"]
    with torch.enable_grad():
        predicted = networks.unet(x, mu, sde.time[t].to(x), text, image)
        loss = restoration_loss(sde, x, mu, t, predicted, clean)
        gradients = torch.autograd.grad(loss, [parameters[key] for key in keys])
    report.near("train.xt", x, PASS)
    report.near("train.pred_noise", predicted, UNET)
    report.near("train.expectation", drift_step(sde, x, mu, t, predicted), LONG)
    single = build_sde(**golden.info["sde_args"]["full"], dtype=torch.float32)
    target = posterior_mean(single, x.float(), mu.float(), t, clean.float())
    report.near("train.target_x_tm1", target, PASS)
    report.near("train.loss", loss, LONG)
    for key, gradient in zip(keys, gradients, strict=True):
        report.near(f"train.grad.{key}", gradient, LONG)
