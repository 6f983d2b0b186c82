"""Blocks of DGUNet: operators, channel attention, U-Net blocks, and the paths between stages.

Convolutions pad with zeros. "Slope" is the slope of a leaky ReLU.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BASIS = 16  # vectors onto which the features of the stage before are projected


def conv3(channels: int, out: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, padding=1, bias=bias)


class Operator(nn.Module):
    """A learned operator of the gradient step: P(x) = x + conv3x3(PReLU(conv3x3(x))).

    activation: a PReLU with one slope; all operators of a network share it.
    """

    def __init__(self, activation: nn.PReLU, hidden: int = 64):
        super().__init__()
        self.body = nn.Sequential(conv3(3, hidden), activation, conv3(hidden, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class GradientStep(nn.Module):
    """One step down the gradient of the data term.

        x' = x - r phiT(phi(x) - y)

    activation: as in Operator.
    """

    def __init__(self, activation: nn.PReLU):
        super().__init__()
        self.r = nn.Parameter(torch.tensor([0.5]))
        self.phi = Operator(activation)
        self.phit = Operator(activation)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x - self.r * self.phit(self.phi(x) - y)


class ChannelGate(nn.Module):
    """Shallow features.

        u = conv3x3(x)        t = conv3x3(PReLU(conv3x3(u)))
        result = u + t * sigmoid(W2 ReLU(W1 mean over pixels of t))

    channels: F. reduction: W1 leaves F / reduction channels. activation: the PReLU, shared.
    """

    def __init__(self, channels: int, reduction: int, activation: nn.PReLU):
        super().__init__()
        self.input = conv3(3, channels, bias=False)
        self.body = nn.Sequential(
            conv3(channels, channels, bias=False), activation, conv3(channels, channels, bias=False)
        )
        narrow = channels // reduction
        self.gate = nn.Sequential(
            nn.Conv2d(channels, narrow, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(narrow, channels, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        u = self.input(x)
        t = self.body(u)
        return u + t * self.gate(t.mean(dim=(-2, -1), keepdim=True))


class ConvBlock(nn.Module):
    """Two convolutions with slope 0.2 and a shortcut of one pixel.

        a = LReLU(norm(conv3x3(x)));  a = LReLU(conv3x3(a));  result = a + conv1x1(x)

    norm, where asked for, is an instance norm with eps 1e-5 of the first half of the channels.
    """

    def __init__(self, channels: int, out: int, norm: bool):
        super().__init__()
        self.identity = nn.Conv2d(channels, out, 1)
        self.conv_1 = conv3(channels, out)
        self.conv_2 = conv3(out, out)
        self.norm = nn.InstanceNorm2d(out // 2, affine=True) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        a = self.conv_1(x)
        if self.norm is not None:
            normed = self.norm.num_features
            a = torch.cat((self.norm(a[:, :normed]), a[:, normed:]), dim=1)
        a = F.leaky_relu(self.conv_2(F.leaky_relu(a, 0.2)), 0.2)
        return a + self.identity(x)


class EncoderBlock(ConvBlock):
    """A ConvBlock that takes features of the stage before, and halves the resolution.

        s = LReLU(csff_enc(e) + csff_dec(d)), slope 0.1
        a = a + a * sigmoid(phi(s)) + gamma(s)

    e, d: features of the encoder and decoder before, at this resolution.
    crossed: whether it takes them.
    down: whether it also gives a map of half the resolution.
    """

    def __init__(self, channels: int, out: int, crossed: bool, down: bool):
        super().__init__(channels, out, norm=True)
        self.crossed = crossed
        if crossed:
            self.csff_enc = conv3(out, out)
            self.csff_dec = conv3(channels, out)
            self.phi = conv3(out, out)
            self.gamma = conv3(out, out)
        self.downsample = nn.Conv2d(out, out, 4, 2, 1, bias=False) if down else None

    # nothing takes it for its base, which gives one map
    def forward(  # type: ignore[override]
        self, x: Tensor, e: Tensor | None = None, d: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns the map for the next block, and the features at this resolution."""
        a = super().forward(x)
        if self.crossed:
            s = F.leaky_relu(self.csff_enc(e) + self.csff_dec(d), 0.1)
            a = a + a * torch.sigmoid(self.phi(s)) + self.gamma(s)
        return (a if self.downsample is None else self.downsample(a)), a


class DecoderBlock(nn.Module):
    """Doubles the resolution and takes the encoder's features there.

    result = ConvBlock(concat(up(x), conv3x3(e)))
    """

    def __init__(self, channels: int, out: int):
        super().__init__()
        self.up = nn.ConvTranspose2d(channels, out, 2, 2)
        self.skip = conv3(channels, out)
        self.block = ConvBlock(2 * out, out, norm=False)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        return self.block(torch.cat((self.up(x), self.skip(e)), dim=1))


class Supervision(nn.Module):
    """Makes a picture of the features, and features for the next stage.

    features = x + conv1x1(x)        picture = conv1x1(x) + image
    """

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, 3, 1, bias=False)

    def forward(self, x: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.conv1(x) + x, self.conv2(x) + image


def project(basis: Tensor, b: Tensor) -> Tensor:
    """Returns b, each channel projected onto the span of the basis.

        V = basis with rows divided by (1e-6 + their L1 norm)
        b' = V^T (V V^T + lambda I)^-1 V b

    basis: (B, K, H, W). b: (B, C, H, W). The published form has lambda = 0 and breaks on flat
    images, where the Gram matrix is singular. Here lambda is the machine epsilon times the mean of
    the diagonal, so that it changes no more than rounding does. The result is computed in float32
    at least, whatever autocast says.
    """
    dtype = torch.promote_types(b.dtype, torch.float32)
    with torch.autocast(b.device.type, enabled=False):
        v, flat = basis.flatten(2).to(dtype), b.flatten(2).to(dtype)
        v = v / (1e-6 + v.abs().sum(dim=2, keepdim=True))
        gram = v @ v.transpose(1, 2)
        limits = torch.finfo(dtype)
        ridge = limits.eps * gram.diagonal(dim1=1, dim2=2).mean(dim=1) + limits.tiny
        eye = torch.eye(gram.shape[1], dtype=dtype, device=gram.device)
        weights = torch.linalg.solve(gram + ridge[:, None, None] * eye, v @ flat.transpose(1, 2))
        projected = weights.transpose(1, 2) @ v
    return projected.reshape(b.shape).to(b.dtype)


class Merge(nn.Module):
    """Takes features of the stage before, projected onto what both stages see.

        basis = conv3x3(concat(f, b))        result = f + conv3x3(concat(f, project(basis, b)))

    channels: of f and of b.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.subnet = conv3(2 * channels, BASIS)
        self.conv_block = conv3(2 * channels, channels)

    def forward(self, f: Tensor, b: Tensor) -> Tensor:
        basis = self.subnet(torch.cat((f, b), dim=1))
        return f + self.conv_block(torch.cat((f, project(basis, b)), dim=1))
