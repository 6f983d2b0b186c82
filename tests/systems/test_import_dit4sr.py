"""DiT4SR's published file becomes a file that restores by its own sampler, and trains its loss."""

import json

import clip_systems as own
import pytest
import torch
from filling import fill_network
from safetensors.torch import save_file

from lit_mimdit.data.pairs import collate
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.sampler import SamplingConfig
from lit_mimdit.models.backbone import load_backbone
from lit_mimdit.models.flow import sample_noise
from lit_mimdit.models.latents import decode, encode
from lit_mimdit.systems.dit4sr import DiT4SR, objective, sampler
from lit_mimdit.systems.dit4sr.network import DiT4SRNetwork
from lit_mimdit.systems.dit4sr.official import official_name
from lit_mimdit.systems.import_weights import import_weights


@pytest.fixture
def loaded(backbone_folder):
    return load_backbone(str(backbone_folder))


@pytest.fixture
def network(loaded):
    network = DiT4SRNetwork(loaded.transformer, prompt=loaded.prompt)
    fill_network(network.branch, own.SEED)
    return network.eval()


def write(network, folder):
    state = {official_name(k): v.contiguous() for k, v in network.state_dict().items()}
    save_file(state, folder / "official.safetensors")
    return [folder / "official.safetensors"]


@torch.no_grad()
def test_the_authors_file_restores_by_their_sampler(network, loaded, backbone_folder, tmp_path):
    given = {"steps": 3, "tile": 32, "overlap": 8, "colour": "none"}
    override = json.dumps({"backbone": str(backbone_folder), "sampling": given})
    output = tmp_path / "dit4sr.safetensors"
    import_weights("dit4sr", write(network, tmp_path), output=output, override=override)
    lq = torch.rand(1, 3, 24, 48, generator=torch.Generator().manual_seed(2))
    found, _ = load_restorer(output, device="cpu")(lq, torch.tensor([7]), ids=["a"])

    z_lq, text = encode(loaded.vae, lq), network.prompt
    assert z_lq.shape[-2:] == (6, 12), "above 8 x 8 places, so in tiles of 6"
    noise = sample_noise(torch.tensor([7]), tuple(z_lq.shape[1:]))[0]
    velocity = sampler.guided(network, z_lq, text, text, 1.0, tile=8, overlap=2)
    *_, latent = sampler.trajectory(velocity, noise, sampler.sigmas(3))
    torch.testing.assert_close(found, decode(loaded.vae, latent), rtol=0, atol=1e-5)


def test_a_step_hook_sees_the_latent_replaces_it_and_stops():
    def run(on_step=None):
        return list(sampler.trajectory(lambda x, t: x, torch.ones(1), sampler.sigmas(4), on_step))

    seen, plain = [], run()
    run(lambda step, t, x: seen.append((step, t, x)) or x)
    assert [step for step, _, _ in seen] == [0, 1, 2, 3]
    assert [t for _, t, _ in seen] == sampler.sigmas(4)[:4].tolist()
    assert [x for _, _, x in seen] == plain
    assert run(lambda step, t, x: 0 * x)[-1] == 0, "a replaced latent goes on"
    assert run(lambda step, t, x: None if step == 1 else x) == plain[:2]


def test_another_backbone_is_refused(network, backbone_folder, tmp_path):
    with torch.no_grad():
        network.backbone.proj_out.weight += 0.1
    small = {"tile": 32, "overlap": 8}
    override = json.dumps({"backbone": str(backbone_folder), "sampling": small})
    with pytest.raises(ValueError, match=r"proj_out\.weight of the file is not that of"):
        import_weights(
            "dit4sr", write(network, tmp_path), output=tmp_path / "x.safetensors", override=override
        )


def test_the_loss_of_the_system_is_the_published_one(backbone_folder):
    system = DiT4SR(str(backbone_folder), SamplingConfig(steps=2, tile=32, overlap=8))
    system.configure_model()
    fill_network(system.network.branch, own.SEED)
    draw = torch.Generator().manual_seed(1)
    about = {"degradation": "01Blur", "dataset": "", "id": "a"}
    images = torch.rand(2, 2, 3, 16, 16, generator=draw)
    batch = collate([{"lq": a, "gt": b, "seed": 5 + i} | about for i, (a, b) in enumerate(images)])
    losses = system.losses(batch)
    z_gt, z_lq = (encode(system.vae, batch[name]) for name in ("gt", "lq"))
    noise, normal = sample_noise(batch["seed"], tuple(z_gt.shape[1:]))
    levels = objective.training_sigmas(objective.draw_index(normal))
    z = objective.noisy(z_gt, noise, levels)
    velocity = system.network(z, levels.float(), z_lq)
    torch.testing.assert_close(losses.total, objective.loss(z, velocity, levels, z_gt))


def test_what_the_sampler_lacks_is_refused(backbone_folder):
    for name, value in {"solver": "heun", "start": "lq", "overview": 32}.items():
        config = SamplingConfig(steps=2, tile=32, overlap=8, **{name: value})
        with pytest.raises(ValueError, match=f"sampling.{name} is {value}: DiT4SR takes Euler"):
            DiT4SR(str(backbone_folder), config).configure_model()


@pytest.mark.parametrize(
    ("size", "longest", "expected"),
    [
        ((8, 8), 8, None),
        ((4, 16), None, None),  # as published: no more than 8 x 8 places
        ((4, 16), 8, (4, [0], [0, 2, 4, 6, 8, 10, 12])),  # more than the positions cover
        ((2, 40), None, (2, [0], list(range(0, 40, 2)))),
        ((20, 26), None, (8, [0, 6, 12], [0, 6, 12, 18])),
    ],
)
def test_tiles_of_narrow_latents(size, longest, expected):
    assert sampler.tiling(*size, 8, 2, longest) == expected
