"""Repositories of trained systems: written, uploaded to a hub on loopback, and used from there."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard, constants
from kit.files import mim_file, write_regression
from kit.hub_server import Hub, Repository
from PIL import Image
from safetensors import safe_open

from lit_mimdit import cli
from lit_mimdit.inference.hub import MODEL
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.pipeline import MiMDiTPipeline
from lit_mimdit.inference.sampler import SamplingConfig
from lit_mimdit.inference.system_file import load_system, save_system
from lit_mimdit.models.backbone import load_backbone
from lit_mimdit.models.branch_config import BranchConfig, IntraConfig
from lit_mimdit.models.network import MiMDiTNetwork
from lit_mimdit.sharing.licences import licence_of
from lit_mimdit.sharing.repository import plain_paths

BACKBONE = "stabilityai/stable-diffusion-3.5-tiny"
PIXELS = np.random.default_rng(5).integers(0, 256, (24, 32, 3), dtype=np.uint8)
FILES = {"README.md", "config.json", MODEL}


def export(*args: object) -> int:
    return cli.main(["export", *map(str, args)])


def uploaded(hub: Hub, name: str) -> dict[str, bytes]:
    repository = hub.repositories[name]
    return repository.commits[repository.refs["main"]]


def card_of(hub: Hub, name: str) -> ModelCard:
    return ModelCard(uploaded(hub, name)["README.md"].decode())


@pytest.fixture
def gated(hub, pipeline_folder, cache, tmp_path) -> Path:
    """A branch on a backbone with text encoders, which lies in a gated repository."""
    files = [path for path in pipeline_folder.rglob("*") if path.is_file()]
    hub.repositories[BACKBONE] = Repository(gated=True)
    hub.repositories[BACKBONE].commit(
        {path.relative_to(pipeline_folder).as_posix(): path.read_bytes() for path in files}
    )
    loaded = load_backbone(str(pipeline_folder))
    config = BranchConfig(
        width=16, heads=2, window=2, intra=IntraConfig(experts=2, top_k=1), zero_std=0.5
    )
    torch.manual_seed(3)
    branch = MiMDiTNetwork(loaded.transformer, config, loaded.prompt).branch
    path = tmp_path / "branch.safetensors"
    sampling = SamplingConfig(steps=2, tile=32, overlap=8, tile_batch=2)
    save_system(path, mim_file(branch, sampling, loaded.identity))
    return path


def test_a_branch_is_shared_without_its_gated_backbone(hub, gated, pipeline_folder, capsys):
    assert (
        export(gated, "--push_to_hub", "me/mim", "--backbone", BACKBONE, "--dtype", "float32") == 0
    )
    said = capsys.readouterr().out
    assert f"{hub.url}/me/mim/commit/" in said and "--checkpoint me/mim" in said
    files = uploaded(hub, "me/mim")
    assert files.keys() == FILES
    tensors = load_system(gated).tensors
    with safe_open(gated.parent / "branch.safetensors", "pt") as own:
        assert set(own.keys()) == tensors.keys()
    assert json.loads(files["config.json"])["backbone"]["name"] == BACKBONE
    assert str(pipeline_folder).encode() not in b"".join(files.values())

    data = card_of(hub, "me/mim").data
    assert data.base_model == BACKBONE and data.library_name == "lit_mimdit"
    assert (data.license, data.license_name) == ("other", "stabilityai-ai-community")
    assert data.license_link == f"https://huggingface.co/{BACKBONE}/blob/main/LICENSE.md"
    assert data.pipeline_tag == "image-to-image" and "image-restoration" in data.tags
    assert "Powered by Stability AI" in card_of(hub, "me/mim").text

    # whoever is not admitted to the backbone is told so
    with pytest.raises(ValueError, match="Stable Diffusion 3.5 is gated") as caught:
        MiMDiTPipeline.from_pretrained("me/mim")
    assert "\n" not in str(caught.value) and BACKBONE in str(caught.value)
    hub.admitted.add(("me", BACKBONE))
    pipeline = MiMDiTPipeline.from_pretrained("me/mim")
    pipeline.set_progress_bar_config(disable=True)
    expected = MiMDiTPipeline.of(load_restorer(gated, device="cpu"))
    expected.set_progress_bar_config(disable=True)
    found, wanted = (one(PIXELS, output_type="pt").images[0] for one in (pipeline, expected))
    assert torch.equal(found, wanted)
    assert pipeline.config.backbone["name"] == BACKBONE

    half = MiMDiTPipeline.from_pretrained("me/mim", dtype=torch.bfloat16)
    assert half.transformer.dtype == half.branch.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="variant is given, and me/mim holds a branch without"):
        MiMDiTPipeline.from_pretrained("me/mim", variant="fp16")


def test_from_pretrained_of_folders_files_and_what_is_missing(
    hub, branch_file, backbone_folder, tmp_path
):
    """A copy of a repository on disk, a file, and revisions."""
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / MODEL).write_bytes(branch_file.read_bytes())
    assert MiMDiTPipeline.from_pretrained(tmp_path / "copy").config.sampling["steps"] == 2
    assert MiMDiTPipeline.from_pretrained(branch_file).branch is not None
    hub.repositories["me/mim"] = Repository()
    first = hub.repositories["me/mim"].commit({MODEL: branch_file.read_bytes()})
    hub.repositories["me/mim"].commit({MODEL: b"damaged"})
    assert MiMDiTPipeline.from_pretrained("me/mim", revision=first).branch is not None
    assert MiMDiTPipeline.from_pretrained(f"me/mim@{first}").branch is not None
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        MiMDiTPipeline.from_pretrained("me/mim")
    for name, message in {
        "me/mim@v9": "me/mim@v9: the repository has no revision 'v9'",
        "me/none": "no repository that you may read",
    }.items():
        with pytest.raises(ValueError, match=message) as caught:
            MiMDiTPipeline.from_pretrained(name)
        assert "\n" not in str(caught.value)


def test_a_whole_pipeline_is_left_to_diffusers(hub, tmp_path, monkeypatch):
    from lit_mimdit.inference.pipeline_branch import branch_file

    hub.repositories["me/whole"] = Repository()
    hub.repositories["me/whole"].commit({"model_index.json": b"{}"})
    hub.repositories["me/empty"] = Repository()
    hub.repositories["me/empty"].commit({"README.md": b"words"})
    assert branch_file(Path("me/whole"), {}) is None
    with pytest.raises(ValueError, match=f"me/empty: the repository holds no {MODEL}"):
        branch_file(Path("me/empty"), {})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert branch_file(Path("me/whole"), {}) is None  # the cache knows
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set"):
        branch_file(Path("me/never"), {})


def results_of(checkpoint: Path, folder: Path) -> Path:
    """A finished evaluation of two small images that a checkpoint restored."""
    for part in ("lq", "gt"):
        (folder / part).mkdir(parents=True)
        for seed in range(2):
            draw = np.random.default_rng(seed + 9 * (part == "lq"))
            pixels = draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / part / f"{seed}.png")
    args = ["restore", folder / "lq", "-o", folder / "out", "--checkpoint", checkpoint]
    assert cli.main([*map(str, args), "--device", "cpu"]) == 0
    args = ["evaluate", "--restored", folder / "out", "--reference", folder / "gt"]
    args += ["--metrics", "psnr,lpips", "-o", folder / "scores", "--device", "cpu"]
    assert cli.main(list(map(str, args))) == 0
    return folder / "scores"


def test_results_go_into_the_card_in_the_hubs_own_form(hub, tmp_path, capsys):
    path = tmp_path / "net.safetensors"
    write_regression(path)
    scores = results_of(path, tmp_path / "data")
    options = ["--license", "mit", "--datasets", "me/photos", "FoundIR", "--results", scores]
    assert export(path, "--push_to_hub", "me/net", *options) == 0
    card = card_of(hub, "me/net")
    (result,) = [one for one in card.data.eval_results if one.metric_type == "psnr"]
    summary = json.loads((scores / "summary.json").read_text())
    (group,) = summary["groups"]
    value = group["versions"]["restored"]["psnr"]
    assert result.metric_value == round(value["mean"], 2)
    assert result.metric_args == {name: value[name] for name in ("low", "high", "n")}
    assert (result.task_type, result.dataset_type) == ("image-to-image", group["dataset"])
    assert result.metric_name == "PSNR RGB (dB)"
    assert f"{value['mean']:.2f}" in card.text and "not computed" not in card.text
    assert card.data.datasets == ["me/photos"] and "me/photos, FoundIR" in card.text
    assert card.data.license == "mit" and card.data.model_name == "net"

    # the same weights as another file are not what was evaluated, if they are others
    write_regression(tmp_path / "other.safetensors", seed=1)
    capsys.readouterr()
    assert export(tmp_path / "other.safetensors", "--push_to_hub", "me/other", *options) == 2
    said = capsys.readouterr().err
    assert "restored by net.safetensors (sha256" in said and said.count("\n") == 1
    assert "me/other" not in hub.repositories


def test_what_was_uploaded_can_be_kept_and_is_uploaded_again(hub, tmp_path):
    path = tmp_path / "net.safetensors"
    write_regression(path)
    kept = tmp_path / "kept"
    assert export(path, "--push_to_hub", "me/net", "--license", "mit", "-o", kept) == 0
    assert {file.name: file.read_bytes() for file in kept.iterdir()} == uploaded(hub, "me/net")
    write_regression(path, seed=1)
    assert export(path, "--push_to_hub", "me/net", "--license", "mit") == 0
    assert len(hub.repositories["me/net"].commits) == 2
    assert uploaded(hub, "me/net")[MODEL] != (kept / MODEL).read_bytes()
    tensors = load_system("me/net").tensors.values()
    assert {tensor.dtype for tensor in tensors if tensor.is_floating_point()} == {torch.float16}


def test_private_repositories(hub, tmp_path, capsys):
    path = tmp_path / "net.safetensors"
    write_regression(path)
    options = ["--license", "mit", "--private"]
    assert export(path, "--push_to_hub", "me/secret", *options) == 0
    assert hub.repositories["me/secret"].private
    assert export(path, "--push_to_hub", "me/secret", *options) == 0
    hub.repositories["me/public"] = Repository()
    assert export(path, "--push_to_hub", "me/public", *options) == 2
    assert "the repository is there already and public" in capsys.readouterr().err
    assert not hub.repositories["me/public"].commits


@pytest.mark.parametrize(
    "options, message",
    [
        (["--push_to_hub", "net", "--license", "mit"], "push_to_hub is 'net': name the repository"),
        (["--push_to_hub", "me/net@v1", "--license", "mit"], "name the repository as OWNER/NAME"),
        (["--push_to_hub", "you/net", "--license", "mit"], "your token may not write there (403)"),
        (["--push_to_hub", "me/net"], "license is not given, and the system has no backbone"),
        (
            ["--push_to_hub", "me/net", "--license", "mit", "--backbone", "a/b"],
            "backbone is 'a/b': the system has none",
        ),
        (["--push_to_hub", "me/net", "--pipeline"], "a pipeline holds the backbone"),
        (["--push_to_hub", "me/net", "--fidelity", "package"], "it is for --pipeline"),
        (["--push_to_hub", "me/net", "--fidelity_weight", "0"], "fidelity_weight is 0.0"),
        (["-o", "x.safetensors", "--private"], "private is True: it is for --push_to_hub"),
        (["-o", "x.safetensors", "--license", "mit"], "license is 'mit': it is for --push_to_hub"),
        ([], "output is not given: name a file with -o, or use --push_to_hub"),
        (["--push_to_hub", "me/net", "--license", "mit", "-o", "."], "a new or empty folder"),
    ],
)
def test_what_cannot_be_shared_is_said_before_anything_is_made(
    hub, tmp_path, monkeypatch, capsys, options, message
):
    monkeypatch.chdir(tmp_path)
    write_regression(tmp_path / "net.safetensors")
    assert export("net.safetensors", *options) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert hub.repositories == {} and not (tmp_path / "x.safetensors").exists()


def test_who_is_not_logged_in_or_offline_is_told(hub, tmp_path, monkeypatch, capsys):
    write_regression(tmp_path / "net.safetensors")
    args = [tmp_path / "net.safetensors", "--push_to_hub", "me/net", "--license", "mit"]
    monkeypatch.delenv("HF_TOKEN")
    assert export(*args) == 2
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert export(*args) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "you are not logged in (401); log in with `hf auth login`" in first
    assert "HF_HUB_OFFLINE is set; unset it to upload" in second


def test_paths_of_this_machine_are_not_shared(hub, branch_file, tmp_path, capsys):
    assert export(branch_file, "--push_to_hub", "me/mim") == 2
    said = capsys.readouterr().err
    assert "a folder of this machine: a repository names it by its hub id; add it" in said
    file = load_system(branch_file)
    file = replace(file, arguments=file.arguments | {"prompt": {"captions": str(tmp_path)}})
    save_system(tmp_path / "named.safetensors", file)
    assert export(tmp_path / "named.safetensors", "--push_to_hub", "me/mim") == 2
    assert "its argument prompt.captions is" in capsys.readouterr().err
    assert hub.repositories == {}
    assert plain_paths({"a": ["b/c", 1, "/nowhere/d"], "e": "f"}) == [("a.2", "/nowhere/d")]


def test_licences():
    assert licence_of("nano", None) == {"license": "apache-2.0"}
    assert licence_of("nano", "mit") == {"license": "mit"}
    assert licence_of("stabilityai/stable-diffusion-3.5-large", None)["license"] == "other"
    with pytest.raises(ValueError, match="license is not given, and that of a/b is unknown"):
        licence_of("a/b", None)
