"""A complete small Stable Diffusion 3.5 folder is loaded by diffusers' own readers; what cannot be
loaded is named, with a remedy.
"""

import copy
import json
import re
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from kit.hub_server import Repository
from safetensors.torch import load_file, save_file
from torch import nn

from lit_mimdit.models.backbone import load_backbone, load_vae, weights_hash
from lit_mimdit.models.folder import not_from_hub
from lit_mimdit.models.geometry import read_geometry


@pytest.fixture
def folder(pipeline_folder, tmp_path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(pipeline_folder, tmp_path / "sd3"))


def test_a_whole_pipeline_loads_frozen_in_bfloat16_from_sharded_files(pipeline_folder, cache):
    shards = sorted((pipeline_folder / "transformer").glob("*-of-*.safetensors"))
    assert len(shards) > 2 and not list(pipeline_folder.rglob("*.bin"))
    loaded = load_backbone(str(pipeline_folder), torch.bfloat16)
    parts = {"transformer": loaded.transformer, "vae": loaded.vae}
    for part, model in parts.items():
        written = {
            k: v
            for file in (pipeline_folder / part).glob("*.safetensors")
            for k, v in load_file(file).items()
        }
        state = model.state_dict()
        assert state.keys() == written.keys() and len(state) > 50
        assert all(torch.equal(state[name], tensor.bfloat16()) for name, tensor in written.items())
        assert not model.training and not any(p.requires_grad for p in model.parameters())
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert (
        loaded.vae.config.latent_channels,
        loaded.vae.config.scaling_factor,
        loaded.vae.config.shift_factor,
    ) == (16, 1.5305, 0.0609)
    assert (
        loaded.scheduler.config.shift == 3.0
        and loaded.identity.dtype == "bfloat16"
        and loaded.where == str(pipeline_folder)
    )
    full = load_backbone(str(pipeline_folder))
    assert (full.identity.config, full.identity.weights) == (
        loaded.identity.config,
        loaded.identity.weights,
    )
    assert full.identity.dtype == "float32" and full.transformer.dtype == torch.float32


def test_it_computes_what_diffusers_own_pipeline_computes(pipeline_folder, cache):
    """Weights, scaling and embeddings together.

    One step of the official pipeline is one step of ours.
    """
    pipeline = StableDiffusion3Pipeline.from_pretrained(pipeline_folder)
    pipeline.set_progress_bar_config(disable=True)
    latent = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    options = {
        "num_inference_steps": 1,
        "guidance_scale": 1.0,
        "output_type": "pt",
        "height": 32,
        "width": 32,
    }
    theirs = pipeline("", latents=latent.clone(), **options).images
    loaded = load_backbone(str(pipeline_folder))
    with torch.no_grad():
        embeds, pooled = loaded.prompt
        v = loaded.transformer(latent, embeds, pooled, torch.tensor([1000.0]), return_dict=False)[0]
        image = loaded.vae.decode((latent - v) / 1.5305 + 0.0609).sample
    torch.testing.assert_close(theirs, (image / 2 + 0.5).clamp(0, 1), rtol=1e-4, atol=1e-4)


def test_a_hub_id_is_read_from_the_hubs_cache(processes, pipeline_folder, tmp_path, cache):
    """The layout in which `hf download` keeps a snapshot, and no network."""
    import os
    import sys

    commit, home = "0123456789abcdef0123456789abcdef01234567", tmp_path / "hub"
    snapshot = home / "models--someone--small-sd3" / "snapshots" / commit
    shutil.copytree(pipeline_folder, snapshot)
    (home / "models--someone--small-sd3" / "refs").mkdir()
    (home / "models--someone--small-sd3" / "refs" / "main").write_text(commit)
    code = (
        "from lit_mimdit.models.backbone import load_backbone; from lit_mimdit.models.encoders"
        " import encoder_identity\nb = load_backbone('someone/small-sd3');"
        " print(b.identity.weights, b.prompt.embeds.shape[1], encoder_identity(b.where))"
    )
    environment = os.environ | {
        "HF_HUB_CACHE": str(home),
        "HF_HUB_OFFLINE": "1",
        "LIT_MIMDIT_CACHE": str(tmp_path / "cache"),
    }
    done = processes.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=600
    )
    assert done.returncode == 0, done.stderr
    here = load_backbone(str(pipeline_folder))
    assert done.stdout.split() == [here.identity.weights, "333", f"someone/small-sd3@{commit}"]


def _drop(path: str):
    return lambda folder: shutil.rmtree(folder / path)


def _cut(folder: Path) -> None:
    file = sorted((folder / "transformer").glob("*-of-*.safetensors"))[1]
    file.write_bytes(file.read_bytes()[:-100])


def _lose_a_shard(folder: Path) -> None:
    sorted((folder / "transformer").glob("*-of-*.safetensors"))[1].unlink()


def _pickle_only(folder: Path) -> None:
    files = list((folder / "vae").glob("*.safetensors"))
    torch.save(
        {k: v for file in files for k, v in load_file(file).items()},
        folder / "vae" / "diffusion_pytorch_model.bin",
    )
    for file in [*files, folder / "vae" / "diffusion_pytorch_model.safetensors.index.json"]:
        file.unlink()


