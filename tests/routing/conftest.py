"""A branch whose routers decide differently for different images, and decisions made by hand."""

from pathlib import Path

import pytest
import torch
from kit.files import mim_file
from torch import Tensor

from lit_mimdit.inference.sampler import SamplingConfig
from lit_mimdit.inference.system_file import save_system
from lit_mimdit.models.backbone import load_backbone
from lit_mimdit.models.branch_config import BranchConfig, IntraConfig
from lit_mimdit.models.decisions import Decisions, MiMRouting
from lit_mimdit.models.network import MiMDiTNetwork
from lit_mimdit.models.routers import Routing


def write_branch(folder: Path, backbone: Path, seed: int, **changes) -> Path:
    """Random weights with strong routers; 2 sampling steps in tiles of 32 px that share 8."""
    loaded = load_backbone(str(backbone))
    config = BranchConfig(
        **{
            "width": 16,
            "heads": 2,
            "window": 2,
            "intra": IntraConfig(experts=3, top_k=2),
            "zero_std": 0.5,
        }
        | changes
    )
    torch.manual_seed(seed)
    branch = MiMDiTNetwork(loaded.transformer, config, loaded.prompt).branch
    with torch.no_grad():
        for name, parameter in branch.named_parameters():
            if "router.project" in name:
                parameter.normal_(std=2.0)
    path = folder / f"seed_{seed}" / "branch.safetensors"
    sampling = SamplingConfig(steps=2, tile=32, overlap=8, tile_batch=2)
    save_system(path, mim_file(branch, sampling, loaded.identity))
    return path


@pytest.fixture(scope="session")
def branches(backbone_folder, tmp_path_factory) -> list[Path]:
    """Three trainings that differ in their seed."""
    folder = tmp_path_factory.mktemp("branches")
    return [write_branch(folder, backbone_folder, seed) for seed in range(3)]


def routing(logits: Tensor, top_k: int) -> Routing:
    gates = logits.softmax(-1)
    top, selected = gates.topk(top_k, -1)
    return Routing(torch.zeros_like(gates).scatter(1, selected, top), selected, logits)


def decisions(
    inter: list[list[float]], intra: list[list[float]], top_k: int = 1, inter_k: int | None = None
) -> Decisions:
    """One block and two groups with the same Intra logits; a row an image."""
    inter_logits, intra_logits = torch.tensor(inter).log(), torch.tensor(intra)
    return (
        MiMRouting(
            routing(inter_logits, inter_k or len(inter[0])), (routing(intra_logits, top_k),) * 2
        ),
    )
