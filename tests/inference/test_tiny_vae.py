"""A tiny autoencoder in the place of the backbone's VAE."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from huggingface_hub import constants
from kit.files import write_regression
from kit.hub_server import Repository
from PIL import Image

from lit_mimdit import cli
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.tiny_vae import load_tiny_vae
from lit_mimdit.models.backbone import weights_hash
from lit_mimdit.models.latents import decode, downsampling, encode


def write_tiny(folder: Path, channels: int = 16, levels: int = 3, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    sizes, blocks = (8,) * levels, (1,) * levels
    vae = AutoencoderTiny(
        encoder_block_out_channels=sizes,
        decoder_block_out_channels=sizes,
        num_encoder_blocks=blocks,
        num_decoder_blocks=blocks,
        latent_channels=channels,
        scaling_factor=1.0,
        shift_factor=0.0,
    )
    vae.save_pretrained(folder)
    return folder


@pytest.fixture
def tiny(tmp_path) -> Path:
    return write_tiny(tmp_path / "tiny")


def test_latents_and_images_are_those_of_its_own_calls(tiny):
    vae = load_tiny_vae(str(tiny))
    assert downsampling(vae) == 4 and not any(p.requires_grad for p in vae.parameters())
    image = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        latent = vae.encoder(image * 2 - 1)
        decoded = vae.decoder(latent)
    torch.testing.assert_close(encode(vae, image), latent)
    assert latent.shape == (1, 16, 4, 6)
    torch.testing.assert_close(decode(vae, latent), (decoded / 2 + 0.5).clamp(0, 1))


@pytest.mark.parametrize("size", [(24, 32), (40, 72)])
def test_it_takes_both_places_of_the_vae(branch_file, tiny, size):
    """Whole and tiled: the same as a restorer whose own VAE it is."""
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    restorer = load_restorer(branch_file, device="cpu")
    usual = restorer(image, torch.tensor([3]))[0]
    found = load_restorer(branch_file, device="cpu", vae=str(tiny))(image, torch.tensor([3]))[0]
    restorer.vae = AutoencoderTiny.from_pretrained(tiny).eval()
    assert torch.equal(found, restorer(image, torch.tensor([3]))[0])
    assert (found - usual).abs().mean() > 0.01


def test_the_record_names_it_from_a_folder_and_from_the_hub(branch_file, tiny, hub, tmp_path):
    hub.repositories["me/taesd"] = Repository()
    hub.repositories["me/taesd"].commit({p.name: p.read_bytes() for p in tiny.iterdir()})
    photos = tmp_path / "photos"
    photos.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(photos / "a.png")
    records, pictures = [], []
    for number, options in enumerate(([], ["--vae", str(tiny)], ["--vae", "me/taesd"])):
        args = ["restore", photos, "-o", tmp_path / str(number), "--checkpoint", branch_file]
        assert cli.main([*map(str, args), "--device", "cpu", *options]) == 0
        records.append(json.loads((tmp_path / str(number) / "restoration.json").read_text()))
        pictures.append((tmp_path / str(number) / "a.png").read_bytes())
    weights = weights_hash(load_tiny_vae(str(tiny)))
    assert "vae" not in records[0]
    assert records[1]["vae"] == {"name": str(tiny), "weights": weights}
    assert records[2]["vae"] == {"name": "me/taesd", "weights": weights}
    assert len({record["config_hash"] for record in records}) == 3
    assert pictures[0] != pictures[1] == pictures[2]
    other = load_tiny_vae(str(write_tiny(tmp_path / "other", seed=1)))
    assert weights_hash(other) != weights


def test_what_cannot_be_on_the_hub_is_not_asked_for(hub, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for vae, message in (
        ("/nonexistent", "vae '/nonexistent': there is no such folder; give the folder or hub id"),
        ("nano", "vae 'nano': there is no such folder; give"),
        (str(tmp_path / "file"), "file': there is no such folder; give"),
        (str(tmp_path / "empty"), "empty': the folder holds no config.json; give the folder"),
    ):
        with pytest.raises(ValueError, match=message):
            load_tiny_vae(vae)
    assert hub.asked == []


def test_a_hub_that_cannot_be_reached_is_what_is_said(close_hub, monkeypatch):
    closed = close_hub()
    said = f"vae 'me/taesd': is no folder here; the hub cannot be reached at {closed} .*: bring"
    with pytest.raises(ValueError, match=said) as caught:
        load_tiny_vae("me/taesd")
    assert "\n" not in str(caught.value) and "config.json" not in str(caught.value)
    assert "`hf download me/taesd " in str(caught.value)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="folder here; HF_HUB_OFFLINE is set, and the hub's cache"):
        load_tiny_vae("me/taesd")


def test_what_does_not_fit_is_refused_in_one_line(branch_file, backbone_folder, hub, tmp_path):
    write_regression(tmp_path / "net.safetensors")
    cases = [
        (branch_file, write_tiny(tmp_path / "four", channels=4), "has latents of 4 channels, one"),
        (branch_file, write_tiny(tmp_path / "deep", levels=4), "one for 8 px; the backbone's"),
        (
            branch_file,
            backbone_folder / "vae",
            "its class is AutoencoderKL and not AutoencoderTiny",
        ),
        (branch_file, "me/none", "vae 'me/none': could not be loaded"),
        (tmp_path / "net.safetensors", "me/none", "this system has no VAE to replace"),
    ]
    for checkpoint, vae, message in cases:
        with pytest.raises(ValueError, match=message) as caught:
            load_restorer(checkpoint, device="cpu", vae=str(vae))
        assert "\n" not in str(caught.value)
