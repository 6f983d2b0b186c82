"""Floating-point operations and parameters of a training step at a backbone's full size, without
its weights.
"""

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lit_mimdit.models.branch_config import BranchConfig
from lit_mimdit.models.geometry import Geometry, meta_backbone
from lit_mimdit.models.latents import downsampling, encode
from lit_mimdit.models.network import MiMDiTNetwork


def network(branch: BranchConfig, geometry: Geometry) -> MiMDiTNetwork:
    """The network on the meta device: shapes without numbers."""
    backbone = meta_backbone("", geometry, torch.float32)
    with torch.device("meta"):
        return MiMDiTNetwork(backbone.transformer, branch, backbone.prompt)


def selected_only(branch: BranchConfig) -> BranchConfig:
    """A branch with as many experts as an image uses, all of them used.

    Its operations are the same without a choice, which needs numbers.
    """
    values = {
        **vars(branch),
        "intra": type(branch.intra)(experts=branch.intra.top_k, router="dense"),
    }
    return BranchConfig(**values)


def step_operations(
    branch: BranchConfig, crop: int, geometry: Geometry, checkpointing: bool = True
) -> dict[str, float]:
    """Operations (a multiply and an add are two) for one image of `crop` pixels: branch and
    condition, backbone forward, and backward with what gradient checkpointing computes again;
    encoding a pair with the VAE."""
    counted = {}
    model, vae = (
        network(selected_only(branch), geometry).train(),
        meta_backbone("", geometry, torch.float32).vae,
    )
    # fake tensors: autocast knows no meta device. Attention as matrix products, which the counter
    # knows on every device
    with FakeTensorMode(allow_non_fake_inputs=True), sdpa_kernel(SDPBackend.MATH):
        model, vae = model.to_empty(device="cpu"), vae.to_empty(device="cpu")
        if checkpointing:
            model.enable_gradient_checkpointing()
        side = crop // downsampling(vae)
        latent, t = torch.empty(1, geometry.transformer["in_channels"], side, side), torch.empty(1)
        with FlopCounterMode(display=False) as flops:
            condition = model.condition(latent)
        counted["branch"] = flops.get_total_flops()
        with FlopCounterMode(display=False) as flops:
            predicted = model(latent, t, condition)
        counted["backbone"] = flops.get_total_flops()
        with FlopCounterMode(display=False) as flops:
            predicted.sum().backward()
        counted["backward"] = flops.get_total_flops()
        with FlopCounterMode(display=False) as flops:
            encode(vae, torch.empty(2, 3, crop, crop))
        counted["VAE"] = flops.get_total_flops()
    return {name: float(value) for name, value in counted.items()}


def branch_parameters(branch: BranchConfig, geometry: Geometry) -> int:
    """Trained parameters."""
    return sum(p.numel() for p in network(branch, geometry).branch.parameters())
