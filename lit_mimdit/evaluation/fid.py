"""Computes the clean Fréchet Inception distance (FID).

Features of images that are resized as in clean-fid (Parmar et al., CVPR 2022) are compared as
Gaussians.

FID over all images pooled and FID of a degradation are different numbers. Both depend on the number
of images, so compare at equal N only. With fewer images than features the covariances are
rank-deficient. FID is not a mean over images: it has no interval here.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

SIDE = 299  # pixels of Inception's input
FEATURES = 2048


def clean_resize(image: Tensor) -> Tensor:
    """Resize (3, H, W) in [0, 1] to (3, 299, 299) in [0, 255].

    It rounds to 8 bits, then takes PIL's bicubic with antialiasing in float, channel by channel.
    """
    planes = (image * 255.0).round().cpu().numpy().astype(np.float32)
    resized = [
        np.asarray(Image.fromarray(plane).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        for plane in planes
    ]
    return torch.from_numpy(np.stack(resized)).clamp_(0, 255)


def features(network: nn.Module, images: Tensor, device: torch.device) -> np.ndarray:
    """Returns Inception's pooled features of images (B, 3, H, W) in [0, 1]: (B, 2048) float32."""
    batch = torch.stack([clean_resize(image) for image in images])
    with torch.no_grad():
        pooled = network(((batch - 128.0) / 128.0).to(device), False, False)[0]
    return pooled.flatten(1).float().cpu().numpy()


# d^2 = |m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^(1/2)
def frechet(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the Fréchet distance of the Gaussians fitted to two sets of features.

    The sets are (N1, D) and (N2, D). The distance is NaN if a set has fewer than 2.

    Let A be the centred features over sqrt(N - 1), so that C = A^T A. Then tr (C1 C2)^(1/2) is the
    sum of the singular values of A1 A2^T. This is exact for rank-deficient covariances too, where a
    matrix square root is not.
    """
    if min(len(first), len(second)) < 2:
        return float("nan")
    first, second = first.astype(np.float64), second.astype(np.float64)
    roots = [(x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (first, second)]
    traces = sum(float(np.square(root).sum()) for root in roots)
    small = [np.linalg.qr(root, mode="r") if len(root) > root.shape[1] else root for root in roots]
    cross = float(np.linalg.svd(small[0] @ small[1].T, compute_uv=False).sum())
    return float(np.square(first.mean(0) - second.mean(0)).sum()) + traces - 2.0 * cross


class _Given(nn.Module):
    """Features that are there already, in the place of torchmetrics' network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, x: Tensor) -> Tensor:
        return x


def frechet_torchmetrics(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the same distance by torchmetrics' FrechetInceptionDistance; NaN for fewer than 2
    images in a set.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    if min(len(first), len(second)) < 2:
        return float("nan")
    metric = FrechetInceptionDistance(feature=_Given(first.shape[1]), normalize=True).set_dtype(
        torch.float64
    )
    metric.update(torch.from_numpy(second.astype(np.float64)), real=True)
    metric.update(torch.from_numpy(first.astype(np.float64)), real=False)
    return float(metric.compute())
