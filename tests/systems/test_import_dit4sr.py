"""DiT4SR's published file becomes a file that restores by its own sampler, and trains its loss."""

import json

import clip_systems as own
import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from filling import fill_network
from PIL import Image
from safetensors.torch import save_file

from lit_mimdit.data.pairs import collate
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.sampler import SamplingConfig
from lit_mimdit.models.backbone import load_backbone
from lit_mimdit.models.flow import sample_noise
from lit_mimdit.models.latents import decode, encode
from lit_mimdit.models.prompts import PromptConfig, Prompts
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


CAPTIONS = 'id,caption\na,"A street. The focus is on the rain. Gulls!"\nb,The blurry fence.\n'
SMALL = {"steps": 2, "tile": 32, "overlap": 8, "colour": "none"}


@torch.no_grad()
def test_an_imported_file_restores_as_the_authors_script_does(pipeline_folder, cache, tmp_path):
    """With an added prompt behind the caption, a negative prompt, guidance 8, and enlarged."""
    loaded = load_backbone(str(pipeline_folder))
    network = DiT4SRNetwork(loaded.transformer, prompt=loaded.prompt).eval()
    fill_network(network.branch, own.SEED)
    kept = {"added_prompt": "high quality", "negative": "haze", "upscale": 2, "process_size": 32}
    override = json.dumps({"backbone": str(pipeline_folder), "sampling": SMALL} | kept)
    output = tmp_path / "dit4sr.safetensors"
    import_weights("dit4sr", write(network, tmp_path), output=output, override=override)
    (tmp_path / "captions.csv").write_text(CAPTIONS)
    restorer = load_restorer(output, device="cpu", captions=tmp_path / "captions.csv")
    lq = torch.rand(1, 3, 12, 20, generator=torch.Generator().manual_seed(2))
    found, _ = restorer(lq, torch.tensor([7]), ids=["a"])
    record = restorer.record()
    assert (record["sampling"]["guidance"], record["prompt"]["negative"]) == (8.0, "haze")

    def told(text):
        parts = str(pipeline_folder), loaded.where, loaded.transformer, loaded.prompt
        return Prompts(PromptConfig(text=text), *parts).fixed

    eight_bits = (lq[0] * 255).round().byte().permute(1, 2, 0).numpy()
    picture = sampler.prepare(Image.fromarray(eight_bits), 2, 32)
    assert picture.size == (48, 32), "12 x 20 becomes 16 x 26, and twice that in multiples of 8"
    seen = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255
    z_lq = encode(loaded.vae, seen)
    noise = sample_noise(torch.tensor([7]), tuple(z_lq.shape[1:]))[0]
    prompts = told("A street. Gulls! high quality"), told("haze")
    velocity = sampler.guided(network, z_lq, *prompts, 8.0, tile=8, overlap=2)
    *_, latent = sampler.trajectory(velocity, noise, sampler.sigmas(2))
    restored = (decode(loaded.vae, latent)[0] * 255).round().byte().permute(1, 2, 0)
    expected = np.array(Image.fromarray(restored.numpy()).resize((40, 24), Image.BICUBIC))
    assert found.shape == (1, 3, 24, 40)
    # float32 sums in another order may turn a last digit into one grey level
    levels = (found[0].permute(1, 2, 0) * 255).numpy() - expected
    assert abs(levels).max() < 2.5 and abs(levels).mean() < 0.3
    tiles = restorer.evaluations(12, 20)
    assert tiles == 2 * 2 * 2, "two steps, two tiles of 32 x 48 pixels, with and without prompt"


def test_training_reads_captions_in_the_authors_length(pipeline_folder, cache, tmp_path):
    """77 tokens of T5 and no added text, also for a dropped or filtered caption."""
    (tmp_path / "captions.csv").write_text(CAPTIONS)
    told = PromptConfig(captions=str(tmp_path / "captions.csv"), dropout=0.2)
    system = DiT4SR(
        str(pipeline_folder),
        SamplingConfig(**SMALL),
        prompt=told,
        added_prompt="high quality",
        t5_tokens=77,
    )
    system.configure_model()
    pipeline = StableDiffusion3Pipeline.from_pretrained(pipeline_folder)
    found = system.training_prompts.of(["a", "b", "c"])
    assert torch.equal(found.embeds[1], found.embeds[2]), "nothing is left of the second caption"
    with torch.no_grad():
        for row, text in enumerate(("A street. Gulls!", "")):
            options = {"do_classifier_free_guidance": False, "max_sequence_length": 77}
            embeds, _, _, _ = pipeline.encode_prompt(text, None, None, **options)
            assert torch.equal(found.embeds[row], embeds[0]) and embeds.shape[1] == 154
    assert system.training_prompts.empty.embeds.shape[1] == 154
    assert system.prompts.of(["a"]).embeds.shape[1] == 333, "restoring has T5's 256"


def test_what_a_caption_becomes():
    assert sampler.told("A boat. The focus is on it.", "sharp") == "A boat. sharp"
    assert sampler.told("", "sharp") == "sharp" and sampler.told("The blurry fence.") == ""


def test_settings_without_sense_are_named(backbone_folder):
    config = SamplingConfig(steps=2, tile=32, overlap=8)
    for name, value in {"t5_tokens": 0, "upscale": 0}.items():
        with pytest.raises(ValueError, match=f"model.{name} is {value}"):
            DiT4SR(str(backbone_folder), config, **{name: value})
    enlarging = DiT4SR(str(backbone_folder), config, upscale=2)
    with pytest.raises(ValueError, match=r"model\.upscale is 2, and validation and test compare"):
        enlarging.on_validation_epoch_start()


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
