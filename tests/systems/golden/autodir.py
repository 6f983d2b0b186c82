"""Recomputes a golden file of AutoDIR."""

from collections.abc import Iterator
from typing import Any

import torch
from golden.daclip import LONG, PASS
from golden_file import Golden
from golden_report import Report, twice

from lit_mimdit.inference.colour import adain
from lit_mimdit.systems.autodir import objective, sampler
from lit_mimdit.systems.autodir.network import (
    AFTER,
    BEFORE,
    CATEGORY_TOKENS,
    END,
    START,
    TEXT_LENGTH,
    AutoDIRNetwork,
    tokens,
)
from lit_mimdit.systems.autodir.official import from_official, official_name

TEXTS = ("dead", "chosen")
ARGUMENTS = ("unet_args", "vae_args", "clip_args", "scm_args")
AROUND = ("a", "photo", "needs", "artifact", "reduction")
LEVEL = 1  # of 255: a float that lies at a whole number is truncated to either side
UNKNOWN = "the sentence has words that the eight sentences lack, and CLIP's vocabulary is not here"


def build(golden: Golden) -> AutoDIRNetwork:
    state = golden.state(dtype=torch.float32)
    arguments = {name: golden.info[name] for name in ARGUMENTS}
    return from_official(state, **arguments).to(golden.dtype)


def renumbered(golden: Golden, ids: torch.Tensor) -> torch.Tensor:
    """CLIP's token ids as the file numbers them; ValueError for one that it does not have."""
    known = torch.tensor(golden.info["tokenizer_ids"])
    places = torch.searchsorted(known, ids).clamp(max=len(known) - 1)
    if not torch.equal(known[places], ids):
        raise ValueError(f"tokenizer_ids lack some of CLIP's tokens {ids.unique().tolist()}")
    return places


def tokenize(golden: Golden) -> sampler.Tokens:
    """Token ids of a category as the file renumbers them."""

    def found(category: str | None) -> tuple[torch.Tensor, torch.Tensor]:
        ids, mask = tokens(category)
        return renumbered(golden, ids), mask

    return found


def words() -> dict[str, tuple[int, ...]]:
    """CLIP's tokens of every word in the eight sentences."""
    found = {word: (i,) for word, i in zip(AROUND, BEFORE + AFTER, strict=True)}
    for category, ids in CATEGORY_TOKENS.items():
        parts = category.split()
        split = [ids] if len(parts) == 1 else [(i,) for i in ids]
        found |= dict(zip(parts, split, strict=True))
    return found


def sentence_ids(golden: Golden, text: str) -> torch.Tensor | None:
    """Token ids (1, 77) of a user's sentence in the file's numbers; None for an unknown word."""
    known, parts = words(), text.lower().split()
    if any(part not in known for part in parts):
        return None
    ids = [START, *(i for part in parts for i in known[part]), END]
    return renumbered(golden, torch.tensor(ids + [END] * (TEXT_LENGTH - len(ids))))[None]


