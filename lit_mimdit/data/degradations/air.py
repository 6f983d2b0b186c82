"""Haze: light that the air takes and adds on its way through a scene."""

import numpy as np
from PIL import Image

from lit_mimdit.data.degradations.light import linear_to_srgb, srgb_to_linear
from lit_mimdit.data.severity import Severity, check, draw


def draw_depth(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    """Draws the depth of an imagined open scene, (H, W) float32 in (0, 1], 1 the farthest point.

    The scene is a ground plane in perspective, whose depth goes as 1 / (rows below the horizon). It
    is farthest from the horizon upwards. A low-frequency field perturbs the log of the depth and
    stands for the objects on the plane. The field is 5 x 5 normal values, enlarged bicubically.
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
    2002.

    The optical thickness beta at depth 1 is 0.45-0.65, 1-1.3 or 2-2.5 by severity. The airlight A
    is lit as the scene is. It is 0.7-0.95 of the scene's 99th percentile, at least 0.2, and within
    3 % of grey in each channel.

    Args:
        image: (H, W, 3) in [0, 1].
        severity: light, medium or heavy.
        generator: source of every random draw.
        depth: (H, W) >= 0, finite, in units of the farthest point (1 is far); None draws one with
            `draw_depth`.
    """
    check(image, severity)
    beta = draw(
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
