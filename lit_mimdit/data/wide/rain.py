"""Wide rain: layered translucent drops, bright dense streaks, and hard lines as tools draw them."""

import numpy as np
from PIL import Image, ImageDraw
from scipy.fft import irfft2, next_fast_len, rfft2

from lit_mimdit.data.degradations import linear_to_srgb, rain_opacity, splat, srgb_to_linear

LAYER_AMOUNT = 6.5  # times RAIN_LAYERS at strength 1
VEIL = 0.25  # of the drops too far to be seen one by one, at strength 1


# I = (1 - o) (J (1 - v) + E v) + o E in linear light
def drops(image: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Layers of motion-blurred drops over a veil, in linear light.

    Sources: Garg and Nayar, "Vision and rain", IJCV 75(1), 2007; Yang et al., CVPR 2017. See
    `degradations.rain`; here amount, veil and environment vary continuously, each by itself.
    """
    light = srgb_to_linear(image)
    amount = LAYER_AMOUNT * strength * generator.uniform(0.5, 1)
    veil = np.float32(VEIL * strength * generator.uniform(0, 1))
    environment = np.float32(generator.uniform(0.35, 1))
    opacity = rain_opacity(*image.shape[:2], amount, generator)[..., None]
    misty = light * (1 - veil) + environment * veil
    return linear_to_srgb(misty * (1 - opacity) + environment * opacity)


def streak_layer(
    height: int,
    width: int,
    length: float,
    sigma: float,
    angle: float,
    cover: float,
    generator: np.random.Generator,
) -> np.ndarray:
    """One layer of streaks (H, W) in [0, 1], all of one length and direction.

    Args:
        height: of the image, pixels.
        width: of the image, pixels.
        length: of a streak, pixels.
        sigma: half width of a streak, pixels.
        angle: of the fall, radians from the x axis.
        cover: expected share of pixels under a streak, overlaps counted twice.
        generator: source of every random draw.
    """
    r = int(length / 2 + 3 * sigma) + 2
    s = np.linspace(-0.5, 0.5, max(int(3 * length), 3))
    line = splat(s * length * np.cos(angle), s * length * np.sin(angle), np.ones_like(s), r)
    shape = tuple(next_fast_len(n + 2 * r, real=True) for n in (height, width))
    count = generator.poisson(cover * shape[0] * shape[1] / (length * max(2 * sigma, 1)))
    seeds = np.zeros(shape, np.float32)
    where = (generator.integers(shape[0], size=count), generator.integers(shape[1], size=count))
    seeds[where] = generator.uniform(0.3, 1, count)
    # the product of the line's spectrum with a Gaussian's is the spectrum of a soft streak
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    soft = np.exp(-2 * (np.pi * sigma) ** 2 * (fy**2 + fx**2)).astype(np.float32)
    streak = rfft2(line.astype(np.float32), shape) * soft
    peak = irfft2(streak, shape).max()
    layer = irfft2(rfft2(seeds) * streak, shape)[r : r + height, r : r + width]
    return np.clip(layer / peak, 0, 1)


def streaks(image: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Bright dense streaks, screened over the sRGB values, added to them, or blended with them.

    Sources: added, O = B + sum S_i with streaks of several directions, Yang et al., "Deep joint
    rain detection and removal from a single image", CVPR 2017; screened, O = 1 - (1 - B)(1 - S),
    Luo et al., "Removing rain from a single image via discriminative sparse coding", ICCV 2015;
    blended, O = B (1 - S) + E S. There are one to four layers of streaks, 8 to 60 px long and 0.4
    to 2 px half wide. They fall within 45 degrees of the vertical, layers alike or far apart.
    """
    height, width = image.shape[:2]
    fall = np.pi / 2 + generator.uniform(-np.pi / 4, np.pi / 4)
    spread = generator.choice((0.03, 0.4))
    rain = np.zeros((height, width), np.float32)
    for _ in range(generator.integers(1, 5)):
        length, sigma = np.exp(generator.uniform(np.log(8), np.log(60))), generator.uniform(0.4, 2)
        cover = strength * generator.uniform(0.05, 0.5)
        angle = fall + generator.normal(0, spread)
        bright = generator.uniform(0.25, 1) * min(1.0, 0.3 + strength)
        layer = streak_layer(height, width, length, sigma, angle, cover, generator)
        rain += np.float32(bright) * layer
    rain = np.minimum(rain, 1)[..., None]
    mode, veil = generator.integers(3), np.float32(0)
    if generator.random() < 0.3:
        veil = np.float32(VEIL * strength * generator.random())
    grey = np.float32(generator.uniform(0.6, 1))
    below = image * (1 - veil) + grey * veil
    if mode == 0:
        return np.clip(1 - (1 - below) * (1 - rain), 0, 1)
    if mode == 1:
        return np.clip(below + rain, 0, 1)
    return np.clip(below * (1 - rain) + grey * rain, 0, 1)


def lines(image: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Hard, bright lines over the sRGB values, opaque in half of the images.

    Source: Buslaev et al., "Albumentations: fast and flexible image augmentations", Information
    11(2), 2020, draw rain so. Lines are 5 to 50 px long and 1 to 3 px wide, of one length or of
    several, and fall within 45 degrees of the vertical. A third is smoothed at the edges. They
    cover up to a third of the image.
    """
    height, width = image.shape[:2]
    finer = int(generator.choice((1, 1, 3)))  # 3: drawn larger, then reduced
    length = finer * np.exp(generator.uniform(np.log(5), np.log(50)))
    thick = generator.integers(1, 4)
    fall = np.pi / 2 + generator.uniform(-np.pi / 4, np.pi / 4)
    cover = strength * generator.uniform(0.02, 0.35) * finer**2
    count = generator.poisson(cover * height * width / (length * thick * finer))
    lengths = length * generator.uniform(generator.choice((1.0, 0.4)), 1, count)
    angles = fall + generator.normal(0, generator.choice((0, 0.05)), count)
    x, y = (generator.uniform(-length, n * finer, count) for n in (width, height))
    canvas = Image.new("L", (width * finer, height * finer))
    draw = ImageDraw.Draw(canvas)
    for ends in np.stack([x, y, x + lengths * np.cos(angles), y + lengths * np.sin(angles)], 1):
        draw.line([float(end) for end in ends], fill=255, width=int(thick) * finer)
    opacity = np.asarray(canvas.resize((width, height), Image.Resampling.BOX), np.float32) / 255
    opacity *= np.float32(generator.choice((1.0, generator.uniform(0.4, 1))))
    grey = np.float32(generator.choice((1.0, generator.uniform(0.6, 1))))
    return image * (1 - opacity[..., None]) + grey * opacity[..., None]


MODELS = (drops, streaks, streaks, lines)


def rain(image: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Rain of one of MODELS: streaks twice as often as drops or lines."""
    if strength == 0:
        return image.copy()
    return MODELS[generator.integers(len(MODELS))](image, strength, generator)
