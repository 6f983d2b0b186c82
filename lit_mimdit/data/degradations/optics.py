"""Optics: blur by convolution with a point spread function (PSF)."""

import numpy as np
from scipy.signal import fftconvolve

from lit_mimdit.data.degradations.light import linear_to_srgb, srgb_to_linear
from lit_mimdit.data.severity import Severity, check, draw


def convolve(light: np.ndarray, psf: np.ndarray) -> np.ndarray:
    """Convolve (H, W, 3) linear light with a PSF (k, k), k odd, by FFT; the scene is mirrored
    beyond the border.
    """
    r = psf.shape[0] // 2
    padded = np.pad(light, ((r, r), (r, r), (0, 0)), mode="symmetric")
    return fftconvolve(padded, psf[..., None].astype(np.float32), mode="valid", axes=(0, 1))


def splat(x: np.ndarray, y: np.ndarray, weight: np.ndarray, radius: int) -> np.ndarray:
    """Deposit weights at real-valued positions (x right, y down, pixels from the centre) bilinearly
    on a (2 radius + 1) square grid.
    """
    size = 2 * radius + 1
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = x - column, y - row
    grid = np.zeros(size * size)
    for dy, wy in ((0, 1 - fy), (1, fy)):
        for dx, wx in ((0, 1 - fx), (1, fx)):
            index = (row + radius + dy) * size + column + radius + dx
            grid += np.bincount(index, weight * wy * wx, minlength=size * size)
    return grid.reshape(size, size)


def motion_psf(length: float, angle: float, turn: float) -> np.ndarray:
    """Returns the PSF of a camera that moves along an arc at constant speed.

    It is (k, k) with odd k, non-negative, of sum 1, and centred on its centre of mass.

    Args:
        length: arc length, pixels.
        angle: mean direction, radians from the x axis.
        turn: change of direction from the start to the end of the exposure, radians; 0 is a
            straight line.
    """
    s = np.linspace(-0.5, 0.5, max(int(8 * length), 2))
    direction = angle + turn * s
    x, y = (np.cumsum(f(direction)) * length / len(s) for f in (np.cos, np.sin))
    x, y = x - x.mean(), y - y.mean()
    psf = splat(x, y, np.ones_like(s), int(np.ceil(max(np.abs(x).max(), np.abs(y).max()))) + 1)
    return psf / psf.sum()


def motion_blur(
    image: np.ndarray, severity: Severity, generator: np.random.Generator
) -> np.ndarray:
    """Camera shake: y = PSF * x in linear light, the PSF the path of a point over the sensor during
    the exposure.

    Source: Boracchi and Foi, "Modeling the performance of image restoration from motion blur", IEEE
    TIP 21(8), 2012; the path here is an arc at constant speed, uniform over the image. Length 7-11,
    15-21, 27-36 px (light, medium, heavy), any direction, turn within +-60 degrees.
    """
    check(image, severity)
    length = draw({"light": (7, 11), "medium": (15, 21), "heavy": (27, 36)}, severity, generator)
    psf = motion_psf(length, generator.uniform(0, np.pi), generator.uniform(-np.pi / 3, np.pi / 3))
    return linear_to_srgb(convolve(srgb_to_linear(image), psf))


def disc_psf(radius: float) -> np.ndarray:
    """Uniform disc of a real-valued radius in pixels, (k, k), k odd, sum 1.

    Its edge is anti-aliased over one pixel.
    """
    r = int(np.ceil(radius)) + 1
    distance = np.hypot(*np.mgrid[-r : r + 1, -r : r + 1])
    psf = np.clip(radius + 0.5 - distance, 0, 1)
    return psf / psf.sum()


def defocus_blur(
    image: np.ndarray, severity: Severity, generator: np.random.Generator
) -> np.ndarray:
    """Defocus: y = PSF * x in linear light, the PSF a uniform disc, the circle of confusion of a
    thin lens with a round aperture.

    Source: geometric optics, e.g. Pentland, "A new sense for depth of field", IEEE PAMI 9(4), 1987;
    one depth for the whole image. Radius 2-3, 4-5.5, 7-9 px.
    """
    check(image, severity)
    radius = draw({"light": (2, 3), "medium": (4, 5.5), "heavy": (7, 9)}, severity, generator)
    return linear_to_srgb(convolve(srgb_to_linear(image), disc_psf(radius)))


def blur(image: np.ndarray, severity: Severity, generator: np.random.Generator) -> np.ndarray:
    """Motion blur or defocus, one or the other with equal chance."""
    return (motion_blur if generator.random() < 0.5 else defocus_blur)(image, severity, generator)
