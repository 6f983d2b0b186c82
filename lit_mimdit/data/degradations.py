"""Physical degradations of a photograph, each by itself; `composition` puts them together.

Every degradation is a pure function ``(image, severity, generator) -> image``: ``image`` is a
float32 array (H, W, 3), sRGB-encoded RGB in [0, 1], ``severity`` one of light, medium, heavy,
``generator`` a numpy Generator. The input is never changed, the output has its shape, dtype and
range, and the same seed gives the same bits.

What happens to light (scatter, blur, exposure, photon noise) is computed in linear light; what
happens to the coded image (additive Gaussian noise, JPEG) on the sRGB values. Lengths are pixels of
the image as given.
"""

from __future__ import annotations

import io
from typing import Literal, get_args

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.signal import fftconvolve

Severity = Literal["light", "medium", "heavy"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
Range = tuple[float, float]


def srgb_to_linear(image: np.ndarray) -> np.ndarray:
    """Decode sRGB values in [0, 1] to linear light in [0, 1] (IEC 61966-2-1)."""
    return np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4).astype(
        np.float32
    )


def linear_to_srgb(light: np.ndarray) -> np.ndarray:
    """Encode linear light as sRGB values in [0, 1] (IEC 61966-2-1); light outside [0, 1] is clipped
    as a sensor clips it.
    """
    light = np.clip(light, 0, 1)
    return (
        np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
        .clip(0, 1)
        .astype(np.float32)
    )


def check_severity(severity: str) -> None:
    """Raise ValueError unless ``severity`` is one of SEVERITIES."""
    if severity not in SEVERITIES:
        raise ValueError(f"unknown severity {severity!r}: choose from {', '.join(SEVERITIES)}")


def check(image: np.ndarray, severity: str) -> None:
    check_severity(severity)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype.kind != "f":
        raise ValueError(
            f"image must be a float array (H, W, 3), got {image.dtype} {image.shape}: convert to"
            " RGB and divide by 255"
        )
    if not (image.min() >= 0 and image.max() <= 1):
        raise ValueError(f"image must lie in [0, 1], got [{image.min()}, {image.max()}]")


def _draw(ranges: dict[str, Range], severity: str, generator: np.random.Generator) -> float:
    return float(generator.uniform(*ranges[severity]))


