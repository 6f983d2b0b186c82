"""Wide noise: white, speckle, impulses, signal-dependent, a camera's correlated, and coloured."""

import numpy as np
from scipy.ndimage import uniform_filter

from lit_mimdit.data.degradations import linear_to_srgb, poissonian_gaussian, srgb_to_linear

SIGMA = 60 / 255  # of sRGB noise at strength 1
SPECKLE = 0.6  # deviation of a pixel's factor at strength 1
IMPULSES = 0.3  # share of pixels that are lost at strength 1
# Rec. 601 (ITU-R BT.601): RGB of luma and the two colour differences
YCC_TO_RGB = np.array([[1, 1, 1], [0, -0.344136, 1.772], [1.402, -0.714136, 0]], np.float32)


def white(image: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """White Gaussian noise on the sRGB values, y = x + N(0, sigma^2), sigma 0 to 60/255."""
    noise = generator.standard_normal(image.shape, dtype=np.float32)
    return np.clip(image + np.float32(strength * SIGMA) * noise, 0, 1)


def shot_levels(strength: float, generator: np.random.Generator) -> tuple[float, float]:
    """Draw a and b of the variance a x + b in linear light; both are 0 at strength 0.

    a goes up to 0.08 full scales an electron, the read-out's sqrt(b) up to 0.015 full scales; the
    share of each is drawn.
    """
    a = 0.08 * strength**2 * generator.uniform(0.3, 1)
    return a, (0.015 * strength * generator.uniform(0.1, 1)) ** 2


def sensor(image: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Poisson-Gaussian noise of variance a x + b in linear light, pixels and channels independent.

    Source: Foi et al., "Practical Poissonian-Gaussian noise modeling and fitting for single-image
    raw-data", IEEE TIP 17(10), 2008. Above 100 electrons full scale the Poisson part is drawn as a
    normal number, which is that paper's own approximation.
    """
    if strength == 0:
        return image.copy()
    a, b = shot_levels(strength, generator)
    light = srgb_to_linear(image)
    if a > 0.01:
        return linear_to_srgb(poissonian_gaussian(light, a, b, generator))
    noise = generator.standard_normal(image.shape, dtype=np.float32)
    return linear_to_srgb(light + np.sqrt(np.float32(a) * light + np.float32(b)) * noise)


def demosaicked(noise: np.ndarray) -> np.ndarray:
    """Returns what bilinear demosaicking makes of white noise (H, W, 3) on a Bayer sensor (RGGB).

    Each channel keeps the values at its own sites; the others are means of their neighbours there.
    """
    sites = np.zeros(noise.shape, np.float32)
    sites[0::2, 0::2, 0] = 1
    sites[0::2, 1::2, 1] = sites[1::2, 0::2, 1] = 1
    sites[1::2, 1::2, 2] = 1
    kernel = np.outer((0.5, 1, 0.5), (0.5, 1, 0.5)).astype(np.float32)
    total, weight = (_separable(plane, kernel[1]) for plane in (noise * sites, sites))
    return np.where(sites > 0, noise, total / np.maximum(weight, 1e-6)).astype(np.float32)


def _separable(planes: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """(H, W, C) filtered by three taps along both sides, 0 beyond the border."""
    for axis in (0, 1):
        padded = np.pad(planes, [(1, 1) if a == axis else (0, 0) for a in range(3)])
        n = planes.shape[axis]
        planes = sum(t * np.take(padded, range(i, i + n), axis) for i, t in enumerate(taps))
    return planes


def camera(image: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Noise of a camera's pipeline: signal-dependent in linear light, then demosaicked.

    Source: Guo et al., "Toward convolutional blind denoising of real photographs", CVPR 2019, which
    adds variance a x + b to the mosaic, demosaicks and encodes. Neighbouring pixels are then
    correlated.
    """
    if strength == 0:
        return image.copy()
    a, b = shot_levels(strength, generator)
    light = srgb_to_linear(image)
    noise = generator.standard_normal(image.shape, dtype=np.float32)
    noise *= np.sqrt(np.float32(a) * light + np.float32(b))
    return linear_to_srgb(light + demosaicked(noise))


def coloured(image: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Correlated luma noise and coarser chroma noise on the sRGB values.

    Luma is a mean of 1 to 3 pixels a side and chroma of 1 to 5. Each is brought back to its
    deviation of up to 60/255, and the shares of both are drawn. A camera's noise looks like this
    once its own noise reduction has smoothed it. Nam et al., "A holistic approach to cross-channel
    image noise modeling", CVPR 2016, measure both correlations.
    """
    luma, chroma = generator.uniform(0, 1), generator.uniform(0, 1)
    sides = (int(generator.integers(1, 4)), *[int(generator.integers(1, 6))] * 2)
    scale = strength * SIGMA / max(luma, chroma)
    planes = generator.standard_normal(image.shape, dtype=np.float32)
    for c, (side, share) in enumerate(zip(sides, (luma, chroma, chroma), strict=True)):
        if side > 1:
            planes[..., c] = side * uniform_filter(planes[..., c], side, mode="wrap")
        planes[..., c] *= np.float32(scale * share * (1.0 if c == 0 else 0.6))
    return np.clip(image + planes @ YCC_TO_RGB, 0, 1)


# y = x (1 + n),  n ~ N(0, sigma^2)
def speckle(image: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Noise that grows with the sRGB value; sigma goes up to 0.6.

    Source: Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions
    and perturbations", ICLR 2019.
    """
    noise = generator.standard_normal(image.shape, dtype=np.float32)
    return np.clip(image * (1 + np.float32(SPECKLE * strength) * noise), 0, 1)


def impulse(image: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Salt and pepper: up to 0.3 of the pixels become white or black.

    The share that is salt is 0, 1 or drawn. Half of the images lose whole pixels, the others single
    channels. Source: Hendrycks and Dietterich, ICLR 2019 (shares of 0.03 to 0.27).
    """
    lost, salt = IMPULSES * strength, generator.choice((0.0, 1.0, generator.random()))
    shape = image.shape if generator.random() < 0.5 else (*image.shape[:2], 1)
    hit = generator.random(shape, dtype=np.float32) < lost
    value = generator.random(shape, dtype=np.float32) < salt
    return np.where(hit, value, image).astype(np.float32)


MODELS = (white, sensor, camera, coloured, speckle, impulse)


def noise(image: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Noise of one of MODELS, all alike."""
    return MODELS[generator.integers(len(MODELS))](image, strength, generator)
