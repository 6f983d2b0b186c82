"""Rain that falls through a scene, and drops that sit on the lens."""

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.signal import fftconvolve

from lit_mimdit.data.degradations.light import linear_to_srgb, srgb_to_linear
from lit_mimdit.data.degradations.optics import splat
from lit_mimdit.data.severity import Severity, check, draw

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
    """Adds rain: layers of motion-blurred drops over a veil, in linear light.

        I = (1 - o) (J (1 - v) + E v) + o E

    o is the opacity of the streaks, and v the veil of the drops too far to be seen one by one. E is
    the environment's light. A falling drop refracts nearly the whole sky, so it is brighter than
    what it covers.

    By severity there are 0.8-1.2, 2.2-2.8 or 5-6 times RAIN_LAYERS of streaks. v is 0.02-0.04,
    0.06-0.1 or 0.14-0.2. Drops fall within +-23 degrees of the vertical.

    Sources: Garg and Nayar, "Vision and rain", IJCV 75(1), 2007 (drops, transparency by motion
    blur); Yang et al., "Deep joint rain detection and removal from a single image", CVPR 2017
    (overlapping layers and accumulation).
    """
    check(image, severity)
    amount = draw({"light": (0.8, 1.2), "medium": (2.2, 2.8), "heavy": (5, 6)}, severity, generator)
    veil = draw(
        {"light": (0.02, 0.04), "medium": (0.06, 0.1), "heavy": (0.14, 0.2)}, severity, generator
    )
    light = srgb_to_linear(image)
    environment = np.clip(np.percentile(light.mean(2), 99), 0.35, 0.9)
    opacity = rain_opacity(*image.shape[:2], amount, generator)[..., None]
    misty = light * (1 - veil) + environment * veil
    return linear_to_srgb(misty * (1 - opacity) + environment * opacity)


def raindrop(image: np.ndarray, severity: Severity, generator: np.random.Generator) -> np.ndarray:
    """Puts drops on the lens or window, in linear light.

        I = (1 - m) J + m R

    m is the drops' soft mask, and R the scene through them.

    A drop is a small wide-angle lens far out of focus. So R is the scene around it, upside down,
    reduced and blurred, and darker at the rim.

    By severity the drops cover 7-10, 16-22 or 32-40 % of the image, where overlaps count twice.
    Their radius is 1.5-9 % of the shorter side, and small ones are more frequent.

    Sources: Qian et al., "Attentive generative adversarial network for raindrop removal from a
    single image", CVPR 2018 (the sum); You et al., "Adherent raindrop modeling, detection and
    removal in video", IEEE PAMI 38(9), 2016 (the optics).
    """
    check(image, severity)
    height, width = image.shape[:2]
    side = min(height, width)
    covered = (
        draw(
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