class FromStored:
    """The networks of a run, which see the stored image at the start of each iteration.

    The differences of one iteration then do not grow in the next.
    """

    def __init__(self, golden: Golden, network: AutoDIRNetwork, run: str) -> None:
        self.golden, self.network, self.run = golden, network, run
        self.number = -1
        self.context: torch.Tensor | None = None  # of a sentence that cannot be read here

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def seen(self, image: torch.Tensor) -> torch.Tensor:
        name = f"e2e.{self.run}.{self.number}.input"
        return self.golden.real(name) if name in self.golden.tensors else image

    def assess(self, image: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> Any:
        self.number += 1
        return self.network.assess(self.seen(image), ids, mask)

    def hidden(self, ids: torch.Tensor | None) -> torch.Tensor | None:
        return self.context if ids is self.context else self.network.hidden(ids)

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        return self.network.encode(self.seen(image))

    def correction(self, image: torch.Tensor, decoded: torch.Tensor) -> torch.Tensor:
        return self.network.correction(self.seen(image), decoded)


def compare(golden: Golden, report: Report) -> None:
    with torch.no_grad():
        twice(golden, report, run)


def run(golden: Golden, report: Report) -> None:
    network = build(golden)
    names = [official_name(name, network) for name in network.state_dict()]
    report.loaded(names, "as they follow from equations or only count")
    # a bias of keys adds the same to every score of a query
    keys = [name for name in names if name.endswith((".k_proj.bias", ".attn_1.k.bias"))]
    report.names("dead", keys)
    with report.part():
        parts(golden, report, network)
    schedule(golden, report)
    with report.part():
        training(golden, report, network)
    for name in golden.info["e2e"]:
        with report.part():
            end_to_end(golden, report, network, name)


def parts(golden: Golden, report: Report, network: AutoDIRNetwork) -> None:
    d, t = golden.real, golden.tensors
    given = ("image", "latent", "assess.attention_mask", "assess.input_ids", "assess.null_ids")
    report.given(*given, "scm.decoded")
    report.given(*(f"unet.{name}" for name in ("x", "concat", "context", "t")))
    ids, mask = t["assess.input_ids"], t["assess.attention_mask"]
    probabilities, logits, hidden = network.assess(d("image"), ids, mask)
    report.near("assess.pixel_values", network.pixels(d("image")), PASS)
    report.near("assess.logits_per_text", logits, PASS)
    report.near("assess.probabilities", probabilities, LONG)
    report.near("assess.text_hidden", hidden, PASS)
    report.near("assess.null_hidden", network.hidden(t["assess.null_ids"]), PASS)

    posterior = network.vae.encode(d("image")).latent_dist
    report.near("vae.mode", network.encode(d("image")), PASS)
    report.near("vae.logvar", posterior.logvar, PASS)
    report.near("vae.decoded", network.decode(d("latent")), PASS)
    x, z, context = d("unet.x"), d("unet.concat"), d("unet.context")
    report.near("unet.eps", network.noise(x, z, t["unet.t"], context), PASS)
    report.near("scm.out", network.correction(d("image"), d("scm.decoded")), PASS)


def schedule(golden: Golden, report: Report) -> None:
    abar = objective.alphas_cumprod()
    for name, ours in (
        ("betas", objective.betas()),
        ("alphas_cumprod", abar),
        ("sqrt_alphas_cumprod", abar.sqrt()),
        ("sqrt_one_minus_alphas_cumprod", (1 - abar).sqrt()),
        ("sigmas_table", objective.sigmas_table()),
    ):
        report.table(f"schedule.{name}", ours)
    for name in [name for name in report.left if name.startswith("schedule.")]:
        levels = sampler.sampling_sigmas(int(name.rpartition("_")[2]))
        if name.startswith("schedule.t_of_"):
            levels = sampler.network_time(levels[:-1])
        report.table(name, levels)


def training(golden: Golden, report: Report, network: AutoDIRNetwork) -> None:
    d, t = golden.real, golden.tensors["train.t"]
    given = ("gt", "lq", "noise", "gt_logits", "x_start", "concat", "text_mix", "probabilities")
    report.given("train.t", *(f"train.{name}" for name in given[:4]))
    categories = golden.info["sizes"]["train_class"]
    ids, mask = golden.tensors["assess.input_ids"], golden.tensors["assess.attention_mask"]
    probabilities, _, hidden = network.assess(d("train.lq"), ids, mask)
    report.near("train.probabilities", probabilities, LONG)
    context = hidden[categories]  # of the true sentence
    report.near("train.text_mix", context, PASS)
    report.near("train.concat", network.encode(d("train.lq")), PASS)
    x_0 = d("train.x_start")
    report.given("train.x_start")

    x_t = objective.noisy(x_0, t, d("train.noise"))
    report.near("train.x_noisy", x_t, PASS)
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
        report.near(f"train.{name}", ours, LONG)
    for key, gradient in zip(keys, gradients, strict=True):
        report.near(key, gradient, LONG)


def end_to_end(golden: Golden, report: Report, network: AutoDIRNetwork, name: str) -> None:
    d, options = golden.real, golden.info["e2e"][name]
    report.given("e2e.image_u8")
    image = 2 * d("e2e.image_u8").permute(2, 0, 1)[None] / 255 - 1
    tokenizer, largest = tokenize(golden), sampler.sampling_sigmas(1)[0]
    networks, sentence = FromStored(golden, network, name), None
    if "customize" in options:
        sentence = sentence_ids(golden, options["customize"])
        if sentence is None:
            report.skip(f"e2e.{name}.0.context", UNKNOWN)
            sentence = networks.context = d(f"e2e.{name}.0.context")

    def noises(number: int) -> tuple[torch.Tensor, Iterator[torch.Tensor]]:
        at = f"e2e.{name}.{number}"
        report.given(f"{at}.z_init", f"{at}.noise")
        return d(f"{at}.z_init") / largest, iter(d(f"{at}.noise"))

    iterations = sampler.restore(
        networks,
        image,
        noises,
        options["steps"],
        options.get("cfg-text", 1.0),
        options.get("cfg-image", 1.0),
        sentence,
        tokenizer,
    )
    chosen = []
    for number, step in enumerate(iterations):
        at, found = f"e2e.{name}.{number}", {}
        if step.chosen is not None:
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
            if f"{at}.{key}" in golden.tensors and f"{at}.{key}" not in report.skipped:
                report.near(f"{at}.{key}", ours, LONG)
    report.same(f"chosen/{name}", chosen)


def pictures(report: Report, at: str, step: sampler.Iteration) -> None:
    for suffix, image in (("result", step.decoded), ("result_w_SCM", step.corrected)):
        for colour, ours in (("", image), ("_colorcorrect", adain(image, step.image))):
            if f"{at}_{suffix}{colour}" in report.tensors:
                picture = torch.from_numpy(sampler.to_bytes(ours))
                report.tensor(f"{at}_{suffix}{colour}", picture, LEVEL)