# --- Optics: blur by convolution with a point spread function (PSF) -------------------------------


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
    """Returns the PSF of a camera that moves along an arc at constant speed: (k, k), k odd,
    non-negative, sum 1, centred on its centre of mass.

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
    length = _draw({"light": (7, 11), "medium": (15, 21), "heavy": (27, 36)}, severity, generator)
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
    radius = _draw({"light": (2, 3), "medium": (4, 5.5), "heavy": (7, 9)}, severity, generator)
    return linear_to_srgb(convolve(srgb_to_linear(image), disc_psf(radius)))


def blur(image: np.ndarray, severity: Severity, generator: np.random.Generator) -> np.ndarray:
    """Motion blur or defocus, one or the other with equal chance."""
    return (motion_blur if generator.random() < 0.5 else defocus_blur)(image, severity, generator)


# --- Exposure and sensor --------------------------------------------------------------------------


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
    a = _draw(
        {"light": (0.004, 0.008), "medium": (0.015, 0.03), "heavy": (0.05, 0.09)},
        severity,
        generator,
    )
    read = _draw(
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
        _draw({"light": (8, 15), "medium": (20, 30), "heavy": (40, 55)}, severity, generator) / 255
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
    ratio = _draw({"light": (3, 5), "medium": (8, 13), "heavy": (22, 34)}, severity, generator)
    gamma = generator.uniform(1, 1.2)
    a = {"light": 1e-4, "medium": 2e-4, "heavy": 4e-4}[severity]
    read = {"light": 0.0005, "medium": 0.0008, "heavy": 0.0012}[severity]
    light = srgb_to_linear(image) / ratio
    noisy = poissonian_gaussian(light, a, read**2, generator)
    if grain < 1:
        noisy = light + np.float32(grain) * (noisy - light)
    return linear_to_srgb(noisy) ** np.float32(gamma)


# --- Scene and lens -------------------------------------------------------------------------------


def draw_depth(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    """Depth of an imagined open scene, (H, W) float32 in (0, 1], 1 the farthest point.

    A ground plane seen in perspective, depth ~ 1 / (rows below the horizon), farthest from the
    horizon upwards, its log perturbed by a low-frequency field (bicubically enlarged 5 x 5 normal
    values) that stands for the objects on it.
    """
    horizon = generator.uniform(-0.1, 0.4)
    nearest = generator.uniform(0.12, 0.35)  # depth at the lower border, of the farthest
    slope = generator.uniform(-0.12, 0.12)  # a horizon that is not level
    objects = Image.fromarray(generator.standard_normal((5, 5), dtype=np.float32)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    column, row = np.linspace(-0.5, 0.5, width)[None], np.linspace(0, 1, height)[:, None]
    below = (row - horizon - slope * column) / (1 - horizon)
    below = (below + np.hypot(below, 0.25)) / 2  # no crease at the horizon
    depth = np.exp(0.15 * np.asarray(objects)) / (1 + (1 / nearest - 1) * below)
    return (depth / depth.max()).astype(np.float32)


def scatter(
    light: np.ndarray, depth: np.ndarray, beta: float, airlight: np.ndarray | float
) -> np.ndarray:
    """Atmospheric scattering I = J t + A (1 - t), t = exp(-beta d).

    J is light (H, W, 3), d depth (H, W), A the airlight in [0, 1].
    """
    t = np.exp(-beta * depth)[..., None]
    return (light * t + airlight * (1 - t)).astype(np.float32)


def haze(
    image: np.ndarray,
    severity: Severity,
    generator: np.random.Generator,
    depth: np.ndarray | None = None,
) -> np.ndarray:
    """Haze: I = J t + A (1 - t), t = exp(-beta d), in linear light.

    Source: Koschmieder's law, as in Narasimhan and Nayar, "Vision and the atmosphere", IJCV 48(3),
    2002. beta, the optical thickness at depth 1: 0.45-0.65, 1-1.3, 2-2.5; airlight A, lit as the
    scene is, 0.7-0.95 of its 99th percentile (at least 0.2) and within 3 % of grey in each channel.

    Args:
        image: (H, W, 3) in [0, 1].
        severity: light, medium or heavy.
        generator: source of every random draw.
        depth: (H, W) >= 0, finite, in units of the farthest point (1 is far); None draws one with
            `draw_depth`.
    """
    check(image, severity)
    beta = _draw(
        {"light": (0.45, 0.65), "medium": (1.0, 1.3), "heavy": (2.0, 2.5)}, severity, generator
    )
    light = srgb_to_linear(image)
    airlight = (
        max(np.percentile(light, 99), 0.2)
        * generator.uniform(0.7, 0.95)
        * generator.uniform(0.97, 1.03, 3)
    )
    if depth is None:
        depth = draw_depth(*image.shape[:2], generator)
    if depth.shape != image.shape[:2] or not (np.isfinite(depth).all() and depth.min() >= 0):
        raise ValueError(
            f"depth must be finite, >= 0 and of the image's size {image.shape[:2]}, got"
            f" {depth.shape}: crop or fill it"
        )
    return linear_to_srgb(scatter(light, depth, beta, airlight))


# One row a layer, far to near: streak length (px), half width (px, sigma), streaks on 100 x 100 px,
# opacity at the streak's centre.
RAIN_LAYERS = (
    (9, 0.45, 10.0, 0.16),
    (17, 0.6, 5.0, 0.24),
    (30, 0.8, 1.6, 0.30),
    (52, 1.2, 0.35, 0.30),
)


def rain_opacity(
    height: int, width: int, amount: float, generator: np.random.Generator
) -> np.ndarray:
    """Returns the opacity (H, W) in [0, 1) of the RAIN_LAYERS, ``amount`` times as many streaks as
    listed there.
    """
    angle = np.pi / 2 + generator.uniform(
        -0.4, 0.4
    )  # of the fall, radians from the x axis; wind leans it
    thickness = np.zeros((height, width), np.float32)
    for length, sigma, density, opacity in RAIN_LAYERS:
        length *= generator.uniform(0.8, 1.25)
        s = np.linspace(-0.5, 0.5, int(8 * length))
        direction, r = angle + generator.normal(0, 0.03), int(length / 2 + 4 * sigma) + 2
        # A drop enters and leaves the exposure out of focus: the ends of its streak fade.
        streak = splat(
            s * length * np.cos(direction),
            s * length * np.sin(direction),
            np.cos(np.pi * s) ** 2,
            r,
        )
        streak = gaussian_filter(streak, sigma)
        drops = np.zeros((height + 2 * r, width + 2 * r), np.float32)
        count = generator.poisson(amount * density * drops.size / 1e4)
        brightness = opacity * generator.gamma(
            2, 0.5, count
        )  # mean: opacity; few bright drops among many faint ones
        np.add.at(
            drops,
            (
                generator.integers(drops.shape[0], size=count),
                generator.integers(drops.shape[1], size=count),
            ),
            brightness,
        )
        thickness += fftconvolve(drops, (streak / streak.max()).astype(np.float32), mode="valid")
    return 1 - np.exp(-np.maximum(thickness, 0))


def rain(image: np.ndarray, severity: Severity, generator: np.random.Generator) -> np.ndarray:
    """Rain: layers of motion-blurred drops over a veil, I = (1 - o) (J (1 - v) + E v) + o E, in
    linear light.

    o is the opacity of the streaks, v the veil of the drops too far to be seen one by one, E the
    environment's light: a falling drop refracts nearly the whole sky, so it is brighter than what
    it covers. Sources: Garg and Nayar, "Vision and rain", IJCV 75(1), 2007 (drops, transparency by
    motion blur); Yang et al., "Deep joint rain detection and removal from a single image", CVPR
    2017 (overlapping layers and accumulation). Streaks 0.8-1.2, 2.2-2.8, 5-6 times RAIN_LAYERS; v
    0.02-0.04, 0.06-0.1, 0.14-0.2; fall within +-23 degrees of the vertical.
    """
    check(image, severity)
    amount = _draw(
        {"light": (0.8, 1.2), "medium": (2.2, 2.8), "heavy": (5, 6)}, severity, generator
    )
    veil = _draw(
        {"light": (0.02, 0.04), "medium": (0.06, 0.1), "heavy": (0.14, 0.2)}, severity, generator
    )
    light = srgb_to_linear(image)
    environment = np.clip(np.percentile(light.mean(2), 99), 0.35, 0.9)
    opacity = rain_opacity(*image.shape[:2], amount, generator)[..., None]
    misty = light * (1 - veil) + environment * veil
    return linear_to_srgb(misty * (1 - opacity) + environment * opacity)


def raindrop(image: np.ndarray, severity: Severity, generator: np.random.Generator) -> np.ndarray:
    """Drops on the lens or window: I = (1 - m) J + m R, m the drops' soft mask, R the scene through
    them, in linear light.

    A drop is a small wide-angle lens far out of focus: R is the scene around it upside down,
    reduced and blurred, darker at the rim. Sources: Qian et al., "Attentive generative adversarial
    network for raindrop removal from a single image", CVPR 2018 (the sum); You et al., "Adherent
    raindrop modeling, detection and removal in video", IEEE PAMI 38(9), 2016 (the optics). Covered
    part of the image (overlaps counted twice) 7-10, 16-22, 32-40 %; drop radius 1.5-9 % of the
    shorter side, small ones more often.
    """
    check(image, severity)
    height, width = image.shape[:2]
    side = min(height, width)
    covered = (
        _draw(
            {"light": (0.07, 0.10), "medium": (0.16, 0.22), "heavy": (0.32, 0.40)},
            severity,
            generator,
        )
        * height
        * width
    )
    light = srgb_to_linear(image)
    scene = gaussian_filter(light, (0.015 * side, 0.015 * side, 0))
    output = light.copy()
    while covered > 0:
        radius = side * (0.015 + 0.075 * generator.beta(1, 3))
        covered -= np.pi * radius**2
        y0, x0 = generator.uniform(0, height), generator.uniform(0, width)
        lobes, phase = generator.uniform(0, (0.2, 0.15, 0.1)), generator.uniform(0, 2 * np.pi, 3)
        reach = 1.6 * radius + 1
        rows = np.arange(max(int(y0 - reach), 0), min(int(y0 + reach) + 1, height))
        columns = np.arange(max(int(x0 - reach), 0), min(int(x0 + reach) + 1, width))
        y, x = (rows[:, None] - y0) / radius, (columns[None] - x0) / radius
        theta = np.arctan2(y, x)
        rim = 1 + sum(a * np.cos(k * theta + p) for k, a, p in zip((1, 2, 3), lobes, phase))
        q = np.hypot(y, x) / rim  # 0 in the middle of the drop, 1 at its rim
        mask = np.clip((1.1 - q) / 0.45, 0, 1)
        mask = (mask * mask * (3 - 2 * mask))[..., None]
        span = 0.3 * side * (0.7 + 0.3 * np.minimum(q, 1) ** 2)
        seen = [
            map_coordinates(scene[..., c], (y0 - span * y, x0 - span * x), order=1, mode="mirror")
            for c in range(3)
        ]
        shade = 1.05 - 0.3 * np.minimum(q, 1)[..., None] ** 4
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        output[window] += mask * (np.stack(seen, 2) * shade - output[window])
    return linear_to_srgb(output)


# --- Encoder --------------------------------------------------------------------------------------


def jpeg_quality(severity: Severity, generator: np.random.Generator) -> int:
    """Draw a libjpeg quality factor: 20-28 (light), 12-16 (medium), 6-9 (heavy)."""
    check_severity(severity)
    low, high = {"light": (20, 28), "medium": (12, 16), "heavy": (6, 9)}[severity]
    return int(generator.integers(low, high, endpoint=True))


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Round values in [0, 1] to 8 bits."""
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def jpeg(image: np.ndarray, severity: Severity, generator: np.random.Generator) -> np.ndarray:
    """Encode and decode as JPEG (ITU-T T.81) by libjpeg through Pillow.

    Chroma is 4:2:0, the quality as drawn by `jpeg_quality`.
    """
    check(image, severity)
    file = io.BytesIO()
    Image.fromarray(to_uint8(image)).save(file, "JPEG", quality=jpeg_quality(severity, generator))
    return np.asarray(Image.open(file), np.float32) / np.float32(255)
