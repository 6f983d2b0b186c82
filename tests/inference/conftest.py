"""A branch file for the small backbone: random weights that change the picture, as after training."""

from pathlib import Path

import pytest
import torch

from lit_mimdit.inference.sampler import SamplingConfig
from lit_mimdit.models.backbone import load_backbone
from lit_mimdit.models.mim import BranchConfig, IntraConfig
from lit_mimdit.models.network import MiMDiT
from lit_mimdit.training.checkpoint import BranchFile, save_branch


@pytest.fixture(scope="session")
def branch_file(backbone_folder, tmp_path_factory) -> Path:
    """Sampling: 2 Euler steps in tiles of 32 px that share 8."""
    loaded = load_backbone(str(backbone_folder))
    config = BranchConfig(width=16, heads=2, window=2, intra=IntraConfig(experts=2, top_k=1), zero_std=0.5)
    torch.manual_seed(3)
    branch = MiMDiT(loaded.transformer, config, loaded.prompt).branch
    path = tmp_path_factory.mktemp("branch") / "branch.safetensors"
    sampling = SamplingConfig(steps=2, tile=32, overlap=8, tile_batch=2)
    save_branch(path, BranchFile(branch.state_dict(), config, sampling, loaded.identity))
    return path
