"""Recomputes a golden file of DiT4SR."""

from typing import Any

import torch
from diffusers import AutoencoderKL
from golden.daclip import LONG, PASS
from golden_file import Golden
from golden_report import Report, twice

from lit_mimdit.inference.colour import adain, wavelet
from lit_mimdit.models.condition import Prompt
from lit_mimdit.systems.dit4sr import objective, sampler
from lit_mimdit.systems.dit4sr.network import DiT4SRNetwork
from lit_mimdit.systems.dit4sr.official import from_official, official_name

TEXTS = ("dead", "prompt_filter")
# of a block without text behind it, whose text is a key and a value only
ASKING = ("attn.add_q_proj.weight", "attn.add_q_proj.bias", "attn.norm_added_q.weight")


def build(golden: Golden, **control: Any) -> DiT4SRNetwork:
    state = golden.state("state.transformer.", torch.float32)
    return from_official(state, **golden.info["args"], **control).to(golden.dtype)


def compare(golden: Golden, report: Report) -> None:
    with torch.no_grad():
        twice(golden, report, run)
    if "prompt_filter" in report.texts:
        captions = [caption for caption, _ in golden.info["prompt_filter"]]
        report.same("prompt_filter", [[text, sampler.filter_caption(text)] for text in captions])


def run(golden: Golden, report: Report) -> None:
    network = build(golden, key="r1")
    state = golden.state("state.transformer.")
    own = {official_name(name) for name in network.state_dict()}
    report.loaded(own, "as they act on nothing", "state.transformer.")
    last = f"transformer_blocks.{len(network.backbone.transformer_blocks) - 1}."
    report.names("dead", {*state.keys() - own, *(last + name for name in ASKING)})
    with report.part():
        passes(golden, report, network)
    schedules(golden, report)
    for name in golden.info["pipe"]:
        with report.part():
            pipeline(golden, report, network, name)
    for part in (training, colours):
        with report.part():
            part(golden, report, network)


def prompt(golden: Golden, name: str, part: str = "") -> Prompt:
    return Prompt(golden.real(f"{name}.{part}text"), golden.real(f"{name}.{part}pooled"))


def passes(golden: Golden, report: Report, network: DiT4SRNetwork) -> None:
    d = golden.real
    report.given(*(f"net.{name}" for name in ("x", "lq", "t", "text", "pooled")))
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str, second: str | None = None):
        def hook(module, arguments, output):
            both = output if isinstance(output, tuple) else (output,)
            seen[name] = both[0]
            if second and len(both) > 1 and both[1] is not None:
                seen[second] = both[1]

        return hook

    net, handles = network.backbone, []
    for index, block in enumerate(net.transformer_blocks):
        at = f"net.block.{index}"
        handles += [
            # a block returns text and images, an attention images and text
            block.register_forward_hook(keep(f"{at}.text", f"{at}.images")),
            block.attn.register_forward_hook(keep(f"{at}.attn.images", f"{at}.attn.text")),
            block.ff.register_forward_hook(keep(f"{at}.ff.images")),
        ]
        if block.attn2 is not None:
            handles.append(block.attn2.register_forward_hook(keep(f"{at}.attn2.images")))
    handles.append(net.time_text_embed.register_forward_hook(keep("net.temb")))

    def run(model: DiT4SRNetwork) -> torch.Tensor:
        return model(d("net.x"), d("net.t") / 1000, d("net.lq"), prompt(golden, "net"))

    report.near("net.out_r1", run(network), PASS)
    for handle in handles:
        handle.remove()
    for name in [name for name in report.left if name in seen]:
        report.near(name, seen[name], PASS)
    for name, control in (
        ("out_original", {"key": "original"}),
        ("out_r1_conv_weight_1", {"key": "r1", "conv_weight": 1.0}),
    ):
        report.near(f"net.{name}", run(build(golden, **control)), PASS)


def schedules(golden: Golden, report: Report) -> None:
    for name in [name for name in report.left if name.startswith("schedule.")]:
        kind, _, steps = name.removeprefix("schedule.").rpartition("_")
        if kind == "train":
            levels = objective.training_sigmas(torch.arange(1000))
            report.table(name, levels if steps == "sigmas" else 1000 * levels)
        else:
            levels = sampler.sigmas(int(steps))
            report.table(name, levels if kind == "sigmas" else 1000 * levels[:-1])


