"""Each expert against an independent implementation with the same weights, outputs and gradients,
in double precision.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close
from torchvision.models.swin_transformer import ShiftedWindowAttention
from torchvision.ops import SqueezeExcitation

from lit_mimdit.models.attention_experts import (
    ChannelAttention,
    SEAttention,
    SpatialAttention,
    SwinAttention,
)

WIDTH, HEADS, BATCH = 8, 2, 2
GRIDS = [(1, 1), (1, 7), (7, 1), (5, 3), (4, 4), (4, 8), (6, 9)]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def tokens(grid: tuple[int, int], batch: int = BATCH) -> Tensor:
    return torch.randn(batch, grid[0] * grid[1], WIDTH, dtype=torch.float64, requires_grad=True)


def to_map(x: Tensor, grid: tuple[int, int]) -> Tensor:
    return x.transpose(1, 2).unflatten(2, grid)


def to_tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def copy_weights(pairs: list[tuple[Tensor, Tensor]]) -> None:
    with torch.no_grad():
        for ours, reference in pairs:
            reference.copy_(ours.reshape(reference.shape))


def assert_same(
    x: Tensor, ours: Tensor, reference: Tensor, pairs: list[tuple[Tensor, Tensor]]
) -> None:
    """Same outputs; same gradients of a random function of them with respect to `x` and every pair
    of parameters.
    """
    assert_close(ours, reference)
    probe = torch.randn_like(ours)
    left = torch.autograd.grad((ours * probe).sum(), [x] + [a for a, _ in pairs])
    right = torch.autograd.grad((reference * probe).sum(), [x] + [b for _, b in pairs])
    for a, b in zip(left, right, strict=True):
        assert_close(a, b.reshape(a.shape))


@pytest.mark.parametrize("grid", GRIDS)
def test_spatial_attention_is_multi_head_attention(grid):
    ours = SpatialAttention(WIDTH, HEADS).double()
    reference = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).double()
    pairs = [
        (ours.qkv.weight, reference.in_proj_weight),
        (ours.qkv.bias, reference.in_proj_bias),
        (ours.out.weight, reference.out_proj.weight),
        (ours.out.bias, reference.out_proj.bias),
    ]
    copy_weights(pairs)
    x = tokens(grid)
    assert_same(x, ours(x, grid), reference(x, x, x, need_weights=False)[0], pairs)


class TransposedAttention(nn.Module):
    """Restormer's MDTA from its formula.

    out_i = sum_j softmax_j(alpha_h * <q_i, k_j> / (|q_i| |k_j|)) v_j, i and j channels of head h.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pointwise = nn.Conv2d(WIDTH, 3 * WIDTH, 1)
        self.depthwise = nn.Conv2d(3 * WIDTH, 3 * WIDTH, 3, padding=1, groups=3 * WIDTH)
        self.alpha = nn.Parameter(torch.ones(HEADS))
        self.project = nn.Conv2d(WIDTH, WIDTH, 1)

    def forward(self, x_BdHW: Tensor) -> Tensor:
        queries, keys, values = self.depthwise(self.pointwise(x_BdHW)).chunk(3, dim=1)
        outputs, size = [], WIDTH // HEADS
        for head in range(HEADS):
            q, k, v = (
                part[:, head * size : (head + 1) * size].flatten(2)
                for part in (queries, keys, values)
            )
            cosine = torch.einsum("bin,bjn->bij", q, k) / (
                q.norm(dim=-1)[:, :, None] * k.norm(dim=-1)[:, None, :]
            )
            scores = (self.alpha[head] * cosine).exp()
            outputs.append(torch.einsum("bij,bjn->bin", scores / scores.sum(-1, keepdim=True), v))
        return self.project(torch.cat(outputs, dim=1).unflatten(2, x_BdHW.shape[2:]))


