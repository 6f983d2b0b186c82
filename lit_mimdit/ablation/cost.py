"""What a variant costs:

trained parameters, and floating-point operations as PyTorch's FlopCounterMode counts them.
"""

from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lit_mimdit.inference.restorer import Restorer


@torch.no_grad()
def cost(restorer: Restorer, crop: int) -> dict[str, Any]:
    """Of a restorer's network: trained parameters, and FLOPs of one image of `crop` x `crop`
    pixels.

    `branch_flops`: of the branch with its patch embedding, spent once an image. `forward_flops`: of
    the whole forward pass of a training step, without the VAE. A multiplication and an addition are
    two; element-wise work is not counted.
    """
    network, side = restorer.network, crop // restorer.factor
    z = torch.randn(
        1,
        network.backbone.config.in_channels,
        side,
        side,
        generator=torch.Generator().manual_seed(0),
    ).to(restorer.device)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    network.requires_grad_(
        False
    )  # the counter's hooks cannot take a parameter that is an output, such as a gate
    with sdpa_kernel(
        SDPBackend.MATH
    ):  # the counter knows its matrix products, not the CPU's flash kernel
        branch, whole = FlopCounterMode(display=False), FlopCounterMode(display=False)
        with branch:
            network.decide(z)
        with whole:
            network(z, torch.full((1,), 0.5, device=z.device), network.condition(z))
    for parameter in trained:
        parameter.requires_grad_(True)
    parameters = sum(parameter.numel() for parameter in network.branch.parameters())
    return {
        "trained_parameters": parameters,
        "branch_flops": branch.get_total_flops(),
        "forward_flops": whole.get_total_flops(),
        "image": f"{crop} x {crop}",
    }
