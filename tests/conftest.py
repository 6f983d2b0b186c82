"""What tests share.

PyTorch and diffusers are imported where they are used: the process that hands out tests to others
needs neither.
"""

import copy
import gc
import os
import sys

if "PYTEST_XDIST_WORKER" in os.environ:  # several processes share the cores: one thread each
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from kit import hub_server
from kit.starter import Starter, starting

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, SD3Transformer2DModel

ROOT = Path(__file__).parents[1]
pytest_plugins = ("kit.seeds", "kit.tiers")


def pytest_collection_finish() -> None:
    """Import lightning: its log handler keeps the stderr of then, which must not be one test's.

    What is imported by now stays, so no collection of garbage, half a second each, looks at it.
    """
    import lightning  # noqa: F401

    gc.collect()
    gc.freeze()


@pytest.fixture
def make_transformer(takes_seconds) -> "Callable[..., SD3Transformer2DModel]":
    """Builds an SD3.5-like transformer.

    Width 16, 2 heads, 3 blocks, the first with dual attention; always the same weights.
    """
    from kit.small_models import small_transformer

    return small_transformer


@pytest.fixture
def transformer(make_transformer) -> "SD3Transformer2DModel":
    return make_transformer()


@pytest.fixture
def vae(takes_seconds) -> "AutoencoderKL":
    """An SD3.5-like autoencoder.

    16 latent channels, 3 levels (factor 4), a scaling and a shift factor, no quantisation
    convolutions.
    """
    from kit.small_models import small_vae

    return small_vae()


@pytest.fixture
def make_backbone(takes_seconds) -> Callable[..., Path]:
    from kit.small_models import write_backbone

    return write_backbone


@pytest.fixture(scope="session")
def backbone_folder(takes_seconds, tmp_path_factory) -> Path:
    from kit.small_models import write_backbone

    return write_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="session")