@pytest.mark.parametrize("grid", GRIDS)
def test_channel_attention_is_restormers(grid):
    ours = ChannelAttention(WIDTH, HEADS).double()
    nn.init.uniform_(ours.temperature, 0.5, 3.0)
    reference = TransposedAttention().double()
    pairs = [
        (ours.qkv.weight, reference.pointwise.weight),
        (ours.qkv.bias, reference.pointwise.bias),
        (ours.depthwise.weight, reference.depthwise.weight),
        (ours.depthwise.bias, reference.depthwise.bias),
        (ours.temperature, reference.alpha),
        (ours.out.weight, reference.project.weight),
        (ours.out.bias, reference.project.bias),
    ]
    copy_weights(pairs)
    x = tokens(grid)
    assert_same(x, ours(x, grid), to_tokens(reference(to_map(x, grid))), pairs)


def swin(window: int, shifted: bool) -> SwinAttention:
    """With a large random bias table, so that a wrong index shows."""
    expert = SwinAttention(WIDTH, HEADS, window, shifted).double()
    nn.init.normal_(expert.bias_table)
    return expert


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(
    ("window", "grid"),
    [(4, (8, 8)), (4, (4, 8)), (4, (12, 4)), (4, (8, 12)), (3, (6, 9)), (2, (4, 6)), (4, (4, 4))],
)
def test_swin_attention_is_torchvisions(window, grid, shifted):
    ours = swin(window, shifted)
    shift = window // 2 if shifted else 0
    reference = ShiftedWindowAttention(WIDTH, [window] * 2, [shift] * 2, HEADS).double()
    pairs = [
        (ours.qkv.weight, reference.qkv.weight),
        (ours.qkv.bias, reference.qkv.bias),
        (ours.out.weight, reference.proj.weight),
        (ours.out.bias, reference.proj.bias),
        (ours.bias_table, reference.relative_position_bias_table),
    ]
    copy_weights(pairs)
    x = tokens(grid)
    theirs = reference(x.unflatten(1, grid)).flatten(1, 2)
    assert_same(x, ours(x, grid), theirs, pairs)


