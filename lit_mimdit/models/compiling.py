"""torch.compile, region by region: one graph for all blocks of a kind, whatever the image's size.

The regions are the transformer's blocks, in the backbone and in branches that copy them, and MiMs.
Numbers of tokens and images are variables of a graph, so that sizes of image share graphs.
"""

from typing import Any

import torch

from lit_mimdit.models.mim import MiM
from lit_mimdit.models.network import ConditionedBackbone

# kinds of calls that the code of one block may meet: dual or not, with text output or not, with a
# condition or not, one image or several
GRAPHS = 32


def options(on_gpu: bool) -> dict[str, Any]:
    """Returns inductor's options: CUDA graphs on a GPU, and no layouts of its own for convolutions.

    With them it cannot order the symbolic strides of a convolution's gradient, and ends with
    "cannot determine truth value" (PyTorch 2.14).
    """
    mode = torch._inductor.list_mode_options("reduce-overhead") if on_gpu else {}
    return mode | {"layout_optimization": False}


def compile_network(network: ConditionedBackbone, backend: str = "inductor") -> None:
    """Compiles the blocks of a network's backbone and of its branch when they are first called.

    On a GPU each region runs as a CUDA graph (PyTorch's mode reduce-overhead).

    Args:
        network: on its device already.
        backend: of torch.compile.
    """
    # here, as diffusers alone takes longer to import than everything else that `restore` needs
    from diffusers.models.attention import JointTransformerBlock

    on_gpu = next(network.backbone.parameters()).is_cuda
    how: dict[str, Any] = {"backend": backend, "dynamic": True}
    if backend == "inductor":
        how["options"] = options(on_gpu)
    torch._dynamo.config.recompile_limit = max(GRAPHS, torch._dynamo.config.recompile_limit)
    for region in network.modules():
        if isinstance(region, JointTransformerBlock | MiM):
            region.compile(**how)
