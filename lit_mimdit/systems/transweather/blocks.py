"""Blocks of TransWeather's transformer: patch embedding, attention, feed-forward part.

Tokens have shape (B, N, C), with N = height * width of the map they come of. All layers have a
bias. Two eps occur: 1e-6 in the norms around the blocks, torch's 1e-5 elsewhere.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK_EPS = 1e-6
Size = tuple[int, int]


def to_map(tokens: Tensor, size: Size) -> Tensor:
    """Returns tokens as a map (B, C, *size)."""
    return tokens.transpose(1, 2).unflatten(2, size)


def to_tokens(u: Tensor) -> Tensor:
    """Returns a map as tokens."""
    return u.flatten(2).transpose(1, 2)


class PatchEmbedding(nn.Module):
    """Makes tokens of a map: LN(conv k x k, stride s, padding k // 2)."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int):
        super().__init__()
        self.proj = nn.Conv2d(channels, out, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(out)

    def forward(self, u: Tensor) -> tuple[Tensor, Size]:
        """Returns the tokens, and the height and width of their map."""
        u = self.proj(u)
        return self.norm(to_tokens(u)), (u.shape[-2], u.shape[-1])


class Attention(nn.Module):
    """Attention whose keys and values come of a map of reduced size.

        q = Linear(t)        k, v = halves of Linear(t')
        t' = LN(conv R x R with stride R of t as a map) for R > 1, else t
        result = Linear(softmax(q k^T / sqrt(C / heads)) v), heads = slices of C / heads channels

    With `queries`, q comes of that many learned tokens instead. It is resized along the tokens to N
    by the nearest neighbour: token i takes floor(i queries / N).
    """

    def __init__(self, channels: int, heads: int, reduction: int = 1, queries: int | None = None):
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        if reduction > 1:
            self.sr = nn.Conv2d(channels, channels, reduction, reduction)
            self.norm = nn.LayerNorm(channels)
        self.task_query = (
            None if queries is None else nn.Parameter(torch.randn(1, queries, channels))
        )

    def forward(self, t: Tensor, size: Size) -> Tensor:
        batch, number, channels = t.shape

        def split(tokens: Tensor) -> Tensor:
            return tokens.unflatten(2, (self.heads, channels // self.heads)).transpose(1, 2)

        if self.task_query is None:
            q = split(self.q(t))
        else:
            q = F.interpolate(self.q(self.task_query).transpose(1, 2), number, mode="nearest")
            q = split(q.transpose(1, 2)).expand(batch, -1, -1, -1)
        if self.reduction > 1:
            t = self.norm(to_tokens(self.sr(to_map(t, size))))
        k, v = (split(part) for part in self.kv(t).chunk(2, dim=2))
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Linear(C -> ratio C), depthwise 3x3 on the map, exact GELU, Linear back."""

    def __init__(self, channels: int, ratio: int):
        super().__init__()
        hidden = ratio * channels
        self.fc1 = nn.Linear(channels, hidden)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, t: Tensor, size: Size) -> Tensor:
        u = self.dwconv(to_map(self.fc1(t), size))
        return self.fc2(F.gelu(to_tokens(u)))


class DropPath(nn.Module):
    """Drops the branch of a sample with probability p while training, and scales the others.

    result = u * b / (1 - p), b = 1 with probability 1 - p, for each sample
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, u: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return u
        shape = (len(u), *[1] * (u.ndim - 1))
        return u * u.new_empty(shape).bernoulli_(1 - self.p) / (1 - self.p)


class Block(nn.Module):
    """t = t + drop(attn(LN(t))), then t = t + drop(mlp(LN(t))).

    channels, heads, reduction, queries: sizes of the attention.
    ratio: that of the feed-forward part.
    drop: probability that one of the two branches is left out, each by itself.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        ratio: int,
        reduction: int = 1,
        drop: float = 0.0,
        queries: int | None = None,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, BLOCK_EPS)
        self.attn = Attention(channels, heads, reduction, queries)
        self.drop = DropPath(drop)
        self.norm2 = nn.LayerNorm(channels, BLOCK_EPS)
        self.mlp = FeedForward(channels, ratio)

    def forward(self, t: Tensor, size: Size) -> Tensor:
        t = t + self.drop(self.attn(self.norm1(t), size))
        return t + self.drop(self.mlp(self.norm2(t), size))


def initialise(module: nn.Module) -> None:
    """Draws the start of the encoder and decoder; to be given to Module.apply.

    Linear: normal, deviation 0.02, cut at +-2; bias 0. Convolution: normal with variance
    2 / (k k out / groups); bias 0. Norms keep 1 and 0.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        assert module.bias is not None, "all of them have one"
        nn.init.zeros_(module.bias)
