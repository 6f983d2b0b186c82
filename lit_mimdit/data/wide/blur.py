"""Wide blur: point spread functions of several origins, in linear light or on the sRGB values."""

from collections.abc import Callable

import numpy as np
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.ndimage import gaussian_filter1d

from lit_mimdit.data.degradations import (
    disc_psf,
    linear_to_srgb,
    motion_psf,
    splat,
    srgb_to_linear,
)

Psf = Callable[[float, np.random.Generator], np.ndarray]
# pixels at strength 1
LENGTH = 40.0
RADIUS = 9.0
SIGMA = 5.0


def convolve(planes: np.ndarray, psf: np.ndarray) -> np.ndarray:
    """Convolve (H, W, C) float32 with a PSF (k, k), k odd, by FFT; the border is mirrored."""
    r = psf.shape[0] // 2
    height, width = planes.shape[:2]
    padded = np.pad(planes, ((r, r), (r, r), (0, 0)), mode="symmetric")
    shape = tuple(next_fast_len(n, real=True) for n in padded.shape[:2])
    spectrum = rfft2(padded, shape, axes=(0, 1))
    spectrum *= rfft2(psf.astype(np.float32), shape)[..., None]
    return irfft2(spectrum, shape, axes=(0, 1))[2 * r : 2 * r + height, 2 * r : 2 * r + width]


def straight_path(strength: float, generator: np.random.Generator) -> np.ndarray:
    """Returns the PSF of a straight camera movement of 1 to 40 px, at any angle."""
    return motion_psf(1 + (LENGTH - 1) * strength, generator.uniform(0, np.pi), 0.0)


def arc_path(strength: float, generator: np.random.Generator) -> np.ndarray:
    """Returns the PSF of a camera movement along an arc of 1 to 40 px that turns by up to 90
    degrees.
    """
    turn = generator.uniform(-np.pi / 2, np.pi / 2)
    return motion_psf(1 + (LENGTH - 1) * strength, generator.uniform(0, np.pi), turn)


def shaken_path(strength: float, generator: np.random.Generator) -> np.ndarray:
    """Returns the PSF of a hand that shakes: a smoothed random walk of 1 to 40 px, at uneven speed.

    Source: Boracchi and Foi, "Modeling the performance of image restoration from motion blur", IEEE
    TIP 21(8), 2012: random trajectories with inertia. Here the steps are normal numbers smoothed
    along the path, plus a mean movement.
    """
    points = 160
    steps = gaussian_filter1d(generator.standard_normal((2, points)), 16, axis=1, mode="nearest")
    steps += generator.uniform(0, 0.5) * generator.standard_normal((2, 1))
    length = 1 + (LENGTH - 1) * strength
    steps *= length / np.hypot(*steps).sum()
    path = steps.cumsum(axis=1)
    path -= path.mean(axis=1, keepdims=True)
    psf = splat(*path, np.ones(points), int(np.ceil(np.abs(path).max())) + 1)
    return psf / psf.sum()


def defocus(strength: float, generator: np.random.Generator) -> np.ndarray:
    """Returns the PSF of a lens out of focus: a disc of 0.3 to 9 px (Pentland, IEEE PAMI 9(4),
    1987).
    """
    return disc_psf(0.3 + (RADIUS - 0.3) * strength)


def gaussian(strength: float, generator: np.random.Generator) -> np.ndarray:
    """Returns the PSF of an anisotropic Gaussian: sigma 0.2 to 5 px along its longer axis, at any
    angle.

    Source: Zhang et al., "Designing a practical degradation model for deep blind image
    super-resolution", ICCV 2021. A third of them are isotropic; the shorter axis is 0.3 to 1 of the
    longer one.
    """
    long = 0.2 + (SIGMA - 0.2) * strength
    short = long * (1.0 if generator.random() < 1 / 3 else generator.uniform(0.3, 1))
    angle, r = generator.uniform(0, np.pi), int(np.ceil(3 * long)) + 1
    y, x = np.mgrid[-r : r + 1, -r : r + 1]
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    psf = np.exp(-0.5 * ((u / long) ** 2 + (v / short) ** 2))
    return psf / psf.sum()


PSFS: tuple[Psf, ...] = (straight_path, arc_path, shaken_path, defocus, gaussian)


# y = s(PSF * s^-1(x)), s the sRGB curve, or y = PSF * x
def blur(image: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Blur by one of PSFS, all alike.

    Half of the images are blurred in linear light, as a sensor does. The others are blurred on the
    sRGB values, as benchmarks that average frames do (Nah et al., CVPR 2017, discuss both).
    """
    if strength == 0:
        return image.copy()
    psf = PSFS[generator.integers(len(PSFS))](strength, generator)
    if generator.random() < 0.5:
        return linear_to_srgb(convolve(srgb_to_linear(image), psf))
    return np.clip(convolve(image, psf), 0, 1)