def window_attention(expert: SwinAttention, x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Attention over all tokens of the real grid, masked to each token's piece of a window; no
    padding, no rolling.
    """
    window = expert.window
    places = [(row, col) for row in range(grid[0]) for col in range(grid[1])]
    # an axis that one window covers is not shifted; else windows begin at `shift`, and the tokens
    # before it are a piece of their own
    shift = [window // 2 if expert.shifted and size > window else 0 for size in grid]
    piece = [tuple((place[axis] - shift[axis]) // window for axis in range(2)) for place in places]

    q, k, v = (part.unflatten(-1, (HEADS, -1)) for part in expert.qkv(x).chunk(3, dim=-1))
    outputs = []
    for i, (row, col) in enumerate(places):
        seen = [j for j in range(len(places)) if piece[j] == piece[i]]
        steps = [(row - places[j][0], col - places[j][1]) for j in seen]
        bias = torch.stack(
            [
                expert.bias_table[(dr + window - 1) * (2 * window - 1) + dc + window - 1]
                for dr, dc in steps
            ]
        )
        scores = torch.einsum("bhc,bjhc->bjh", q[:, i], k[:, seen]) / (WIDTH // HEADS) ** 0.5 + bias
        outputs.append(torch.einsum("bjh,bjhc->bhc", scores.softmax(1), v[:, seen]).flatten(1))
    return expert.out(torch.stack(outputs, dim=1))


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("grid", [(1, 1), (1, 7), (7, 1), (5, 3), (6, 5), (4, 9)])
@pytest.mark.parametrize("window", [1, 3, 4, 8])
def test_swin_attention_never_sees_its_padding(window, grid, shifted):
    ours = swin(window, shifted)
    x = tokens(grid)
    pairs = [
        (p, p)
        for p in (ours.qkv.weight, ours.qkv.bias, ours.out.weight, ours.out.bias, ours.bias_table)
    ]
    assert_same(x, ours(x, grid), window_attention(ours, x, grid), pairs)


def test_swin_attention_shifts():
    expert, shifted = swin(4, False), swin(4, True)
    shifted.load_state_dict(expert.state_dict())
    x = tokens((8, 8))
    assert (expert(x, (8, 8)) - shifted(x, (8, 8))).abs().max() > 1e-3


@pytest.mark.parametrize("grid", GRIDS)
def test_se_attention_is_squeeze_excitation(grid):
    ours = SEAttention(WIDTH, 4).double()
    reference = SqueezeExcitation(WIDTH, WIDTH // 4).double()
    pairs = [
        (ours.squeeze.weight, reference.fc1.weight),
        (ours.squeeze.bias, reference.fc1.bias),
        (ours.excite.weight, reference.fc2.weight),
        (ours.excite.bias, reference.fc2.bias),
    ]
    copy_weights(pairs)
    x = tokens(grid)
    assert_same(x, ours(x, grid), to_tokens(reference(to_map(x, grid))), pairs)


EXPERTS = {
    "spatial": lambda: SpatialAttention(WIDTH, HEADS),
    "channel": lambda: ChannelAttention(WIDTH, HEADS),
    "swin": lambda: SwinAttention(WIDTH, HEADS, 4, False),
    "swin_shifted": lambda: SwinAttention(WIDTH, HEADS, 4, True),
    "se": lambda: SEAttention(WIDTH, 4),
}


@pytest.mark.parametrize("kind", EXPERTS)
@pytest.mark.parametrize("grid", GRIDS)
def test_images_of_a_batch_do_not_meet(kind, grid):
    expert = EXPERTS[kind]().double()
    x = tokens(grid, batch=3)
    assert_close(expert(x, grid), torch.cat([expert(image, grid) for image in x.split(1)]))


@pytest.mark.parametrize("kind", EXPERTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtype_is_kept_and_finite(kind, dtype):
    expert = EXPERTS[kind]().to(dtype)
    x = torch.randn(2, 35, WIDTH).to(dtype)
    output = expert(x, (5, 7))
    assert output.dtype == dtype and output.shape == x.shape and output.isfinite().all()


@pytest.mark.parametrize("kind", ["channel", "swin", "swin_shifted"])
def test_rows_and_columns_are_not_confused(kind):
    """On the transposed grid the same tokens have other neighbours."""
    expert = EXPERTS[kind]().double()
    x = tokens((5, 7))
    assert (expert(x, (5, 7)) - expert(x, (7, 5))).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (lambda: SpatialAttention(10, 4), ["branch.width is 10", "branch.heads 4", "multiple"]),
        (lambda: ChannelAttention(10, 4), ["branch.width is 10", "branch.heads 4", "multiple"]),
        (
            lambda: SwinAttention(10, 4, 8, False),
            ["branch.width is 10", "branch.heads 4", "multiple"],
        ),
        (lambda: SpatialAttention(8, 0), ["branch.heads 0"]),
        (lambda: SwinAttention(8, 2, 0, False), ["branch.window is 0", "at least 1"]),
        (lambda: SEAttention(8, 0), ["branch.se_reduction is 0", "between 1 and"]),
        (lambda: SEAttention(8, 9), ["branch.se_reduction is 9", "8"]),
    ],
)
def test_impossible_settings_name_the_key_and_the_limit(build, names):
    with pytest.raises(ValueError) as error:
        build()
    for name in names:
        assert name in str(error.value)


@pytest.mark.parametrize("shifted,count", [(False, 1), (True, 12)])
def test_swin_hands_over_a_mask_that_the_flash_kernel_takes(monkeypatch, shifted, count):
    """PyTorch's CPU kernel takes masks of 2 or 4 dimensions; others fall back to the slower math.

    One mask is enough for equal windows.
    """
    seen, attend = [], F.scaled_dot_product_attention

    def attention(*parts, attn_mask):
        seen.append(tuple(attn_mask.shape))
        return attend(*parts, attn_mask)

    monkeypatch.setattr(F, "scaled_dot_product_attention", attention)
    SwinAttention(8, 2, 2, shifted)(torch.randn(3, 16, 8), (4, 4))
    assert seen == [(count, 2, 4, 4)]
