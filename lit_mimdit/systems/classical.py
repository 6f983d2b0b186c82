"""The tools that a person without a network would use: one for each degradation.

Images are (H, W, 3) float32 in [0, 1].
"""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from scipy.ndimage import convolve, median_filter, minimum_filter, uniform_filter
from skimage import exposure, restoration
from torch import Tensor, nn

from lit_mimdit.data.image_file import allowed_megapixels
from lit_mimdit.inference.pixel_restorer import PixelRestorer
from lit_mimdit.inference.plan import plan, require_free
from lit_mimdit.inference.restore import carry_out
from lit_mimdit.inference.run_record import describe_run
from lit_mimdit.inference.tiling import joined
from lit_mimdit.systems.base import METRICS, VERSIONS, Losses, RestorationSystem

Method = Literal["wiener", "nlm", "dark-channel", "median", "clahe", "gamma"]


def wiener(image: np.ndarray, sigma: float = 1.5, balance: float = 0.02) -> np.ndarray:
    """Wiener deconvolution by a Gaussian of `sigma` pixels, channel by channel (Orieux et al.

    2010, scikit-image).
    """
    grid = np.mgrid[-7:8, -7:8]
    kernel = np.exp(-np.square(grid).sum(0) / (2 * sigma**2))
    kernel /= kernel.sum()
    padded = np.pad(image, ((16, 16), (16, 16), (0, 0)), mode="reflect")
    channels = [
        restoration.wiener(padded[..., c], kernel, balance)[16:-16, 16:-16] for c in range(3)
    ]
    return np.stack(channels, axis=-1)


# sigma = sqrt(pi / 2) / 6 * mean |I * N|,  N the difference of two Laplacians  (Immerkaer 1996)
def noise_level(image: np.ndarray) -> float:
    """Returns the standard deviation of white noise, the mean of the channels'."""
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)[..., None]
    response = convolve(image, kernel, mode="reflect")
    return float(np.sqrt(np.pi / 2) / 6 * np.abs(response).mean())


def nlm(image: np.ndarray) -> np.ndarray:
    """Non-local means (Buades et al. 2005) at the noise level above."""
    sigma = noise_level(image)
    return restoration.denoise_nl_means(
        image,
        patch_size=5,
        patch_distance=6,
        h=0.8 * sigma,
        sigma=sigma,
        fast_mode=True,
        channel_axis=-1,
        preserve_range=True,
    )


# t = 1 - omega min_patch min_c I_c / A_c  (He, Sun, Tang 2009, equation 12)
def transmission(image: np.ndarray, light: np.ndarray, patch: int, omega: float) -> np.ndarray:
    """(H, W): how much of the scene's light comes through, by the dark channel prior."""
    return 1.0 - omega * minimum_filter((image / light).min(-1), size=patch, mode="nearest")


def guided_filter(guide: np.ndarray, plane: np.ndarray, radius: int, epsilon: float) -> np.ndarray:
    """(H, W) `plane`, smoothed along the edges of the grey (H, W) `guide` (He, Sun, Tang 2010)."""

    def mean(values: np.ndarray) -> np.ndarray:
        return uniform_filter(values, size=2 * radius + 1, mode="reflect")

    variance = mean(guide * guide) - mean(guide) ** 2
    slope = (mean(guide * plane) - mean(guide) * mean(plane)) / (variance + epsilon)
    return mean(slope) * guide + mean(mean(plane) - slope * mean(guide))


