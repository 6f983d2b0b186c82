"""Wide haze: Koschmieder's law in linear light or on the sRGB values, over many depths."""

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from lit_mimdit.data.degradations import draw_depth, linear_to_srgb, scatter, srgb_to_linear

THICKNESS = 2.6  # optical thickness at the depth's mean, at strength 1
AIRLIGHT = (0.6, 1.0)  # sRGB
TINT = 0.06
UNEVEN = 0.15  # deviation of an uneven airlight, relative


def flat(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One depth: what a tile of a far scene shows."""
    return np.ones(image.shape[:2], np.float32)


def sloped(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Returns a plane seen at an angle, in any direction, from 0.1 to 1 times the farthest
    depth.
    """
    height, width = image.shape[:2]
    angle, nearest = generator.uniform(0, 2 * np.pi), generator.uniform(0.1, 1)
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
    ramp = (1 + (x * np.cos(angle) + y * np.sin(angle)) / np.sqrt(2)) / 2
    return (nearest + (1 - nearest) * ramp).astype(np.float32)


def cloudy(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Haze in drifts: exp of an enlarged field of 3 to 8 normal numbers a side.

    Source: Guo et al., "Image dehazing transformer with transmission-aware 3D position embedding",
    CVPR 2022, name non-homogeneous haze; the field is that of `draw_depth`'s objects.
    """
    side = int(generator.integers(3, 9))
    field = Image.fromarray(generator.standard_normal((side, side), dtype=np.float32))
    field = field.resize(image.shape[1::-1], Image.Resampling.BICUBIC)
    return np.exp(generator.uniform(0.1, 0.6) * np.asarray(field))


def octaves(
    height: int, width: int, persistence: float, generator: np.random.Generator
) -> np.ndarray:
    """A fractal field (H, W) of mean 0 and deviation 1.

    It is the sum of enlarged fields of normal numbers, each twice as fine as the one before and
    `persistence` times as strong.
    """
    field = np.zeros((height, width), np.float32)
    amount, side = 1.0, int(generator.integers(2, 5))
    while side < max(height, width) / 2:
        layer = Image.fromarray(generator.standard_normal((side, side), dtype=np.float32))
        field += amount * np.asarray(layer.resize((width, height), Image.Resampling.BICUBIC))
        amount, side = amount * persistence, 2 * side
    return (field - field.mean()) / (field.std() + 1e-6)


def fractal(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Fog in clouds with detail of every size, and clear sight between them.

    Source: Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions
    and perturbations", ICLR 2019, whose fog is a fractal.
    """
    field = octaves(*image.shape[:2], generator.uniform(0.35, 0.75), generator)
    return np.maximum(1 + np.float32(generator.uniform(0.3, 1.6)) * field, 0.02)


def puffs(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Fog or smoke in 60 to 600 small discs with soft rims, most of them around one place.

    Source: Reeves, "Particle systems: a technique for modeling a class of fuzzy objects", ACM TOG
    2(2), 1983, draws what has no surface as many overlapping particles.
    """
    height, width = image.shape[:2]
    side = max(height, width)
    count = round(60 * 10 ** generator.random())
    middle = generator.uniform(0.2, 0.8, 2) * (height, width)
    places = generator.normal(middle, generator.uniform(0.15, 0.6) * side, (count, 2))
    radii = generator.uniform(0.3, 1, count) * generator.uniform(0.05, 0.2) * side
    field = np.full((height, width), 0.01 * count, np.float32)
    for (y, x), radius in zip(places, radii, strict=True):
        top, left = max(0, int(y - radius)), max(0, int(x - radius))
        part = field[top : max(0, int(y + radius) + 2), left : max(0, int(x + radius) + 2)]
        rows = np.arange(top, top + part.shape[0])[:, None]
        columns = np.arange(left, left + part.shape[1])
        part += (rows - y) ** 2 + (columns - x) ** 2 < radius**2
    return gaussian_filter(field, generator.uniform(0.5, 4))


def ground(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Returns the open scene of `draw_depth`: a ground plane up to its horizon."""
    return draw_depth(*image.shape[:2], generator)


def layered(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Near and far things that end at edges of the image.

    What is brighter, or darker, than the image's median lies farther. Depth then has edges where
    the scene has, as with a measured depth (RESIDE: Li et al., IEEE TIP 28(1), 2019).
    """
    smooth = gaussian_filter(image.mean(2), generator.uniform(1, 4))
    side = generator.choice((-1.0, 1.0)) / generator.uniform(0.02, 0.15)
    far = 1 / (1 + np.exp(side * (np.median(smooth) - smooth)))
    return (generator.uniform(0.1, 0.9) + far).astype(np.float32) * sloped(image, generator)


DEPTHS = (flat, sloped, cloudy, fractal, ground, layered, fractal, puffs, puffs)


def haze(image: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Haze I = J t + A (1 - t), t = exp(-beta d), over one of DEPTHS.

    Fractals and puffs are drawn twice as often as the others. The depth has mean 1 and beta goes up
    to 2.6. Half of the images are in linear light (Narasimhan and Nayar, IJCV 48(3), 2002). The
    others are on the sRGB values, as RESIDE's are (Li et al., IEEE TIP 28(1), 2019, A in 0.7 to 1).
    Airlight is 0.6 to 1, each channel within 6 % of grey. In three of ten images it is uneven, as
    in the fog of Hendrycks and Dietterich, ICLR 2019.
    """
    depth = DEPTHS[generator.integers(len(DEPTHS))](image, generator)
    depth = depth / depth.mean()
    airlight = generator.uniform(*AIRLIGHT) * (1 + generator.uniform(-TINT, TINT, 3))
    if generator.random() < 0.3:
        field = octaves(*image.shape[:2], 0.5, generator)[..., None]
        airlight = airlight * (1 + generator.uniform(0, UNEVEN) * field)
    airlight = np.clip(airlight, 0, 1).astype(np.float32)
    beta = THICKNESS * strength
    if generator.random() < 0.5:
        return linear_to_srgb(scatter(srgb_to_linear(image), depth, beta, srgb_to_linear(airlight)))
    return np.clip(scatter(image, depth, beta, airlight), 0, 1)
