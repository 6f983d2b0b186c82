"""Tells which card restores and trains with a frozen backbone, by how its weights are kept."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from lit_mimdit.estimate import (
    Alive,
    Sizes,
    attention,
    imagine,
    imagined_batch,
    meta_system,
    sizes_of,
)
from lit_mimdit.models.latents import decode, encode
from lit_mimdit.models.quantize import (
    GGUF,
    NONE,
    PACKAGES,
    held_bytes,
    largest_layer,
    planned_saving,
)
from lit_mimdit.systems.base import RestorationSystem
from lit_mimdit.training.strategy_memory import static

GIB = 2**30
CARDS = (8, 12, 16, 24, 48, 80)  # GB, as they are sold; each has about as many GiB
USED = 0.9  # of a card: CUDA's context and the gaps of the allocator take the rest
SIDE = 512  # pixels


@dataclass(frozen=True)
class Peaks:
    """Bytes on the card at the peak: of restoring, the same with --offload model, and training."""

    restore: int
    offload: int
    train: int

    def cell(self, card: int) -> str:
        """Returns what fits on a card of so many GB, as restore/train."""
        room = USED * card * GIB
        restore = "yes" if self.restore <= room else "offload" if self.offload <= room else "no"
        return f"{restore}/{'yes' if self.train <= room else 'no'}"


@dataclass(frozen=True)
class Weights:
    """Bytes of the parts of a system, and the numbers of its training.

    Args:
        backbone: of the frozen transformer with its prompt.
        vae: of the frozen VAE.
        branch: of what is trained, in 32 bits.
        buffer: for one layer's weight as ordinary numbers, where it is quantized.
    """

    backbone: int
    vae: int
    branch: int
    buffer: int

    def peaks(self, restoring: "Restoring", others: int) -> Peaks:
        """Returns the peaks beside these weights.

        Args:
            restoring: bytes beside the weights of restoring.
            others: bytes beside backbone and VAE of training.
        """
        sampling = self.backbone + self.buffer + restoring.sampling
        coding = self.vae + restoring.coding
        together = (
            self.vae + self.backbone + max(self.buffer + restoring.sampling, restoring.coding)
        )
        return Peaks(
            self.branch + together,
            self.branch + max(sampling, coding),
            self.backbone + self.buffer + self.vae + others,
        )


@dataclass(frozen=True)
class Restoring:
    """Bytes beside the weights at the peak of restoring one image.

    coding: while the VAE encodes or decodes it; sampling: while backbone and branch compute.
    """

    coding: int
    sampling: int


def simulate_restoring(
    kind: type[RestorationSystem], arguments: dict[str, Any], side: int
) -> Restoring:
    """Restore one square image without values, with a single step, as a GPU does.

    Args:
        kind: class of a system on a frozen backbone.
        arguments: of its constructor, typed.
        side: of the image in pixels.
    """
    system: Any = meta_system(kind, kind.estimated(arguments, True, 0))
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), attention(math=False):
        imagine(system.eval())
        data = imagined_batch(torch.arange(1), side)
        system.prepare_estimate(arguments, data, True, 0)
        network, vae = system.network, system.vae
        with Alive() as coding:
            decode(vae, encode(vae, data["lq"]))
        latent = encode(vae, data["lq"])
        with Alive() as sampling:
            network(latent, torch.ones(1), network.condition(latent))
    return Restoring(coding.peak, sampling.peak)


def cards(plan: Any) -> list[str]:
    """Returns lines of the table of cards; none for a system without a frozen backbone.

    Args:
        plan: of a run; see RunPlan in dry_run.py.
    """
    if "backbone_quantize" not in plan.arguments:
        return []
    side, rows = peaks_of(plan)
    lines = [
        f"\nthis card: restore/train at {side} px, one image at once, one GPU, with gradient"
        f" checkpointing; {round(100 - 100 * USED)}% of a card are left to CUDA",
        f"  {'backbone_quantize':20}{'restore':>9}{'offload':>9}{'train':>9}  "
        + "".join(f"{f'{card} GB':>13}" for card in CARDS),
    ]
    for name, peaks in rows.items():
        gib = "".join(f"{size / GIB:9.2f}" for size in (peaks.restore, peaks.offload, peaks.train))
        lines.append(f"  {name:20}{gib}  " + "".join(f"{peaks.cell(card):>13}" for card in CARDS))
    lines.append(
        "  GiB; offload: restore --offload model. All are estimates. The text encoders are not in"
        " it: the prompt is embedded once, before"
    )
    return lines


def peaks_of(plan: Any) -> tuple[int, dict[str, Peaks]]:
    """Returns the side in pixels, and the peaks of each way to keep the backbone's weights."""
    own = plan.arguments["backbone_quantize"]
    plain: dict[str, Any] = plan.arguments | {"backbone_quantize": None}
    if "gradient_checkpointing" in plain:
        plain["gradient_checkpointing"] = True
    system: Any = meta_system(plan.kind, plain)
    transformer, sizes = system.network.backbone, sizes_of(system)
    config = transformer.config
    factor = 2 ** (len(system.vae.config.block_out_channels) - 1)
    side = min(SIDE, config.pos_embed_max_size * config.patch_size * factor)
    single = replace(plan, arguments=plain, world=1, batch=1, crop=side, gpu=True, known={})
    restoring = simulate_restoring(plan.kind, plain, side)
    others = _beside(single, sizes) + single.step(True, 0).activations
    vae = held_bytes(system.vae)
    rows = {}
    for name in dict.fromkeys((NONE, *PACKAGES, own or NONE)):
        saved, buffer = 0, 0
        if name != NONE:
            saved, buffer = planned_saving(transformer, name), largest_layer(transformer)
        weights = Weights(sizes.frozen_bytes - vae - saved, vae, 4 * sizes.trained, buffer)
        rows[GGUF + "FILE" if name.startswith(GGUF) else name] = weights.peaks(restoring, others)
    return side, rows


def _beside(plan: Any, sizes: Sizes) -> int:
    """Bytes that training keeps beside the frozen weights, in one process."""
    kept = static(
        sizes, stage=0, offload=False, world=1, precision=plan.precision, average=plan.average
    )
    return kept.total - kept.frozen