def _lose_a_tensor(folder: Path) -> None:
    name = "decoder.conv_out.weight"
    file = next(file for file in (folder / "vae").glob("*.safetensors") if name in load_file(file))
    save_file({k: v for k, v in load_file(file).items() if k != name}, file, {"format": "pt"})


def _other_config(folder: Path) -> None:
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_layers": 4}))


@pytest.mark.parametrize(
    "damage, message",
    [
        (
            _drop("scheduler"),
            (
                "has no folder scheduler: it is no complete folder of Stable Diffusion 3.5;"
                " download it whole with `hf download"
            ),
        ),
        (_lose_a_shard, "could not be loaded .*download it again"),
        (_cut, "could not be loaded .*download it again"),
        (_pickle_only, "could not be loaded .*damaged or no safetensors"),
        (
            _lose_a_tensor,
            (
                "vae: the weights do not fit config.json, 1 missing keys such as"
                " decoder.conv_out.weight"
            ),
        ),
        (_other_config, "could not be loaded .*expected shape .*download it again"),
    ],
    ids=["part", "shard", "cut", "pickle", "tensor", "config"],
)
def test_what_is_wrong_with_a_folder_is_one_line(folder, cache, damage, message):
    damage(folder)
    with pytest.raises(ValueError, match=message) as raised:
        load_backbone(str(folder))
    assert "\n" not in str(raised.value) and str(folder) in str(raised.value)


def test_a_gated_or_missing_model_says_how_to_get_it(monkeypatch, tmp_path):
    # the variable HF_HUB_OFFLINE is read once, when the library is loaded
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError) as raised:
        load_backbone("stabilityai/stable-diffusion-3.5-medium")
    said = str(raised.value)
    assert "\n" not in said
    for word in (
        "https://huggingface.co/stabilityai/stable-diffusion-3.5-medium",
        "licence",
        "hf auth login",
        "hf download",
        "give its path",
        "is no folder here; HF_HUB_OFFLINE is set, and the hub's cache does not have it: unset it",
    ):
        assert word in said
    with pytest.raises(ValueError, match=re.escape("there is no folder './nowhere'")):
        load_backbone("./nowhere")


@pytest.mark.parametrize("load", [load_backbone, read_geometry])
def test_a_hub_that_cannot_be_reached_is_what_is_said(close_hub, load):
    closed = close_hub()
    with pytest.raises(ValueError) as raised:
        load("me/sd")
    said = str(raised.value)
    away = f"the hub cannot be reached at {closed} (["
    assert said.startswith(f"model.backbone: 'me/sd' is no folder here; {away}")
    assert "hf download me/sd" in said and "give its path" in said and "licence" in said
    assert "\n" not in said and "config.json" not in said


def test_a_hub_that_answers_is_not_said_to_be_away(hub, tmp_path):
    """What it lacks, what it refuses, and what it refuses without a reason."""
    hub.repositories["me/empty"] = Repository()
    hub.repositories["me/empty"].commit({"README.md": b"words"})
    hub.repositories["you/gated"] = Repository(gated=True)
    hub.repositories["you/forbidden"] = Repository(forbidden=True)
    for name, message in (
        ("me/empty", "could not be loaded .me/empty does not appear to have .*config.json"),
        ("me/none", "could not be loaded .me/none is not a local folder"),
        ("you/gated", "could not be loaded .you/gated is not a local folder"),
        ("you/forbidden", f"the hub at {hub.url} answers with status 403: bring the folder"),
    ):
        with pytest.raises(ValueError, match=message):
            load_vae(name)
    for error in (TimeoutError("timed out"), ConnectionError("reset")):  # of a folder on a network
        assert not_from_hub(str(tmp_path), error) is None
        assert "timed out" in (not_from_hub("me/sd", TimeoutError("timed out")) or "")


def test_the_vae_alone_needs_nothing_else(folder):
    for part in ("text_encoder", "text_encoder_2", "text_encoder_3"):
        shutil.rmtree(folder / part)
    for file in (folder / "transformer").glob("*.safetensors"):
        file.unlink()
    vae = load_vae(str(folder), torch.bfloat16)
    assert vae.dtype == torch.bfloat16 and not any(p.requires_grad for p in vae.parameters())


def test_a_fresh_diffusers_transformer_has_the_same_keys(pipeline_folder, cache):
    """Nothing of the loading renames or drops a weight."""
    loaded = load_backbone(str(pipeline_folder)).transformer
    assert (
        loaded.state_dict().keys()
        == SD3Transformer2DModel(**dict(loaded.config)).state_dict().keys()
    )


def test_the_hash_of_weights_knows_which_weight_is_whose():
    layer = nn.Linear(3, 3)
    one, renamed = (nn.ModuleDict({name: layer}) for name in ("one", "other"))
    assert weights_hash(one) == weights_hash(copy.deepcopy(one)) != weights_hash(renamed)
    assert weights_hash(one, "beside") != weights_hash(one)
