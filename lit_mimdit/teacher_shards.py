"""`python -m lit_mimdit data teacher`: what a teacher makes of stored latents in many steps, stored
beside them, so that a student learns to make it in a few.

The noise of every result is fixed. It depends on the seed of the command, the pair, the tile and
the orientation alone, and its own seed is stored with the result.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor

from lit_mimdit.data.order import sample_seed
from lit_mimdit.data.shards.derive import Made, derive
from lit_mimdit.data.shards.manifest import Manifest
from lit_mimdit.data.shards.source import ShardSource, Stored
from lit_mimdit.data.shards.writer import Member
from lit_mimdit.inference.device import choose_device
from lit_mimdit.inference.guidance import conditioned
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.restorer import Restorer
from lit_mimdit.inference.sampler import Solver, sample
from lit_mimdit.inference.system_file import SystemFile, load_system, system_path
from lit_mimdit.latent_shards import vae_identity
from lit_mimdit.models.backbone import tensors_hash
from lit_mimdit.models.flow import sample_noise
from lit_mimdit.models.latents import require_finite

Restore = Callable[[Tensor, Tensor], Tensor]  # latents and seeds (B,) of noise -> latents


def teacher(
    source: Path,
    destination: Path,
    *,
    checkpoint: str = "package",
    steps: int = 40,
    solver: Solver = "euler",
    seed: int = 0,
    backbone: str | None = None,
    backbone_dtype: Literal["float32", "bfloat16"] | None = None,
    device: str = "auto",
) -> None:
    """Restore shards of latents with a teacher and store its results beside them, for a student
    that learns to make them in a few steps.

    Write the latents first: `data latents`. Each orientation of each tile gets one result, from
    noise of its own. The same command goes on where it was stopped.

    Args:
        source: folder of shards of latents
        destination: folder for the shards with the results. It is made if it does not exist
        checkpoint: the branch that teaches: an exported file, a training checkpoint, or `package`
        steps: steps that the teacher's solver takes
        solver: solver that the teacher samples with
        seed: seed of the noise that the teacher starts from
        backbone: folder or hub id of the backbone, if it is not where it was in training
        backbone_dtype: precision of the frozen weights, if not that of the teacher's training
        device: where it runs: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`
    """
    latents = ShardSource(str(source))
    settings = dict(latents.manifest.settings)
    if not latents.latents or "teacher" in settings:
        what = "a teacher's results already" if latents.latents else "images"
        raise ValueError(
            f"{source} holds {what}: give shards of latents, written with `python -m lit_mimdit"
            " data latents`"
        )
    file = load_system(system_path(checkpoint))
    where = f"checkpoint {checkpoint}"
    if file.backbone is None:
        raise ValueError(
            f"{where}: {file.class_path} restores without a backbone's latents, and cannot teach"
            " in them; give a branch on a backbone"
        )
    place = choose_device(device)
    restorer = load_restorer(
        checkpoint, backbone, place, dtype=backbone_dtype, overview=0, guidance=1.0
    )
    if vae_identity(restorer.vae) != settings["vae"]:
        raise ValueError(
            f"{source} holds latents of the VAE of {settings['backbone']!r}, and the teacher's"
            " backbone has another: write them again with `python -m lit_mimdit data latents"
            " --backbone ...`"
        )
    settings |= {"teacher": identity_of(file, steps, solver), "noise_seed": seed}
    restore = restoring(restorer, steps, solver)

    def taught(index: int) -> Made:
        height, width, tiles = latents.stored_latents(index)
        restored = [
            (box, _taught(stored, restore, [seed, index, tile]))
            for tile, (box, stored) in enumerate(tiles)
        ]
        return height, width, restored

    derive(latents, destination, settings, taught, "teaching")


def restoring(restorer: Restorer, steps: int, solver: Solver) -> Restore:
    """Returns what turns degraded latents (B, C, H, W) and seeds (B,) into the teacher's."""
    config = replace(restorer.config, steps=steps, solver=solver, start="noise")
    prompt = restorer.network.prompt if restorer.prompts is None else restorer.prompts.of(None)

    @torch.no_grad()
    def restore(z_lq: Tensor, seeds: Tensor) -> Tensor:
        z_lq = z_lq.to(restorer.device)
        noise = sample_noise(seeds, tuple(z_lq.shape[1:]))[0].to(z_lq)
        told = prompt.to(restorer.device)
        velocity = conditioned(restorer.network, z_lq, told, config.guidance).velocity
        latent = sample(velocity, z_lq, noise, restorer.scheduler, config)
        return require_finite(latent, "the teacher's result").cpu()

    return restore


def _taught(stored: list[Stored], restore: Restore, place: list[int]) -> list[Member]:
    """The members of a tile with the teacher's results, one an orientation."""
    seed, index, tile = place
    count = len(stored)
    seeds = [sample_seed(seed, index, tile * count + number) for number in range(count)]
    noise_seeds = torch.tensor(seeds, dtype=torch.int64)
    results = restore(torch.stack([one["lq"].float() for one in stored]), noise_seeds)
    members = []
    for number, (tensors, result) in enumerate(zip(stored, results, strict=True)):
        kept = tensors | {"teacher": result.to(tensors["lq"].dtype).contiguous()}
        kept |= {"noise_seed": noise_seeds[number].clone()}
        members.append((f"v{number}.safetensors", save(kept)))
    return members


def identity_of(file: SystemFile, steps: int, solver: Solver) -> dict[str, Any]:
    """Returns what tells one teacher from another: branch, backbone, prompt and sampling."""
    assert file.backbone is not None, "who teaches in latents has a backbone"
    return {
        "branch": tensors_hash(file.tensors),
        "backbone": file.backbone.weights,
        "prompt": file.prompt,
        "steps": steps,
        "solver": solver,
    }


def require_same_teacher(own: dict[str, Any], data: Any) -> None:
    """Raises ValueError if the training data are results of another teacher than `own`."""
    manifest: Manifest | None = getattr(data, "latents_of", None)
    stored = None if manifest is None else manifest.settings.get("teacher")
    if stored is None or stored == own:
        return
    different = sorted(key for key in own if own[key] != stored.get(key))
    values = "; ".join(f"{key} {stored.get(key)!r}, not {own[key]!r}" for key in different)
    raise ValueError(
        f"data.train holds results of another teacher than model.teacher ({values}): set"
        " model.teacher to it, or write them again with `python -m lit_mimdit data teacher"
        " --checkpoint ...`"
    )
