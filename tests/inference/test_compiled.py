"""Compiled region by region: the same pictures, and few graphs for all sizes."""

import copy
import shutil
from dataclasses import replace

import pytest
import torch
from torch._dynamo.utils import counters

from lit_mimdit.inference.layout import Layout
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.models.attention_experts import ChannelAttention
from lit_mimdit.models.compiling import compile_network, options

pytestmark = pytest.mark.usefixtures("takes_minutes")  # the compiler takes half of one to trace


def test_other_sizes_of_image_need_one_graph_more_at_most_and_give_the_same_picture(branch_file):
    """The backend "eager" runs what was traced: guards and graphs are those of every backend."""
    torch._dynamo.reset()
    counters.clear()
    restorer = load_restorer(branch_file, None, torch.device("cpu"))
    config = replace(restorer.config, tile=32, overlap=8, tile_batch=2)
    restorer.config = config
    restorer.layout = Layout(config, restorer.factor, restorer.multiple)
    seed = torch.tensor([0])
    generator = torch.Generator().manual_seed(1)
    # 2 x 2, 2 x 3 and 3 x 2 tiles of 32 x 32 px
    images = [torch.rand(1, 3, *s, generator=generator) for s in ((56, 56), (56, 80), (80, 56))]
    before = [restorer(image, seed)[0] for image in images]
    compile_network(restorer.network, backend="eager")
    graphs = []
    for image, expected in zip(images, before, strict=True):
        torch.testing.assert_close(restorer(image, seed)[0], expected, rtol=0, atol=1e-4)
        graphs.append(counters["stats"]["unique_graphs"])
    # the second picture may add one: a region that meets one tile, or several, for the first time
    assert 0 < graphs[1] <= graphs[0] + 1 and graphs[2] == graphs[1], graphs


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_the_expert_with_a_convolution_trains_compiled_on_grids_of_several_sizes():
    torch._dynamo.reset()
    torch.manual_seed(0)
    expert = ChannelAttention(16, 2)
    compiled = copy.deepcopy(expert)
    compiled.compile(dynamic=True, options=options(on_gpu=False))
    for batch, grid in ((3, (4, 4)), (2, (5, 3))):
        x = torch.randn(batch, grid[0] * grid[1], 16)
        found, expected = compiled(x, grid), expert(x, grid)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
        found.square().sum().backward()
        expected.square().sum().backward()
    for ours, theirs in zip(compiled.parameters(), expert.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-4)