def pipeline(golden: Golden, report: Report, network: DiT4SRNetwork, name: str) -> None:
    d, options = golden.real, golden.info["pipe"][name]
    inputs = ("xT", "encode_noise", "image", "text", "pooled", "neg_text", "neg_pooled")
    report.given(*(f"pipe.{name}.{part}" for part in inputs))
    vae = AutoencoderKL(**golden.info["vae_args"])
    vae.load_state_dict(golden.state("state.vae.", torch.float32))
    report.loaded(vae.state_dict(), "as they act on nothing", "state.vae.")
    vae = vae.type(golden.dtype).eval()  # to() warns about float32
    scale, shift = vae.config.scaling_factor, vae.config.shift_factor

    posterior = vae.encode(d(f"pipe.{name}.image")).latent_dist
    drawn = posterior.mean + posterior.std * d(f"pipe.{name}.encode_noise")
    latents = (drawn - shift) * scale
    report.near(f"pipe.{name}.lq_latents", latents, PASS)
    negative, told = latents[:1], latents[1:]

    calls: list[tuple[torch.Tensor, torch.Tensor]] = []

    def counted(x: torch.Tensor, t: torch.Tensor, z_lq: torch.Tensor, text: Prompt) -> torch.Tensor:
        calls.append((x, network(x, t.float(), z_lq, text)))  # the authors' times are float32
        return calls[-1][1]

    velocity = sampler.guided(
        counted,
        told,
        prompt(golden, f"pipe.{name}"),
        prompt(golden, f"pipe.{name}", "neg_"),
        options["cfg"],
        options["tile"],
        options["overlap"],
        negative,
    )
    found: list[torch.Tensor] = []

    def kept(x: torch.Tensor, t: float) -> torch.Tensor:
        found.append(velocity(x, t))
        return found[-1]

    levels = sampler.sigmas(options["steps"])
    report.near(f"pipe.{name}.sigmas", levels, PASS)
    report.near(f"pipe.{name}.timesteps", 1000 * levels[:-1], PASS)
    states = list(sampler.trajectory(kept, d(f"pipe.{name}.xT"), levels))
    report.near(f"pipe.{name}.velocity", torch.stack(found), LONG)
    report.near(f"pipe.{name}.states", torch.stack(states), LONG)
    # ours runs the told prompt on all tiles, then the negative one; theirs both at once
    half = len(calls) // options["steps"] // 2
    report.tensor(f"pipe.{name}.network_calls", torch.tensor(len(calls) // 2), 0)
    report.near(f"pipe.{name}.first_x", torch.cat([calls[half][0], calls[0][0]]), PASS)
    first = torch.cat([calls[half][1], calls[0][1]])
    report.near(f"pipe.{name}.first_raw_output", first, PASS)
    if f"pipe.{name}.tile_weights" in golden.tensors:
        weights = sampler.tile_weights(golden.tensors[f"pipe.{name}.tile_weights"].shape[-1])
        report.near(f"pipe.{name}.tile_weights", weights[None, None], 1e-12)
    image = sampler.picture(vae.decode(states[-1] / scale + shift).sample)
    report.near(f"pipe.{name}.image_out", image, LONG)


def training(golden: Golden, report: Report, network: DiT4SRNetwork) -> None:
    d = golden.real
    given = ("index", "latent", "lq", "noise", "text", "pooled")
    report.given(*(f"train.{name}" for name in given))
    network.branch.requires_grad_(True)
    trained = dict(network.branch.named_parameters())
    report.tensor(
        "train.trained_parameters", torch.tensor(sum(p.numel() for p in trained.values())), 0
    )
    levels = objective.training_sigmas(golden.tensors["train.index"])
    z = objective.noisy(d("train.latent"), d("train.noise"), levels)
    keys = [k for k in golden.tensors if k.startswith("train.grad.")]
    # float32 times, compared below: the embedding turns their last digit into 1e-4 of the velocity
    times = d("train.timesteps") / 1000
    with torch.enable_grad():
        velocity = network(z, times, d("train.lq"), prompt(golden, "train")).double()
        loss = objective.loss(z, velocity, levels, d("train.latent"))
        gradients = torch.autograd.grad(
            loss, [trained[k.removeprefix("train.grad.")] for k in keys]
        )
    report.near("train.sigmas", levels, PASS)
    report.near("train.timesteps", 1000 * levels, PASS)
    report.near("train.noisy", z, PASS)
    report.near("train.velocity", velocity, PASS)
    report.near("train.weight", torch.ones_like(levels), 0)
    report.near("train.x0", objective.implied_clean(z, velocity, levels), PASS)
    report.near("train.loss", loss, LONG)
    for key, gradient in zip(keys, gradients, strict=True):
        report.near(key, gradient, LONG)


def colours(golden: Golden, report: Report, _: DiT4SRNetwork) -> None:
    report.given("color.content", "color.style")
    content, style = golden.real("color.content"), golden.real("color.style")
    report.near("color.adain", adain(content, style), PASS)
    report.near("color.wavelet", wavelet(content, style), PASS)