# J = (I - A) / max(t, t0) + A  (He, Sun, Tang 2009, equation 22)
def dark_channel(
    image: np.ndarray, patch: int = 9, omega: float = 0.95, least: float = 0.1
) -> np.ndarray:
    """Dehazing by the dark channel prior; the air light is the mean of the haziest 0.1% of the
    pixels.
    """
    dark = minimum_filter(image.min(-1), size=patch, mode="nearest")
    count = max(1, dark.size // 1000)
    haziest = np.argpartition(dark.ravel(), -count)[-count:]
    light = np.maximum(image.reshape(-1, 3)[haziest].mean(0), 0.1)
    through = guided_filter(
        image.mean(-1), transmission(image, light, patch, omega), radius=4 * patch, epsilon=1e-3
    )
    return (image - light) / np.maximum(through, least)[..., None] + light


def median(image: np.ndarray) -> np.ndarray:
    """Median of 3 x 3 pixels, channel by channel: takes out thin streaks."""
    return median_filter(image, size=(3, 3, 1), mode="reflect")


def clahe(image: np.ndarray) -> np.ndarray:
    """Contrast-limited adaptive histogram equalisation (Zuiderveld 1994) of the brightness."""
    return exposure.equalize_adapthist(np.clip(image, 0, 1), clip_limit=0.02)


# V' = V ** (log target / log mean V)
def gamma(image: np.ndarray, target: float = 0.45) -> np.ndarray:
    """Returns the power that brings the mean brightness to `target`."""
    mean = float(np.clip(image.mean(), 1e-3, 0.999))
    return np.clip(image, 0, 1) ** (np.log(target) / np.log(mean))


METHODS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "wiener": wiener,
    "nlm": nlm,
    "dark-channel": dark_channel,
    "median": median,
    "clahe": clahe,
    "gamma": gamma,
}


def restore_by(method: Method, images: Tensor) -> Tensor:
    """Returns images (B, 3, H, W) that a classical tool restores one by one, all in [0, 1]."""
    restored = []
    for image in images.detach().cpu():
        result = METHODS[method](image.permute(1, 2, 0).numpy().astype(np.float32))
        plane = np.ascontiguousarray(np.clip(result, 0, 1), dtype=np.float32)
        restored.append(torch.from_numpy(plane).permute(2, 0, 1))
    return joined([image[None] for image in restored])


class Classical(RestorationSystem):
    """A classical tool as a system, for `validate`, `test`, `predict` and studies.

    Args:
        method: `wiener` for blur, `nlm` (non-local means) for noise, `dark-channel` for haze,
            `median` for rain, `clahe` or `gamma` for low light.
        metrics: scores of `test` by key.
        versions: what validation and test score of each image.
    """

    TRAINABLE: ClassVar[bool] = False

    def __init__(
        self, method: Method, metrics: list[str] = METRICS, versions: list[str] = VERSIONS
    ) -> None:
        super().__init__(None, metrics, versions)
        if method not in METHODS:
            raise ValueError(f"model.method is {method!r}: choose among {', '.join(METHODS)}")
        self.method, self.nothing = method, nn.Module()

    @property
    def trained(self) -> nn.Module:
        return self.nothing

    def losses(self, batch: dict[str, Any]) -> Losses:
        raise ValueError("a classical tool is not trained; use validate, test or predict")

    def restorer(self) -> PixelRestorer:
        about = {"class_path": f"{__name__}.Classical", "method": self.method}
        parts = self.nothing, lambda images: restore_by(self.method, images)
        return PixelRestorer(*parts, about=about, tile=0)


def classical(
    inputs: list[Path],
    *,
    output: Path,
    method: Method,
    overwrite: bool = False,
    strip_metadata: bool = False,
    max_megapixels: float | None = None,
) -> int:
    """Restore photographs with a classical tool, to compare with: the same files and the same
    record as `restore` writes, for `evaluate`.

    Whatever is left out of a folder is named on stderr. A second call skips finished photographs.

    Args:
        inputs: Photographs, or folders of them.
        output: File or folder to write. A file takes one photograph. A folder gets PNG files of the
            same names, and restoration.json, which says how they were made.
        method: `wiener` for blur, `nlm` (non-local means) for noise, `dark-channel` for haze,
            `median` for rain, `clahe` or `gamma` for low light.
        overwrite: Replace files that exist, even if no call made them.
        strip_metadata: Leave out EXIF (date, camera, place), XMP, texts and resolution.
        max_megapixels: Photographs with more megapixels are refused; 250 unless given.

    Returns:
        0, or 1 if any file was left out or could not be restored.
    """
    assert set(METHODS) == set(get_args(Method))
    with nullcontext() if max_megapixels is None else allowed_megapixels(max_megapixels):
        made = plan(inputs, output)
        if made.to_file:
            require_free(made, set(), overwrite)
        restorer = Classical(method).restorer()
        run = describe_run(restorer, checkpoint=None, seed=0)
        return carry_out(restorer, made, run, overwrite, strip_metadata)
