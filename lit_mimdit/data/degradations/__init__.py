"""Physical degradations of a photograph, each by itself; `composition` puts them together.

Every degradation is a pure function ``(image, severity, generator) -> image``: ``image`` is a
float32 array (H, W, 3), sRGB-encoded RGB in [0, 1], ``severity`` one of light, medium, heavy,
``generator`` a numpy Generator. The input is never changed, the output has its shape, dtype and
range, and the same seed gives the same bits.

What happens to light (scatter, blur, exposure, photon noise) is computed in linear light; what
happens to the coded image (additive Gaussian noise, JPEG) on the sRGB values. Lengths are pixels of
the image as given.
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
