"""Deformable convolution: each sampling point of a kernel moves by an offset of its own.

torchvision's kernel is made for GPUs. On a CPU its backward pass takes minutes. Reading rows of a
table and one matrix product take seconds, so that is what happens there.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torchvision.ops import deform_conv2d

TAPS = 9  # of a kernel of 3 x 3


def points(offset: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Returns the four pixels around each sampling point, and their bilinear weights.

        (y, x) = p + p_k + (dy_k, dx_k)
        weight of the pixel (i, j) = max(0, 1 - |y - i|) max(0, 1 - |x - j|), outside the image 0

    Args:
        offset: (N, 18, H, W), (dy_k, dx_k) interleaved, for kernel position k in raster order.
        height: H in pixels.
        width: W in pixels.

    Returns:
        rows of the table of all N H W pixels, and weights; both (N, H, W, 9, 4).
    """
    count = len(offset)
    moves = offset.permute(0, 2, 3, 1).unflatten(-1, (TAPS, 2))
    tap = torch.arange(TAPS, device=offset.device)
    column = torch.arange(width, device=offset.device)[:, None] + tap % 3 - 1
    row = torch.arange(height, device=offset.device)[:, None, None] + tap // 3 - 1
    y, x = moves[..., 0] + row, moves[..., 1] + column
    top, left = y.detach().floor(), x.detach().floor()
    weights, rows = [], []
    first = torch.arange(count, device=offset.device).view(count, 1, 1, 1) * (height * width)
    for i in (top, top + 1):
        for j in (left, left + 1):
            inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
            weights.append((1 - (y - i).abs()) * (1 - (x - j).abs()) * inside)
            at = i.clamp(0, height - 1) * width + j.clamp(0, width - 1)
            rows.append(first + at.long())
    return torch.stack(rows, dim=-1), torch.stack(weights, dim=-1)


def sampled_conv2d(u: Tensor, offset: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """Returns a 3 x 3 convolution with moved and weighted sampling points, by a table of pixels.

        result(p) = sum_k W_k m_k(p) u(p + p_k + (dy_k, dx_k)(p))

    Values between pixels are bilinear, and zero outside.

    Args:
        u: (N, C, H, W).
        offset: (N, 18, H, W) in pixels.
        weight: (C_out, C, 3, 3).
        mask: (N, 9, H, W).
    """
    count, channels, height, width = u.shape
    rows, shares = points(offset, height, width)
    shares = (shares * mask.permute(0, 2, 3, 1)[..., None]).to(u.dtype)
    table = u.permute(0, 2, 3, 1).reshape(-1, channels)
    sampled = F.embedding_bag(
        rows.view(-1, 4), table, per_sample_weights=shares.view(-1, 4), mode="sum"
    )
    # (C_out, C, 3, 3) -> (C_out, 9 C), as the samples lie
    kernel = weight.permute(0, 2, 3, 1).flatten(1)
    result = F.linear(sampled.view(-1, TAPS * channels), kernel)
    return result.view(count, height, width, -1).permute(0, 3, 1, 2)


class DeformableConv(nn.Module):
    """A 3x3 convolution whose sampling points and weights follow u and the features I.

        o = conv3x3(concat(u, I)), 27 channels
        result(p) = sum_k W_k m_k(p) u(p + p_k + (dy_k, dx_k)(p))

    Channels 0 ... 17 of o are (dy_k, dx_k), interleaved, for kernel position k in raster order;
    m = sigmoid(channels 18 ... 26). Values between pixels are bilinear, and zero outside.

    channels: C of u and of I.
    """

    def __init__(self, channels: int):
        super().__init__()
        bound = (TAPS * channels) ** -0.5
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3).uniform_(-bound, bound))
        self.conv_offset_mask = nn.Conv2d(2 * channels, 27, 3, padding=1)
        # so that it begins as a plain convolution times 1/2
        for parameter in self.conv_offset_mask.parameters():
            nn.init.zeros_(parameter)

    def forward(self, u: Tensor, inter: Tensor) -> Tensor:
        offset, mask = self.conv_offset_mask(torch.cat((u, inter), dim=1)).split((18, 9), dim=1)
        # an offset that is no number would be taken for an address
        lost = (offset - offset).detach().sum(1, keepdim=True)  # 0 or, with such an offset, NaN
        offset, mask = offset.nan_to_num(), torch.sigmoid(mask)
        # an estimate without values (FakeTensor) is one of a GPU's memory
        if u.device.type == "cpu" and not isinstance(u, FakeTensor):
            return sampled_conv2d(u, offset, self.weight, mask) + lost
        return deform_conv2d(u, offset, self.weight, padding=1, mask=mask) + lost