def pipeline_folder(takes_seconds, tmp_path_factory) -> Path:
    """A complete small Stable Diffusion 3.5 of the sizes above, with text encoders and tokenizers,
    its transformer in several files.
    """
    from kit.small_models import small_transformer, small_vae
    from sd3_folder import write_pipeline

    transformer = small_transformer(joint_attention_dim=32, pooled_projection_dim=12)
    return write_pipeline(
        tmp_path_factory.mktemp("sd3") / "pipeline",
        transformer,
        small_vae(),
        tmp_path_factory.mktemp("tokenizers"),
    )


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty folder for the embeddings of prompts."""
    monkeypatch.setenv("LIT_MIMDIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[hub_server.Hub]:
    """A hub on loopback that huggingface_hub's own client asks, with an empty cache; the client is
    logged in as "me".

    The client reads its address and its cache when it is imported, long before a test.
    """
    from huggingface_hub import constants, hf_api

    with hub_server.serving() as served:
        template = served.url + "/{repo_id}/resolve/{revision}/{filename}"
        settings = {
            "ENDPOINT": served.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HUB_CACHE": str(tmp_path / "hub_cache"),
            # its storage has servers of its own; without it files go by Git LFS
            "HF_HUB_DISABLE_XET": True,
        }
        for name, value in settings.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(hf_api.api, "endpoint", served.url)
        served.users["token of me"] = "me"
        monkeypatch.setenv("HF_TOKEN", "token of me")
        yield served


@pytest.fixture
def close_hub(hub, monkeypatch) -> Callable[[], str]:
    """Leaves the client an address that nobody answers at, and returns it; the cache stays."""
    import time

    from huggingface_hub import constants, hf_api

    def close() -> str:
        closed = "http://127.0.0.1:9"
        template = closed + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", closed)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(hf_api.api, "endpoint", closed)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)  # it tries again for 23 s
        return closed

    return close


@pytest.fixture(scope="session")
def data_root(takes_seconds, tmp_path_factory) -> Path:
    """Sample data: 10 training pairs, 2 of validation, 2 of test, two types, 48 px."""
    from lit_mimdit.data.sample_data import write_sample_data

    folder = tmp_path_factory.mktemp("sample") / "data"
    return write_sample_data(
        folder, size=48, train_crops=5, val_crops=1, test_crops=1, types=["01Blur", "05Noise"]
    )


@pytest.fixture(scope="session")
def shard_root(data_root, tmp_path_factory) -> Path:
    """The 10 training pairs above in 4 shards, cut into 4 tiles of 40 px."""
    from lit_mimdit.data.shards.write import shard

    folder = tmp_path_factory.mktemp("shards") / "train"
    shard(data_root, folder, meta=Path("train.txt"), tile=40, overlap=8, shard_pairs=3, workers=1)
    return folder


@pytest.fixture(scope="session")
def tiny_settings(pictured_settings) -> dict:
    """`pictured_settings` without the pictures of the routers, which take longer to draw than all
    the rest of a run takes.
    """
    settings = copy.deepcopy(pictured_settings)
    callbacks = settings["trainer"]["callbacks"]
    settings["trainer"]["callbacks"] = [
        one for one in callbacks if not one["class_path"].endswith(".RoutingPictures")
    ]
    return settings


@pytest.fixture(scope="session")
def pictured_settings(backbone_folder, data_root) -> dict:
    """quickstart.yaml with everything small: 6 steps of 4 crops of 32 px, 2 batches an epoch.

    What quickstart.yaml may choose anew without anything being wrong is pinned, so that the known
    losses stay known.
    """
    settings = yaml.safe_load(
        (ROOT / "experiments" / "quickstart.yaml").read_text(encoding="utf-8")
    )
    model, data, trainer = (
        settings["model"]["init_args"],
        settings["data"]["init_args"],
        settings["trainer"],
    )
    model |= {"backbone": str(backbone_folder)}
    model["branch"] |= {
        "width": 16,
        "heads": 2,
        "window": 2,
        "intra": {"experts": 2, "top_k": 1},
        "base": "position",
        "chained": True,
    }
    model["flow"] = {"time_mean": 0.0, "time_std": 1.0, "time_shift": 1.0, "weighting": "velocity"}
    model["optimizer"] |= {
        "lr": 1e-3,
        "betas": [0.9, 0.99],
        "warmup_steps": 2,
        "schedule": "cosine",
    }
    model["sampling"] |= {"steps": 2, "tile": 32, "overlap": 8, "overview": 0}
    data |= {
        "root": str(data_root),
        "batch_size": 4,
        "crop": 32,
        "eval_batch_size": 2,
        "eval_crop": 32,
    }
    trainer |= {
        "max_steps": 6,
        "val_check_interval": 3,
        "accelerator": "cpu",
        "log_every_n_steps": 1,
    }
    for callback in trainer["callbacks"]:
        name, options = (
            callback["class_path"].rsplit(".", 1)[-1],
            callback.setdefault("init_args", {}),
        )
        if name == "ModelCheckpoint":
            options |= {"every_n_train_steps": 3, "save_top_k": -1}
        elif name in ("LossByTime", "RoutingHistograms", "RoutingScalars", "RoutingPictures"):
            options["every_n_steps"] = 2
    return settings


@pytest.fixture(scope="session")
def starter(processes) -> Iterator[Starter]:
    """Starts commands in processes of their own, in ranks or under torchrun if wanted."""
    if not sys.platform.startswith("linux"):
        pytest.skip("processes are forked with what they imported: Linux only")
    with starting() as started:
        yield started


@pytest.fixture(scope="session")
def write_settings() -> Callable[..., str]:
    return write_yaml


@pytest.fixture
def tiny(tiny_settings, tmp_path, monkeypatch) -> Callable[..., str]:
    """Writes a YAML of `tiny_settings` with changes ("data.init_args.crop": 16) into the test's
    folder, where the test then runs. It has no "${...}", which takes a fifth of such a run's time.
    """
    monkeypatch.chdir(tmp_path)
    settings = copy.deepcopy(tiny_settings)
    for callback in settings["trainer"]["callbacks"]:
        if callback["class_path"].endswith(".ModelCheckpoint"):
            callback["init_args"]["dirpath"] = "runs/quickstart/checkpoints"
    return lambda **changes: write_yaml(tmp_path / "tiny.yaml", settings, **changes)


def write_yaml(path: Path, settings: dict, **changes) -> str:
    settings = copy.deepcopy(settings)
    for key, value in changes.items():
        place = settings
        *parts, last = key.split(".")
        for part in parts:
            place = place[part]
        place[last] = value
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="session")
def branch_file(backbone_folder, tmp_path_factory) -> Path:
    """Sampling: 2 Euler steps in tiles of 32 px that share 8."""
    import torch
    from kit.files import mim_file

    from lit_mimdit.inference.sampler import SamplingConfig
    from lit_mimdit.inference.system_file import save_system
    from lit_mimdit.models.backbone import load_backbone
    from lit_mimdit.models.branch_config import BranchConfig, IntraConfig
    from lit_mimdit.models.network import MiMDiTNetwork

    loaded = load_backbone(str(backbone_folder))
    config = BranchConfig(
        width=16, heads=2, window=2, intra=IntraConfig(experts=2, top_k=1), zero_std=0.5
    )
    torch.manual_seed(3)
    branch = MiMDiTNetwork(loaded.transformer, config, loaded.prompt).branch
    path = tmp_path_factory.mktemp("branch") / "branch.safetensors"
    sampling = SamplingConfig(steps=2, tile=32, overlap=8, tile_batch=2)
    save_system(path, mim_file(branch, sampling, loaded.identity))
    return path
