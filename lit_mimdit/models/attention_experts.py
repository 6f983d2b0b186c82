"""The four kinds of attention an expert can be. All take tokens and their grid, and return tokens.

B = batch, N = h * w tokens in row-major order, d = width, H = heads. Any h and w.

Each is written for one set of weights, and for one set an image: `Selected` stands for the expert
there, its weights the images' own.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Grid = tuple[int, int]


def _check_heads(width: int, heads: int) -> None:
    if heads < 1 or width % heads:
        raise ValueError(
            f"branch.width is {width} and branch.heads {heads}: the width must be a multiple of the"
            " heads"
        )


class Selected:
    """Stands for an expert whose weights differ from image to image.

    Image i has the weights of `experts[chosen[i]]`; all experts are of one kind and size.

    An expert's `forward` reads its parts by name, such as `self.qkv(x)`. Given a `Selected` in the
    place of `self`, the same code gets from `self.qkv` a layer with one set of weights an image:

        SpatialAttention.forward(Selected(experts, chosen), x, grid)

    is image by image `experts[chosen[i]](x[i], grid)`, in one computation. The formulas of the
    experts are thus written once. Three kinds of parts depend on the image:

        nn.Linear       a batched product              (B, N, d) x (B, d, d')
        nn.Conv2d       depth-wise over B times as many channels
        nn.Parameter    stacked                        (B, ...)

    Every other part, such as a number of heads or an index, is the first expert's. Shapes do not
    depend on what was chosen, so the host need not know it and never waits for the device.

    Args:
        experts: the E experts.
        chosen: (B,) int64, ids.
    """

    def __init__(self, experts: Sequence[nn.Module], chosen: Tensor) -> None:
        self.experts = experts
        self.chosen = chosen

    def __getattr__(self, name: str) -> Any:
        """The part of this name, as `forward` of an expert uses it."""
        parts = [getattr(expert, name) for expert in self.experts]
        match parts[0]:
            case nn.Linear():
                return self._linear(parts)
            case nn.Conv2d():
                return self._depthwise(parts)
            case nn.Parameter():
                return self._of_images(parts)
        return parts[0]

    def _of_images(self, tensors: Sequence[Tensor]) -> Tensor:
        """One of E tensors for each image, (B, ...)."""
        return torch.stack(list(tensors)).index_select(0, self.chosen)

    def _linear(self, layers: Sequence[nn.Linear]) -> Callable[[Tensor], Tensor]:
        """y_i = x_i W_i^T + b_i on (B, N, d)."""
        weight = self._of_images([layer.weight for layer in layers])
        bias = self._of_images([layer.bias for layer in layers])
        return lambda x: torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))

    def _depthwise(self, layers: Sequence[nn.Conv2d]) -> Callable[[Tensor], Tensor]:
        """A depth-wise convolution of (B, C, h, w), done as one of a single image of B C planes."""
        weight = self._of_images([layer.weight for layer in layers]).flatten(0, 1)
        bias = self._of_images([layer.bias for layer in layers]).flatten(0, 1)
        padding = layers[0].padding

        def convolve(x: Tensor) -> Tensor:
            planes = x.reshape(1, -1, *x.shape[2:])
            return F.conv2d(planes, weight, bias, padding=padding, groups=len(weight)).view_as(x)

        return convolve


class SpatialAttention(nn.Module):
    """Multi-head self-attention over all tokens (Vaswani et al., arXiv 1706.03762).

    y = out(softmax(q k^T / sqrt(d/H)) v).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        _check_heads(width, heads)
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x_BNd: Tensor, grid: Grid) -> Tensor:
        qkv = self.qkv(x_BNd).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, N, d/H)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class ChannelAttention(nn.Module):
    """Attends between channels instead of tokens.

    This is Restormer's MDTA (Zamir et al., arXiv 2111.09881, eq. 1).

        q, k, v = depth-wise 3x3 of a point-wise projection
        out = project(v softmax(temperature * k^T q))

    Queries and keys are of unit length over the tokens. Cost is linear in N.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        _check_heads(width, heads)
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Linear(width, 3 * width)
        self.depthwise = nn.Conv2d(3 * width, 3 * width, 3, padding=1, groups=3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x_BNd: Tensor, grid: Grid) -> Tensor:
        planes = self.qkv(x_BNd).transpose(1, 2).unflatten(2, grid)
        maps = self.depthwise(planes).flatten(2)  # (B, 3d, N)
        q, k, v = maps.unflatten(1, (3, self.heads, -1)).unbind(1)  # each (B, H, d/H, N)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        attention = (q @ k.transpose(-2, -1) * self.temperature).softmax(dim=-1)  # (B, H, d/H, d/H)
        return self.out((attention @ v).flatten(1, 2).transpose(1, 2))


def relative_position_index(window: int) -> Tensor:
    """Returns the index into the bias table for every pair of positions of a window, (window^2,
    window^2), as in Swin.
    """
    rows, cols = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    rows, cols = rows.flatten(), cols.flatten()
    return (
        (rows[:, None] - rows[None] + window - 1) * (2 * window - 1)
        + cols[:, None]
        - cols[None]
        + window
        - 1
    )


def window_mask(
    grid: Grid, padded: Grid, window: int, shift: Grid, device: torch.device | str = "cpu"
) -> Tensor:
    """Returns which tokens of a window may see each other, (windows, window^2, window^2) bool.

    After a cyclic shift a window can hold pieces that are not neighbours. Tokens see their own
    piece only, and nobody sees the padding. A padded token sees itself, so that its softmax, which
    is thrown away, stays finite.
    """
    region = torch.zeros(padded, dtype=torch.long, device=device)
    for axis, step in enumerate(shift):
        if step:
            piece = torch.zeros(padded[axis], dtype=torch.long, device=device)
            piece[-window:-step] = 1
            piece[-step:] = 2
            region += (3**axis) * piece.unsqueeze(1 - axis)
    real = torch.zeros(padded, dtype=torch.bool, device=device)
    real[: grid[0], : grid[1]] = True
    real = real.roll((-shift[0], -shift[1]), (0, 1))

    def windows(plane: Tensor) -> Tensor:
        return (
            plane.unfold(0, window, window).unfold(1, window, window).reshape(-1, window * window)
        )

    region, real = windows(region), windows(real)
    same = region[:, :, None] == region[:, None, :]
    return (same & real[:, None, :]) | torch.eye(window * window, dtype=torch.bool, device=device)


class SwinAttention(nn.Module):
    """Attention inside (shifted) windows with a relative position bias (Liu et al., arXiv
    2103.14030).

    Grids that the window does not divide are padded; padding is masked out. An axis that one window
    covers is not shifted.
    """

    bias_index: Tensor

    def __init__(self, width: int, heads: int, window: int, shifted: bool) -> None:
        super().__init__()
        _check_heads(width, heads)
        if window < 1:
            raise ValueError(f"branch.window is {window}: a window is at least 1 token wide")
        self.heads = heads
        self.window = window
        self.shifted = shifted
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.bias_table, std=0.02)
        self.register_buffer("bias_index", relative_position_index(window), persistent=False)

    def forward(self, x_BNd: Tensor, grid: Grid) -> Tensor:
        batch, _, width = x_BNd.shape
        window = self.window
        tall, wide = (-(-n // window) * window for n in grid)
        down, right = (window // 2 if self.shifted and n > window else 0 for n in (tall, wide))
        padded, shift = (tall, wide), (down, right)
        x = F.pad(x_BNd.unflatten(1, grid), (0, 0, 0, wide - grid[1], 0, tall - grid[0]))
        x = x.roll((-down, -right), (1, 2))
        rows, cols = tall // window, wide // window
        x = (
            x.view(batch, rows, window, cols, window, width)
            .transpose(2, 3)
            .reshape(batch, -1, width)
        )  # window by window

        windows = self.qkv(x).view(batch * rows * cols, window * window, 3, self.heads, -1)
        q, k, v = windows.permute(2, 0, 3, 1, 4)  # each (B*windows, H, window^2, d/H)
        bias = (
            self.bias_table[..., self.bias_index, :].movedim(-1, -3).unsqueeze(-4).to(q.dtype)
        )  # ([B,] 1, H, window^2, window^2)
        if any(shift) or padded != grid:
            mask = window_mask(grid, padded, window, shift, x.device)[:, None]
            bias = bias.masked_fill(~mask, float("-inf"))  # ([B,] windows, H, ...)
        if bias.shape[:-3] != (1,):  # not the same for all windows of all images
            bias = bias.expand(batch, rows * cols, -1, -1, -1).flatten(0, 1)
        x = (
            F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
            .transpose(1, 2)
            .reshape(batch, -1, width)
        )

        x = (
            self.out(x)
            .view(batch, rows, cols, window, window, width)
            .transpose(2, 3)
            .reshape(batch, *padded, width)
        )
        x = x.roll(shift, (1, 2))[:, : grid[0], : grid[1]]
        return x.flatten(1, 2)


class SEAttention(nn.Module):
    """Squeeze-and-excitation (Hu et al., arXiv 1709.01507).

    y = x * sigmoid(W2 relu(W1 mean(x))), one factor a channel and image.
    """

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        if reduction < 1 or width // reduction < 1:
            raise ValueError(
                f"branch.se_reduction is {reduction}: it must lie between 1 and the width {width}"
            )
        self.squeeze = nn.Linear(width, width // reduction)
        self.excite = nn.Linear(width // reduction, width)

    def forward(self, x_BNd: Tensor, grid: Grid) -> Tensor:
        scale_B1d = self.excite(self.squeeze(x_BNd.mean(1, keepdim=True)).relu()).sigmoid()
        return x_BNd * scale_B1d
