"""Systems by their name on the hub: real client, real cache, and a hub on loopback."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from kit.files import write_regression
from kit.hub_server import Repository
from PIL import Image

from lit_mimdit import cli
from lit_mimdit.inference.hub import MODEL, hub_name, origin, title
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.system_file import load_system, system_path
from lit_mimdit.routing.command import names_of
from lit_mimdit.systems.regression import Regression


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    return folder


@pytest.fixture
def network(hub, tmp_path) -> Path:
    """A file that me/net holds, too."""
    path = tmp_path / "net.safetensors"
    hub.repositories["me/net"] = Repository()
    hub.repositories["me/net"].commit({MODEL: write_regression(path)})
    return path


def restore(photos: Path, output: Path, checkpoint: object) -> np.ndarray:
    args = ["restore", str(photos), "-o", str(output), "--checkpoint", str(checkpoint)]
    assert cli.main([*args, "--device", "cpu"]) == 0
    return np.asarray(Image.open(output / "a.png"))


def test_a_repository_restores_as_its_file_and_the_record_names_it(hub, network, photos, tmp_path):
    expected = restore(photos, tmp_path / "file", network)
    assert np.array_equal(restore(photos, tmp_path / "hub", "me/net"), expected)
    commit = hub.repositories["me/net"].refs["main"]
    record = json.loads((tmp_path / "hub" / "restoration.json").read_text())
    assert record["checkpoint"]["hub"] == f"me/net@{commit}"
    own = json.loads((tmp_path / "file" / "restoration.json").read_text())
    assert "hub" not in own["checkpoint"]
    assert record["checkpoint"]["sha256"] == own["checkpoint"]["sha256"]
    fetched = [path for method, path in hub.asked if method == "GET" and path.endswith(MODEL)]
    load_system("me/net")
    assert len(fetched) == 1  # the cache has it from then on
    assert [path for method, path in hub.asked if method == "GET" and "/resolve/" in path] == (
        fetched
    )


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub, network, tmp_path):
    repository = hub.repositories["me/net"]
    first = repository.refs["v1"] = repository.refs["refs/pr/1"] = repository.refs["main"]
    repository.commit({MODEL: write_regression(tmp_path / "new.safetensors", seed=1)})
    old = network.read_bytes()
    for revision in ("v1", first, "refs/pr/1"):
        assert system_path(f"me/net@{revision}").read_bytes() == old
    assert system_path("me/net").read_bytes() != old


def test_what_exists_here_wins_and_asks_nobody(hub, network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    local = write_regression(tmp_path / "me" / "net" / MODEL, seed=2)
    hub.asked.clear()
    assert system_path("me/net").read_bytes() == local
    assert system_path(tmp_path / "me" / "net").read_bytes() == local
    (tmp_path / "me" / "file").write_bytes(local)
    assert system_path("me/file") == Path("me/file")
    with pytest.raises(ValueError, match="checkpoint runs/last.ckpt: no such file"):
        load_system("runs/last.ckpt")
    with pytest.raises(ValueError, match="checkpoint me/model.safetensors: no such file"):
        load_system(Path("me"))
    assert hub.asked == []


@pytest.mark.parametrize(
    "name, token, message",
    [
        ("you/nothing", True, "there is no such file here, and no repository that you may read"),
        ("you/nothing", False, "there is no such file here, and no repository that you may read"),
        ("you/private", True, "hf auth login` if it is private"),
        ("you/gated", True, "the repository is gated; accept its conditions on http"),
        ("you/gated", False, "the repository is gated; accept its conditions on http"),
        ("me/net@v9", True, "the repository has no revision 'v9'; give a branch, tag or commit"),
        ("me/other", True, f"the repository holds no {MODEL}, so it is none that `export"),
        ("me/foreign", True, "its format is None, and this version reads"),
        ("me/damaged", True, "not a readable safetensors file"),
        ("you/forbidden", True, "the hub refuses access .403.: your token may not read"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(
    hub, network, photos, tmp_path, monkeypatch, capsys, name, token, message
):
    from safetensors.torch import save

    hub.repositories["you/private"] = Repository(private=True)
    hub.repositories["you/gated"] = Repository(gated=True)
    hub.repositories["you/forbidden"] = Repository(forbidden=True)
    for repository, files in {
        "me/other": {"README.md": b"words"},
        "me/foreign": {MODEL: save({"a": torch.zeros(1)})},
        "me/damaged": {MODEL: b"no tensors"},
    }.items():
        hub.repositories[repository] = Repository()
        hub.repositories[repository].commit(files)
    if not token:
        monkeypatch.delenv("HF_TOKEN")
    args = ["restore", str(photos), "-o", str(tmp_path / "out"), "--checkpoint", name]
    assert cli.main(args) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: checkpoint {name.split('@')[0]}") and said.count("\n") == 1
    assert message.replace(".403.", "(403)") in said
    assert str(tmp_path) not in said


def test_offline_the_cache_is_used_and_what_it_lacks_is_named(hub, network, monkeypatch):
    first = load_system("me/net")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    assert load_system("me/net").description() == first.description()
    with pytest.raises(
        ValueError, match="HF_HUB_OFFLINE is set, and the hub's cache does not have"
    ):
        load_system("me/never")
    assert hub.asked == []


def test_a_hub_that_cannot_be_reached_is_named_and_the_cache_is_used(network, close_hub):
    first = load_system("me/net")
    closed = close_hub()
    assert load_system("me/net").description() == first.description()
    with pytest.raises(ValueError, match=f"the hub cannot be reached at {closed}") as caught:
        load_system("me/never")
    assert "\n" not in str(caught.value)


def test_training_starts_from_a_repository(hub, network):
    system = Regression(widths=[4], blocks=1, init="me/net")
    system.configure_model()
    expected = load_system(network).tensors
    found = dict(system.trained.named_parameters())
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_restorer_is_had_by_name(hub, network):
    image = torch.rand(1, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    made = [
        load_restorer(one, device="cpu")(image, torch.zeros(1))[0] for one in (network, "me/net")
    ]
    assert torch.equal(*made)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("user/name", ("user/name", None)),
        ("user-1/na_me.v2@v1.0", ("user-1/na_me.v2", "v1.0")),
        ("user/name@refs/pr/1", ("user/name", "refs/pr/1")),
        ("runs/last.ckpt", None),
        ("runs/net.safetensors@v1", None),
        ("name", None),
        ("a/b/c", None),
        ("/a/b", None),
        ("../b", None),
        ("~/b", None),
        ("a/b@", None),
    ],
)
def test_names_of_repositories(text, expected):
    assert hub_name(text) == expected


def test_files_of_the_cache_are_called_by_their_repository():
    commit = "0123456789abcdef0123456789abcdef01234567"
    path = Path(f"/cache/models--me--a--b/snapshots/{commit}/{MODEL}")
    assert origin(path) == f"me/a--b@{commit}"
    assert title(path) == "me/a--b@01234567"
    assert origin(Path(f"/runs/snapshots/{commit}/{MODEL}")) is None
    assert title(Path("/runs/net.safetensors")) == "net.safetensors"
    other = Path(str(path).replace("a--b", "c"))
    assert names_of([path, other]) == ["a--b@01234567", "c@01234567"]
    assert names_of([path, Path("/runs/net.safetensors")]) == ["a--b@01234567", "net"]
