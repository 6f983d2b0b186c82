"""Physical degradations of a photograph, each by itself; `composition` puts them together.

Every degradation is a pure function `(image, severity, generator) -> image`. The image is a float32
array (H, W, 3) of sRGB-encoded RGB in [0, 1]. The severity is light, medium or heavy, and the
generator is numpy's. The input is never changed, and the output has its shape, dtype and range. The
same seed gives the same bits.

Scatter, blur, exposure and photon noise happen to light, and are computed in linear light. Additive
Gaussian noise and JPEG happen to the coded image, and are computed on the sRGB values. Lengths are
pixels of the image as given.
"""

from lit_mimdit.data.degradations.air import draw_depth, haze, scatter
from lit_mimdit.data.degradations.encoder import jpeg, jpeg_quality
from lit_mimdit.data.degradations.light import linear_to_srgb, srgb_to_linear, to_uint8
from lit_mimdit.data.degradations.optics import (
    blur,
    convolve,
    defocus_blur,
    disc_psf,
    motion_blur,
    motion_psf,
    splat,
)
from lit_mimdit.data.degradations.sensor import (
    gaussian_noise,
    low_light,
    noise,
    poissonian_gaussian,
    sensor_noise,
)
from lit_mimdit.data.degradations.water import RAIN_LAYERS, rain, rain_opacity, raindrop
from lit_mimdit.data.severity import SEVERITIES, Severity, check, check_severity

__all__ = [
    "RAIN_LAYERS",
    "SEVERITIES",
    "Severity",
    "blur",
    "check",
    "check_severity",
    "convolve",
    "defocus_blur",
    "disc_psf",
    "draw_depth",
    "gaussian_noise",
    "haze",
    "jpeg",
    "jpeg_quality",
    "linear_to_srgb",
    "low_light",
    "motion_blur",
    "motion_psf",
    "noise",
    "poissonian_gaussian",
    "rain",
    "rain_opacity",
    "raindrop",
    "scatter",
    "sensor_noise",
    "splat",
    "srgb_to_linear",
    "to_uint8",
]
