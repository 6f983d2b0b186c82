"""Wide low light: too short an exposure, a power, a factor and a curve, with casts and grain."""

import numpy as np

from lit_mimdit.data.degradations import linear_to_srgb, srgb_to_linear

RATIO, GAMMA = 40.0, 5.0  # 1 / exposure and power at strength 1
LEVEL = 15.0  # 1 / factor on the sRGB values at strength 1
CAST = 0.15  # largest relative gain of a channel, at strength 1


def exposed(image: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Linear light of too short an exposure, x / r, r from 1 to 40.

    Source: Chen et al., "Learning to see in the dark", CVPR 2018.
    """
    return srgb_to_linear(image) / np.float32(RATIO**strength)


def powered(image: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Linear light of b (a x)^g on the sRGB values, a 0.9 to 1, b 0.3 to 1, g 1 to 5.

    Source: Lv, Li and Lu, "Attention guided low-light image enhancement with a large scale
    low-light simulation dataset", IJCV 129, 2021 (g 1.5 to 5).
    """
    a, b = (1 - strength * generator.uniform(0, limit) for limit in (0.1, 0.7))
    power = GAMMA ** (strength * generator.uniform(0.6, 1))
    return srgb_to_linear(np.float32(b) * (np.float32(a) * image) ** np.float32(power))


def scaled(image: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Linear light of x / r on the sRGB values, r from 1 to 15: all levels shrink alike.

    Source: Buslaev et al., "Albumentations: fast and flexible image augmentations", Information
    11(2), 2020 (brightness).
    """
    return srgb_to_linear(image / np.float32(LEVEL**strength))


def curved(image: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Linear light of a curve that keeps black and white, x - k x (1 - x), up to eight times.

    Source: the curve of Guo et al., "Zero-reference deep curve estimation for low-light image
    enhancement", CVPR 2020, with the sign that darkens; k up to 1.
    """
    curve = image
    for _ in range(int(generator.integers(2, 5))):
        curve = curve - np.float32(strength * generator.uniform(0.5, 1)) * curve * (1 - curve)
    return srgb_to_linear(np.maximum(curve, 0))


MODELS = (exposed, exposed, powered, powered, curved, scaled)


def darkness(image: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Low light of one of MODELS, two of them twice as often, with a colour cast and grain.

    Channels get gains within 15 %. Half of the images have grain of variance a y + b (Foi et al.
    2008). There a is at most 5e-4 and sqrt(b) at most 0.0015 full scales. The camera has removed
    the grain from the other half.
    """
    if strength == 0:
        return image.copy()
    light = MODELS[generator.integers(len(MODELS))](image, strength, generator)
    gains = 1 + strength * CAST * generator.uniform(-1, 1, 3)
    light = light * gains.astype(np.float32)
    if generator.random() < 0.5:
        a = 5e-4 * strength * generator.random()
        b = (0.0015 * strength * generator.random()) ** 2
        noise = generator.standard_normal(image.shape, dtype=np.float32)
        light = light + np.sqrt(np.float32(a) * light + np.float32(b)) * noise
    return linear_to_srgb(light)
