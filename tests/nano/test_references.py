"""Reference images of nano's pretraining.

What they are made of, and that the branch's `base: reference` is the same mechanism.
"""

import pytest
import torch

from lit_mimdit.models.branch_config import BranchConfig
from lit_mimdit.models.condition import Prompt
from lit_mimdit.models.latents import encode
from lit_mimdit.models.network import MiMDiTNetwork
from lit_mimdit.nano import mmdit as room
from lit_mimdit.nano.references import KEPT, NOISE, kept_tokens, reference_latents, thumbnail
from lit_mimdit.systems.optim import OptimizerConfig


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_thumbnail_keeps_averages_only():
    columns = torch.tensor([0.0, 1.0, 1.0, 0.0]).expand(
        1, 3, 4, 4
    )  # each block of 2 x 2 averages 0.5
    torch.testing.assert_close(thumbnail(columns, 2), torch.full((1, 3, 4, 4), 0.5))
    halves = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(
        1, 3, 4, 4
    )  # bilinear between 0 and 1, a quarter and three quarters of the way
    torch.testing.assert_close(thumbnail(halves, 2)[0, 0, 0], torch.tensor([0.0, 0.25, 0.75, 1.0]))


def test_references_are_the_image_its_thumbnails_and_noisy_copies(vae):
    images = torch.rand(1, 3, 16, 16, generator=draw()).expand(400, -1, -1, -1)
    latents = reference_latents(vae, images, draw(1))
    versions = torch.cat(
        [encode(vae, v) for v in (images[:1], thumbnail(images[:1], 2), thumbnail(images[:1], 4))]
    )
    distance = (latents[:, None] - versions[None]).square().mean((2, 3, 4)).sqrt()  # (400, 3)
    nearest = distance.min(1).values
    exact = nearest < 1e-5
    assert 0.4 < exact.float().mean() < 0.6  # half without noise
    shares = torch.bincount(distance[exact].argmin(1), minlength=3) / exact.sum()
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.25, 0.25]), rtol=0, atol=0.09)
    assert nearest.max() < 1.3 * NOISE and nearest.max() > 0.7 * NOISE
    assert torch.equal(latents, reference_latents(vae, images, draw(1)))
    assert not torch.equal(latents, reference_latents(vae, images, draw(2)))


def test_kept_tokens_are_all_or_a_share():
    kept = [kept_tokens(100, draw(seed)) for seed in range(200)]
    sizes = torch.tensor([len(ids) for ids in kept])
    assert all(len(set(ids.tolist())) == len(ids) and ids.max() < 100 for ids in kept)
    assert 0.35 < (sizes == 100).float().mean() < 0.65
    assert sizes.min() >= 100 * KEPT and sizes.min() < 45


@pytest.fixture
def nano(vae, tmp_path):
    vae.save_pretrained(tmp_path / "vae")
    sizes = {"layers": 2, "heads": 2, "head_dim": 8, "dual_layers": 1, "positions": 8}
    module = room.NanoMMDiT(
        str(tmp_path / "vae"), OptimizerConfig(lr=1e-3), str(tmp_path / "out"), **sizes
    )
    with torch.no_grad():  # fresh gates of zero would hide everything
        for parameter in module.transformer.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=draw(3)))
    return module


def test_the_branchs_base_reference_is_what_the_prior_was_trained_with(nano, monkeypatch):
    images = torch.rand(2, 3, 32, 32, generator=draw())
    latents = encode(nano.vae, images)
    monkeypatch.setattr(room, "reference_latents", lambda vae, images, draw: latents)
    monkeypatch.setattr(room, "kept_tokens", lambda tokens, draw: torch.arange(tokens))
    trained = nano.reference(images, draw())
    embeds = nano.empty_prompt(1)
    network = MiMDiTNetwork(
        nano.transformer,
        BranchConfig(width=8, heads=2, base="reference"),
        Prompt(embeds, torch.zeros_like(embeds[:, 0])),
    )
    for block, own in zip(network.condition(latents).blocks, trained, strict=True):
        torch.testing.assert_close(block.key, own.key)
        torch.testing.assert_close(block.value, own.value)


def test_each_context_is_another_loss_and_the_draw_follows_the_seed(nano):
    images = torch.rand(2, 3, 32, 32, generator=draw()) * 2 - 1
    losses = {context: nano.losses(images, 5, context)[0] for context in room.CONTEXTS}
    assert len({tuple(loss.tolist()) for loss in losses.values()}) == 3
    nano.context = (0.0, 0.0, 1.0)
    assert torch.equal(nano.losses(images, 5)[0], losses["reference"])
    losses["reference"].mean().backward()
    assert nano.transformer.transformer_blocks[0].attn.to_k.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("context", [(0.5, 0.5, 0.5), (-0.5, 0.5, 1.0)])
def test_shares_of_contexts_sum_to_one(vae, tmp_path, context):
    vae.save_pretrained(tmp_path / "vae")
    with pytest.raises(ValueError, match="model.context is .*sum to 1"):
        room.NanoMMDiT(
            str(tmp_path / "vae"), OptimizerConfig(lr=1e-3), str(tmp_path / "out"), context=context
        )
