"""PSNR and SSIM: pure functions of image pairs (B, C, H, W) in [0, 1].

Y is the luma of YIQ at full range, Y = 0.299 R + 0.587 G + 0.114 B, as in pyiqa. MATLAB's Y of 16
to 235 would give a PSNR about 1.3 dB higher.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

PSNR_FLOOR = 1e-8  # least squared error: identical images have 80 dB, as in pyiqa, not infinity
WINDOW = 11  # pixels, sigma 1.5 (Wang et al., 2004)


def eight_bit(image: Tensor) -> Tensor:
    """Returns what a viewer of the written 8-bit file sees, float32 in [0, 1]."""
    return (image.float().clamp(0, 1) * 255.0).round() / 255.0


def luma(image: Tensor) -> Tensor:
    """(B, 3, H, W) RGB -> (B, 1, H, W) float64 Y of YIQ in [0, 1]."""
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64, device=image.device)
    return torch.einsum("bchw,c->bhw", image.double(), weights)[:, None]


# PSNR = 10 log10(1 / mean((x - y)^2))
def psnr(image: Tensor, reference: Tensor) -> Tensor:
    """Returns the peak signal-to-noise ratio in dB, (B,) float64."""
    error = (image.double() - reference.double()).square().mean((1, 2, 3))
    return -10.0 * error.clamp_min(PSNR_FLOOR).log10()


# SSIM = mean over windows of (2 mx my + c1)(2 cov + c2) / ((mx^2 + my^2 + c1)(vx + vy + c2)), c1 =
# 0.01^2, c2 = 0.03^2
def ssim(image: Tensor, reference: Tensor) -> Tensor:
    """Returns the structural similarity (Wang et al., 2004), (B,) float64: Gaussian window of 11
    pixels, whole windows only, mean of channels.

    As in scikit-image with gaussian_weights; pyiqa's `ssim` and `ssimc` also set negative structure
    to 0, which adds up to 0.001 on noisy images. One plane at a time, so the memory is that of one
    plane.
    """
    position = torch.arange(WINDOW, dtype=torch.float64, device=image.device) - WINDOW // 2
    kernel = torch.exp(-0.5 * (position / 1.5).square())
    kernel = kernel / kernel.sum()

    def blur(plane: Tensor) -> Tensor:
        rows = F.conv2d(plane[None, None], kernel.view(1, 1, -1, 1))
        return F.conv2d(rows, kernel.view(1, 1, 1, -1))[0, 0]

    def plane_score(x: Tensor, y: Tensor) -> Tensor:
        x, y = x.double(), y.double()
        mx, my = blur(x), blur(y)
        vx = blur(x * x) - mx * mx
        vy = blur(y * y) - my * my
        cov = blur(x * y) - mx * my
        c1, c2 = 0.01**2, 0.03**2
        return (
            (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
        ).mean()

    def image_score(planes: Tensor, clean: Tensor) -> Tensor:
        scores = [plane_score(x, y) for x, y in zip(planes, clean, strict=True)]
        return torch.stack(scores).mean()

    pairs = zip(image, reference, strict=True)
    return torch.stack([image_score(planes, clean) for planes, clean in pairs])


def psnr_y(image: Tensor, reference: Tensor) -> Tensor:
    """Returns the PSNR of Y in dB, (B,)."""
    return psnr(luma(image), luma(reference))


def ssim_y(image: Tensor, reference: Tensor) -> Tensor:
    """Returns the SSIM of Y rounded to 8 bits, (B,)."""
    return ssim(eight_bit(luma(image)), eight_bit(luma(reference)))
