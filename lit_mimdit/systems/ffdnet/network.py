"""FFDNet's network (Zhang, Zuo, Zhang, IEEE TIP 2018, section III)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEP = 2  # pixels a side that become channels


# x' = unshuffle_2(x);  y = shuffle_2(convs([x', M])),  M = sigma everywhere
class FFDNetNetwork(nn.Module):
    """Denoises at half the resolution: 2 x 2 pixels become channels beside a map of the noise.

    Args:
        width: channels of the hidden layers.
        depth: convolutions of 3 x 3, with a ReLU between them.
        channels: of the image.
    """

    def __init__(self, width: int = 96, depth: int = 12, channels: int = 3) -> None:
        super().__init__()
        self.width = width
        packed = channels * STEP**2
        widths = [packed + 1, *[width] * (depth - 1), packed]
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1) for before, after in zip(widths, widths[1:])
        )

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Returns the denoised images.

        Args:
            x: (B, C, H, W) in [0, 1], H and W even.
            sigma: standard deviation of the noise on the same scale, (B,).
        """
        packed = F.pixel_unshuffle(x, STEP)
        noise = sigma.view(-1, 1, 1, 1).expand(-1, 1, *packed.shape[-2:])
        hidden = torch.cat((packed, noise), 1)
        for layer in self.layers[:-1]:
            hidden = F.relu(layer(hidden))
        return F.pixel_shuffle(self.layers[-1](hidden), STEP)
