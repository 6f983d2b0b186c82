"""Exposure and sensor: noise, and too little light."""

import numpy as np

from lit_mimdit.data.degradations.light import linear_to_srgb, srgb_to_linear
from lit_mimdit.data.severity import Severity, check, draw


def poissonian_gaussian(
    light: np.ndarray, a: float, b: float, generator: np.random.Generator
) -> np.ndarray:
    """Raw noise of variance a y + b on linear light y: a Poisson(y / a) + N(0, b) (Foi et al. 2008,
    eq. 1-3); not clipped.

    Args:
        light: any shape, >= 0, full scale 1.
        a: full scales for each photo-electron, > 0: a pixel of light y caught y / a of them.
        b: variance of the signal-independent part (read-out), full scales squared, >= 0.
    """
    shot = a * generator.poisson(light / a)
    return (shot + np.sqrt(b) * generator.standard_normal(light.shape, dtype=np.float32)).astype(
        np.float32
    )


def sensor_noise(
    image: np.ndarray, severity: Severity, generator: np.random.Generator
) -> np.ndarray:
    """Photon and read-out noise in linear light: y = a Poisson(x / a) + N(0, b), variance a x + b,
    then clipped and sRGB-encoded.

    Source: Foi, Trimeche, Katkovnik and Egiazarian, "Practical Poissonian-Gaussian noise modeling
    and fitting for single-image raw-data", IEEE TIP 17(10), 2008. Independent pixels and channels:
    no demosaicking. a 0.004-0.008, 0.015-0.03, 0.05-0.09 full scales an electron; sqrt(b)
    0.001-0.002, 0.003-0.005, 0.007-0.012 full scales.
    """
    check(image, severity)
    a = draw(
        {"light": (0.004, 0.008), "medium": (0.015, 0.03), "heavy": (0.05, 0.09)},
        severity,
        generator,
    )
    read = draw(
        {"light": (0.001, 0.002), "medium": (0.003, 0.005), "heavy": (0.007, 0.012)},
        severity,
        generator,
    )
    return linear_to_srgb(poissonian_gaussian(srgb_to_linear(image), a, read**2, generator))


def gaussian_noise(
    image: np.ndarray, severity: Severity, generator: np.random.Generator
) -> np.ndarray:
    """Additive white Gaussian noise on the sRGB values, y = x + N(0, sigma^2), clipped: the
    denoising benchmarks' convention.

    sigma 8-15, 20-30, 40-55 in units of 1/255.
    """
    check(image, severity)
    sigma = (
        draw({"light": (8, 15), "medium": (20, 30), "heavy": (40, 55)}, severity, generator) / 255
    )
    noise = sigma * generator.standard_normal(image.shape, dtype=np.float32)
    return np.clip(image + noise, 0, 1).astype(np.float32)


def noise(image: np.ndarray, severity: Severity, generator: np.random.Generator) -> np.ndarray:
    """Sensor noise or Gaussian noise, one or the other with equal chance."""
    return (sensor_noise if generator.random() < 0.5 else gaussian_noise)(
        image, severity, generator
    )


def low_light(
    image: np.ndarray, severity: Severity, generator: np.random.Generator, grain: float = 1.0
) -> np.ndarray:
    """Too short an exposure: y = srgb(noise(k x))^gamma, x in linear light, k the exposure, noise
    as in `sensor_noise`.

    Sources: exposure ratio in linear light, Chen et al., "Learning to see in the dark", CVPR 2018;
    gamma for the darker tone curve, Lv, Li and Lu, "Attention guided low-light image enhancement
    with a large scale low-light simulation dataset", IJCV 129, 2021. 1/k is 3-5, 8-13, 22-34
    (FoundIR's published low-light example: 31); gamma 1-1.2; a 1e-4, 2e-4, 4e-4 full scales an
    electron; sqrt(b) 0.0005, 0.0008, 0.0012 full scales.

    Args:
        image: (H, W, 3) in [0, 1].
        severity: light, medium or heavy.
        generator: source of every random draw.
        grain: share of the noise, in [0, 1], that the camera's own noise reduction leaves; one that
            spares every edge is assumed.
    """
    check(image, severity)
    if not 0 <= grain <= 1:
        raise ValueError(f"grain is {grain}: it is a share, from 0 to 1")
    ratio = draw({"light": (3, 5), "medium": (8, 13), "heavy": (22, 34)}, severity, generator)
    gamma = generator.uniform(1, 1.2)
    a = {"light": 1e-4, "medium": 2e-4, "heavy": 4e-4}[severity]
    read = {"light": 0.0005, "medium": 0.0008, "heavy": 0.0012}[severity]
    light = srgb_to_linear(image) / ratio
    noisy = poissonian_gaussian(light, a, read**2, generator)
    if grain < 1:
        noisy = light + np.float32(grain) * (noisy - light)
    return linear_to_srgb(noisy) ** np.float32(gamma)
