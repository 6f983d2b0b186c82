"""DGUNet and DGUNet+: proximal gradient descent, unrolled into stages.

Source: "Deep Generalized Unfolding Networks for Image Restoration" (CVPR 2022).
"""

from typing import Any

import torch
from torch import Tensor, nn

from lit_mimdit.systems.dgunet.blocks import (
    ChannelGate,
    DecoderBlock,
    EncoderBlock,
    GradientStep,
    Merge,
    Supervision,
    conv3,
)
from lit_mimdit.systems.sizes import demand_multiple

STAGES = 7


class Stage(nn.Module):
    """A gradient step, then a U-Net as the proximal map.

    widths: channels of the U-Net at full, 1/2, 1/4 and 1/8 resolution, w_0 ... w_3.
    reduction: that of the channel attention.
    operators, gates: the PReLU of the operators and that of the shallow features.
    first: whether no stage stands before.
    """

    def __init__(
        self, widths: list[int], reduction: int, operators: nn.PReLU, gates: nn.PReLU, first: bool
    ):
        super().__init__()
        self.step = GradientStep(operators)
        self.shallow = ChannelGate(widths[0], reduction, gates)
        self.merge = None if first else Merge(widths[0])
        outs = [*widths[1:], widths[3]]
        self.encoder = nn.ModuleList(
            EncoderBlock(channels, out, crossed=not first and i < 3, down=i < 3)
            for i, (channels, out) in enumerate(zip(widths, outs))
        )
        self.decoder = nn.ModuleList(DecoderBlock(widths[3 - i], widths[2 - i]) for i in range(3))
        self.sam = Supervision(widths[0])

    def forward(
        self, image: Tensor, y: Tensor, before: tuple[Tensor, list[Tensor], list[Tensor]] | None
    ) -> tuple[Tensor, tuple[Tensor, list[Tensor], list[Tensor]]]:
        """Returns this stage's picture, and what the next stage takes of this one.

        image: the picture before, (B, 3, H, W).
        y: the degraded image.
        before: features of the supervision, e_0 ... e_2, d_0 ... d_2; index i is at 1/2^i of the
            resolution.
        """
        x = self.step(image, y)
        u = self.shallow(x)
        if self.merge is not None and before is not None:
            u = self.merge(u, before[0])
        encoded: list[Tensor] = []
        for i, block in enumerate(self.encoder):
            crossing = (before[1][i], before[2][i]) if before is not None and i < 3 else ()
            u, features = block(u, *crossing)
            encoded.append(features)
        decoded: list[Tensor] = []
        for i, block in enumerate(self.decoder):
            u = block(u, encoded[2 - i])
            decoded.insert(0, u)
        features, picture = self.sam(u, x)
        return picture, (features, encoded[:3], decoded)


class LastStage(nn.Module):
    """A gradient step, shallow features, and the output; no U-Net.

        DGUNet:   out = conv3x3(conv3x3(concat(f, b))) + y
        DGUNet+:  out = conv3x3(merge(f, b)) + y

    channels: F. narrow: channels between the two convolutions of DGUNet; None makes DGUNet+'s form.
    """

    def __init__(
        self,
        channels: int,
        narrow: int | None,
        reduction: int,
        operators: nn.PReLU,
        gates: nn.PReLU,
    ):
        super().__init__()
        self.step = GradientStep(operators)
        self.shallow = ChannelGate(channels, reduction, gates)
        self.merge = Merge(channels) if narrow is None else None
        self.concat = None if narrow is None else conv3(2 * channels, narrow, bias=False)
        self.tail = conv3(channels if narrow is None else narrow, 3, bias=False)

    def forward(self, image: Tensor, y: Tensor, features: Tensor) -> Tensor:
        f = self.shallow(self.step(image, y))
        if self.merge is not None:
            f = self.merge(f, features)
        else:
            f = self.concat(torch.cat((f, features), dim=1))
        return self.tail(f) + y


class DGUNetNetwork(nn.Module):
    """Restores an image in stages; every stage makes a picture.

    n_feat: channels F at full resolution.
    scale_unetfeats: S; level i has F + i S channels.
    scale_orsnetfeats: the output of DGUNet narrows to F + O channels.
    reduction: that of the channel attention.
    depth: middle stages.
    plus: DGUNet+, whose stages have weights of their own. DGUNet's middle stages are one stage,
        used `depth` times.

    The defaults are the published DGUNet for deblurring and denoising, with 17,216,312 parameters
    that act.
    """

    def __init__(
        self,
        n_feat: int = 80,
        scale_unetfeats: int = 48,
        scale_orsnetfeats: int = 32,
        reduction: int = 4,
        depth: int = STAGES - 2,
        plus: bool = False,
    ):
        super().__init__()
        self.depth, self.plus = depth, plus
        self.sizes: dict[str, Any] = {  # what builds it again
            "n_feat": n_feat,
            "scale_unetfeats": scale_unetfeats,
            "scale_orsnetfeats": scale_orsnetfeats,
            "reduction": reduction,
            "depth": depth,
            "plus": plus,
        }
        widths = [n_feat + i * scale_unetfeats for i in range(4)]
        # One slope for all operators of a network, as published. The official sharing even spans
        # networks of one process, which is not repeated.
        operators, gates = nn.PReLU(), nn.PReLU()
        # DGUNet's middle stage is built by another constructor and has a slope of its own.
        middle_gates = gates if plus else nn.PReLU()
        self.first = Stage(widths, reduction, operators, gates, first=True)
        self.middle = nn.ModuleList(
            Stage(widths, reduction, operators, middle_gates, first=False)
            for _ in range(depth if plus else 1)
        )
        narrow = None if plus else n_feat + scale_orsnetfeats
        self.last = LastStage(n_feat, narrow, reduction, operators, gates)

    def forward(self, y: Tensor) -> list[Tensor]:
        """Returns the pictures of all stages, the last stage first; none is clamped.

        y: (B, 3, H, W), RGB in [0, 1]. ValueError unless H and W are multiples of 8, or for
        8 x 8, where the instance norm at 1/8 has a single pixel.
        """
        demand_multiple(y, 8, "DGUNet")
        if y.shape[-2] * y.shape[-1] <= 64:
            raise ValueError(
                "DGUNet needs more than one pixel at 1/8 of the resolution, and the image has"
                f" {y.shape[-2]} x {y.shape[-1]}; enlarge it"
            )
        image, before = self.first(y, y, None)
        pictures = [image]
        for i in range(self.depth):
            image, before = self.middle[i if self.plus else 0](image, y, before)
            pictures.insert(0, image)
        return [self.last(image, y, before[0]), *pictures]
