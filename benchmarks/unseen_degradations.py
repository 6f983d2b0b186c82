"""Makes degraded and clean pairs without the generator of the training, to measure restoration.

    python benchmarks/unseen_degradations.py PHOTOS -o data/unseen
    for kind in blur noise haze rain low_light clean; do
      python -m lit_mimdit restore data/unseen/$kind/lq -o runs/unseen/$kind
      python -m lit_mimdit evaluate --restored runs/unseen/$kind --reference data/unseen/$kind/gt --degraded data/unseen/$kind/lq \
          --metrics psnr,lpips -o runs/unseen/scores-$kind
    done

The models here are written from papers and share no code with the generator of the training. This
file must therefore import neither `lit_mimdit.data.wide` nor `lit_mimdit.data.degradations`.

The whole photograph is degraded before the crop is taken, so borders show no artefacts. The pairs
are OUT/KIND/{lq,gt}/NNNN.png, and OUT/samples.csv names model, photograph and PSNR of each. Pairs
of the kind `clean` are equal: pale, dark and random crops, which a restoration should leave alone.
"""  # noqa: E501

import argparse
import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator, default_rng
from PIL import Image
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter, zoom
from scipy.signal import fftconvolve

from lit_mimdit.data.image_io import list_images, read_rgb

LUMINANCE = np.array([0.299, 0.587, 0.114])
MARGIN = 8  # pixels between a crop and the border of its photograph
SHARES = 24  # shares of the models of a kind add up to this
DRAWS = 200  # crops and strengths that are tried for one pair


class Scene(NamedTuple):
    """A photograph to degrade; a function of it returns None if it drew too little or too much."""

    rng: Generator
    photo: np.ndarray  # (H, W, 3) float64 in [0, 1], sRGB
    window: tuple[slice, slice]  # rows and columns of the crop
    index: int  # number of the pair; odd and even ones may differ


def to_bytes(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)


def to_linear(srgb: np.ndarray) -> np.ndarray:
    """Returns linear light of sRGB values. Source: IEC 61966-2-1."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: np.ndarray) -> np.ndarray:
    """Returns sRGB values of linear light, which is clipped. Source: IEC 61966-2-1."""
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


# -- blur


def splat(points: np.ndarray, size: int) -> np.ndarray:
    """Returns a kernel that holds the points (x, y), each spread bilinearly over four pixels."""
    kernel = np.zeros((size, size))
    for x, y in points + size // 2:
        left, top = int(np.floor(x)), int(np.floor(y))
        for row, down in ((top, 1 - (y - top)), (top + 1, y - top)):
            for column, right in ((left, 1 - (x - left)), (left + 1, x - left)):
                if 0 <= row < size and 0 <= column < size:
                    kernel[row, column] += right * down
    return kernel / kernel.sum()


def line_kernel(length: float, angle: float) -> np.ndarray:
    """Returns the kernel of a uniform motion over `length` pixels at `angle` radians."""
    t = np.linspace(-(length - 1) / 2, (length - 1) / 2, 1000)
    points = np.stack([t * np.cos(angle), -t * np.sin(angle)], 1)
    return splat(points, int(2 * np.ceil(length / 2) + 3))


def shake_kernel(rng: Generator, length: float) -> np.ndarray:
    """Returns the kernel of a hand's motion: a spline through a random walk, unevenly fast."""
    angle = rng.uniform(0, 2 * np.pi)
    walk = [np.zeros(2)]
    for _ in range(5):
        angle += rng.normal(0, 0.75)
        step = np.array([np.cos(angle), np.sin(angle)])
        walk.append(walk[-1] + rng.uniform(0.5, 1.5) * step)
    times = 5 * (np.linspace(0, 5, 3000) / 5) ** rng.uniform(0.75, 1.35)
    path = CubicSpline(np.arange(6), np.array(walk))(times)
    path *= length / np.linalg.norm(np.diff(path, axis=0), axis=1).sum()
    path -= path.mean(0)
    radius = int(np.ceil(np.abs(path).max())) + 2
    return gaussian_filter(splat(path, 2 * radius + 1), 0.35)


def gaussian_kernel(along: float, across: float, angle: float) -> np.ndarray:
    """Returns k(u, v) ~ exp(-(u^2 / along^2 + v^2 / across^2) / 2), turned by `angle` radians."""
    radius = int(np.ceil(3.5 * max(along, across)))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    u = x * np.cos(angle) - y * np.sin(angle)
    v = x * np.sin(angle) + y * np.cos(angle)
    kernel = np.exp(-0.5 * (u * u / along**2 + v * v / across**2))
    return kernel / kernel.sum()


def disk_kernel(radius: float, finer: int = 11) -> np.ndarray:
    """Returns a disk, the image of a point out of focus, averaged from `finer`^2 subpixels."""
    size = 2 * int(np.ceil(radius)) + 3
    c = (np.arange(size * finer) + 0.5) / finer - size / 2
    inside = (c[None] ** 2 + c[:, None] ** 2 <= radius * radius).astype(float)
    kernel = inside.reshape(size, finer, size, finer).mean((1, 3))
    return kernel / kernel.sum()


def convolve(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    r = max(kernel.shape) // 2 + 1
    padded = np.pad(image, ((r, r), (r, r), (0, 0)), mode="reflect")
    planes = [fftconvolve(padded[..., c], kernel, mode="same") for c in range(3)]
    return np.stack(planes, -1)[r:-r, r:-r]


def blur_kernel(rng: Generator, model: str) -> np.ndarray:
    uniform = rng.uniform
    if model == "line":
        return line_kernel(length=uniform(9, 25), angle=uniform(0, np.pi))
    if model == "shake":
        return shake_kernel(rng, length=uniform(16, 42))
    if model == "round":
        return gaussian_kernel(sigma := uniform(1.6, 3.5), sigma, 0)
    if model == "oval":
        return gaussian_kernel(uniform(2.5, 4), uniform(1, 1.8), uniform(0, np.pi))
    return disk_kernel(uniform(2.5, 6))


def blur(scene: Scene, model: str) -> np.ndarray:
    """Returns y = k * x + n, where n is a trace of noise and k the kernel of a model.

    Odd pairs are convolved in linear light, as a sensor adds up light, and even pairs in sRGB.

    Sources: "shake", Boracchi and Foi, "Modeling the performance of image restoration from motion
    blur", 2012. "round" and "oval", Zhang et al., "Learning a single convolutional
    super-resolution network for multiple degradations", 2018. "defocus", Pentland, "A new sense
    for depth of field", 1987. Linear light, Nah et al., "Deep multi-scale convolutional neural
    network for dynamic scene deblurring", 2017.
    """
    rng, photo = scene.rng, scene.photo
    kernel, linear = blur_kernel(rng, model), scene.index % 2
    image = to_srgb(convolve(to_linear(photo), kernel)) if linear else convolve(photo, kernel)
    return image + rng.normal(0, rng.uniform(0, 1.5) / 255, photo.shape)


# -- noise


def noise(scene: Scene, model: str) -> np.ndarray:
    """Returns a noisy photograph.

    white: y = x + n, n ~ N(0, s^2), with s from 15 to 50 of 255 or the one that is named.
    sensor: y = Poisson(p x) / p + N(0, r^2) in linear light, with p photons at white.
    correlated: y = x + s n / std(n), n = g * (M w). White noise w is mixed between channels by
    M, and blurred by g.
    channel: y_c = x_c + N(0, s_c^2), with another level in each channel c.

    Sources: "white", Zhang et al., "Beyond a Gaussian denoiser", 2017. "sensor", Foi et al.,
    "Practical Poissonian-Gaussian noise modeling and fitting for single-image raw-data", 2008.
    "correlated", Lebrun et al., "The noise clinic", 2015. "channel", Zhang et al., "FFDNet", 2018.
    """
    rng, photo = scene.rng, scene.photo
    name, *level = model.split()
    if name == "white":
        sigma = float(level[0]) if level else rng.uniform(15, 50)
        return photo + rng.normal(0, sigma / 255, photo.shape)
    if name == "sensor":
        photons = np.exp(rng.uniform(np.log(40), np.log(250)))
        read = rng.uniform(0.004, 0.02)
        shot = rng.poisson(to_linear(photo) * photons) / photons
        return to_srgb(shot + rng.normal(0, read, photo.shape))
    if name == "correlated":
        sigma, width = rng.uniform(15, 35), rng.uniform(0.5, 0.9)
        white = rng.normal(0, 1, photo.shape) @ (np.eye(3) * 0.75 + 0.25)
        coarse = np.stack([gaussian_filter(white[..., c], width) for c in range(3)], -1)
        return photo + coarse / coarse.std() * sigma / 255
    sigmas = rng.permutation([15.0, 25.0, 45.0])
    return photo + rng.normal(0, 1, photo.shape) * sigmas / 255


# -- haze


def relief(rng: Generator, shape: tuple[int, int], cells: int) -> np.ndarray:
    """Returns a smooth random surface from 0 to 1 with about `cells` hills a side."""
    height, width = shape
    coarse = rng.normal(0, 1, (cells + 3, cells + 3))
    surface = zoom(coarse, (height / cells, width / cells), order=3)[:height, :width]
    return (surface - surface.min()) / (surface.max() - surface.min())


def scene_depth(rng: Generator, shape: tuple[int, int], model: str) -> np.ndarray:
    """Returns a depth for each pixel, in no unit; v is the height in the picture from 0 to 1.

    ground: a plane up to a horizon, 1 / (1 - v / horizon), with some relief.
    tilted: a plane across the picture, with much relief.
    ridges: three ridges, one behind another.
    """
    height, width = shape
    v = np.repeat(1 - np.arange(height)[:, None] / (height - 1), width, axis=1)
    if model == "ground":
        depth = 1 / np.maximum(1 - np.minimum(v / rng.uniform(0.5, 0.8), 1) * 0.92, 0.08)
        return 0.75 * ((depth - 1) / (depth.max() - 1)) + 0.25 * relief(rng, shape, 3)
    if model == "tilted":
        tilted = v + rng.uniform(-0.5, 0.5) * np.arange(width) / width
        return 0.6 * tilted + 0.7 * relief(rng, shape, 3)
    depth = 0.1 * v
    for foot in np.sort(rng.uniform(0.25, 0.85, 3)):
        edge = foot + 0.15 * (relief(rng, (height + 1, width), 4)[0] - 0.5)
        depth = depth + 0.3 / (1 + np.exp(-(v - edge) * 40))
    return depth


def haze(scene: Scene, model: str) -> np.ndarray | None:
    """Returns y = x t + A (1 - t), t = exp(-beta d), with a nearly grey A and d of 1 to 20 metres.

    A crop whose mean t is outside 0.3 to 0.85 is refused.

    Source: Li et al., "Benchmarking single-image dehazing and beyond", 2019, for A and beta.
    """
    rng, photo = scene.rng, scene.photo
    depth = gaussian_filter(scene_depth(rng, photo.shape[:2], model), 3)
    depth = (depth - depth.min()) / (depth.max() - depth.min())
    near, far = rng.uniform(1, 4), rng.uniform(8, 20)
    beta = rng.choice([0.04, 0.06, 0.08, 0.1, 0.12, 0.16, 0.2])
    airlight = np.clip(rng.uniform(0.7, 1.0) + rng.uniform(-0.025, 0.025, 3), 0, 1)
    t = np.exp(-beta * (near + (far - near) * depth))[..., None]
    return photo * t + airlight * (1 - t) if 0.3 <= t[scene.window].mean() <= 0.85 else None


# -- rain


def streaks(
    scene: Scene, density: float, length: float, width: float, angle: float, scale: float = 1
) -> np.ndarray:
    """Returns a layer of rain (H, W, 1): sparse drops, blurred along `angle` degrees, stretched.

    Source: Fu et al., "Removing rain from single images via a deep detail network", 2017, whose
    rain was made so in Photoshop.
    """
    rng, shape = scene.rng, scene.photo.shape[:2]
    pad = int(length) + 4
    padded = [int(np.ceil(n / scale)) + 2 * pad for n in shape]
    drops = (rng.random(padded) < density) * rng.uniform(0.4, 1.0, padded)
    drops = gaussian_filter(drops, width) * (1 + 2.5 * width)
    kernel = line_kernel(length, np.radians(angle))
    layer = fftconvolve(drops, kernel, mode="same")[pad:-pad, pad:-pad]
    if scale != 1:
        layer = zoom(layer, scale, order=1)
    missing = [(0, max(0, n - m)) for n, m in zip(shape, layer.shape, strict=True)]
    layer = np.pad(layer, missing, mode="edge")[: shape[0], : shape[1], None]
    return np.clip(layer / np.percentile(layer, 99.5), 0, 1)


def rain(scene: Scene, model: str) -> np.ndarray:
    """Returns a photograph with layers R of streaks.

    light: y = x + R.
    medium: y = 1 - (1 - x) (1 - R1) (1 - R2), with near and far streaks.
    heavy: y = x + R1 + ... + Rn of three to five directions, and in odd pairs a veil over y.

    Sources: "light" and "heavy", Yang et al., "Deep joint rain detection and removal from a single
    image", 2017. "medium", Luo et al., "Removing rain from a single image via discriminative
    sparse coding", 2015.
    """
    photo, uniform = scene.photo, scene.rng.uniform
    angle = 90 + uniform(-35, 35)
    if model == "light":
        layer = streaks(scene, uniform(0.004, 0.01), uniform(14, 24), uniform(0.3, 0.6), angle)
        return photo + layer * uniform(0.4, 0.75)
    if model == "medium":
        near = streaks(scene, uniform(0.008, 0.02), uniform(18, 34), uniform(0.3, 0.7), angle)
        near *= uniform(0.45, 0.75)
        far = streaks(scene, 0.02, uniform(10, 16), 0.3, angle + scene.rng.normal(0, 3))
        layer = 1 - (1 - near) * (1 - far * uniform(0.15, 0.35))
        return 1 - (1 - photo) * (1 - layer)
    image = photo
    for _ in range(scene.rng.integers(3, 6)):
        turned = angle + uniform(-25, 25)
        density, length, width = (uniform(*r) for r in ((0.004, 0.012), (16, 40), (0.3, 0.8)))
        layer = streaks(scene, density, length, width, turned, scene.rng.choice([1, 1, 1.5]))
        image = image + layer * uniform(0.2, 0.5)
    veil = uniform(0.08, 0.2) if scene.index % 2 else 0.0
    return image * (1 - veil) + 0.8 * veil


# -- low light


def low_light(scene: Scene, model: str) -> np.ndarray | None:
    """Returns a dark photograph, if its crop has a mean of 0.03 to 0.2, below half the clean one's.

    gamma: y = b (a x)^gamma + n.
    scaled: y = b x + n, the plainest darkening there is; no paper's.
    exposure: y = Poisson(p z) / p + n, z = 2^-stops w x, in linear light with white balance w.

    Sources: "gamma", Lv et al., "Attention guided low-light image enhancement with a large scale
    low-light simulation dataset", 2021. "exposure", Brooks et al., "Unprocessing images for
    learned raw denoising", 2019.
    """
    rng, photo = scene.rng, scene.photo
    if model == "gamma":
        a, b, gamma = (rng.uniform(*r) for r in ((0.9, 1), (0.3, 1), (2, 5)))
        image = b * (a * photo) ** gamma + rng.normal(0, rng.uniform(0.3, 3) / 255, photo.shape)
    elif model == "scaled":
        b, sigma = rng.uniform(0.08, 0.35), rng.uniform(0.3, 2.5)
        image = photo * b + rng.normal(0, sigma / 255, photo.shape)
    else:
        stops, photons = rng.uniform(2.5, 6), rng.uniform(1500, 8000)
        balance = np.array([rng.uniform(0.9, 1.08), 1, rng.uniform(0.9, 1.08)])
        light = to_linear(photo) * 2**-stops * balance
        shot = rng.poisson(light * photons) / photons
        image = to_srgb(shot + rng.normal(0, 0.0004, photo.shape))
    dark, clean = (to_bytes(one[scene.window]).mean() for one in (image, photo))
    return image if 0.03 <= dark / 255 <= 0.2 and dark < 0.5 * clean else None


# -- pairs

# each kind with its function, and its models in the order of pairs with their shares of them
KINDS: dict[str, tuple[Callable[[Scene, str], np.ndarray | None], list[tuple[str, int]]]] = {
    "blur": (blur, [("line", 7), ("shake", 7), ("round", 3), ("oval", 2), ("defocus", 5)]),
    "noise": (
        noise,
        [
            *(("white 15", 1), ("white 25", 1), ("white 50", 1), ("white", 11)),
            *(("sensor", 5), ("correlated", 3), ("channel", 2)),
        ],
    ),
    "haze": (haze, [("ground", 1), ("tilted", 1), ("ridges", 1)] * (SHARES // 3)),
    "rain": (rain, [("light", 8), ("medium", 8), ("heavy", 8)]),
    "low_light": (low_light, [("gamma", 12), ("scaled", 6), ("exposure", 6)]),
}


class Sample(NamedTuple):
    """One pair of crops, (S, S, 3) uint8, and a row of samples.csv."""

    model: str
    photo: int  # place in the list of photographs
    degraded: np.ndarray
    clean: np.ndarray


def window(top: int, left: int, size: int) -> tuple[slice, slice]:
    return slice(top, top + size), slice(left, left + size)


def textured_window(
    rng: Generator, photo: np.ndarray, size: int, texture: float
) -> tuple[slice, slice]:
    """Returns the first of 20 crops whose mean absolute gradient is above `texture`, or the best.

    Flat crops show neither blur nor its removal.
    """
    best, most = None, -1.0
    for _ in range(20):
        top, left = (int(rng.integers(MARGIN, n - size - MARGIN + 1)) for n in photo.shape[:2])
        crop = window(top, left, size)
        luminance = photo[crop] @ LUMINANCE
        gradient = sum(np.abs(np.diff(luminance, axis=axis)).mean() for axis in (0, 1))
        if gradient > most:
            best, most = crop, gradient
        if gradient > texture:
            break
    return best


def model_of(kind: str, index: int, count: int) -> str:
    """Returns the model of a pair: models take their shares of the `count` pairs in turn."""
    names: list[str] = []
    for name, share in KINDS[kind][1]:
        names += [name] * share
    return names[index * SHARES // count]


def degraded_samples(
    kind: str, photos: list[np.ndarray], count: int, size: int, seed: int
) -> Iterator[Sample]:
    """Yields the pairs of a kind; each has a generator of its own, and photographs take turns."""
    place = list(KINDS).index(kind)
    order = default_rng([seed, place]).permutation(len(photos))
    for index in range(count):
        rng = default_rng([seed, place, index])
        number = int(order[index % len(photos)])
        model = model_of(kind, index, count)
        for _ in range(DRAWS):
            crop = textured_window(rng, photos[number], size, 0.05 if kind == "blur" else 0.02)
            image = KINDS[kind][0](Scene(rng, photos[number], crop, index), model)
            if image is not None:
                break
        else:
            raise ValueError(
                f"{DRAWS} draws gave no pair of {kind} that is neither too weak nor too strong"
                f" from photograph {number + 1}; leave that photograph out"
            )
        yield Sample(model, number, to_bytes(image[crop]), to_bytes(photos[number][crop]))


class Candidate(NamedTuple):
    """A crop that a clean pair may show."""

    photo: int
    top: int
    left: int
    brightness: float
    pallor: float


def candidates(rng: Generator, photos: list[np.ndarray], size: int) -> list[Candidate]:
    """Returns 60 random crops of each photograph.

    Pallor is the mean dark channel less half the contrast and a quarter of the colour. The dark
    channel is high in haze.

    Source: He et al., "Single image haze removal using dark channel prior", 2009.
    """
    crops = []
    for number, photo in enumerate(photos):
        for _ in range(60):
            top, left = (int(rng.integers(0, n - size + 1)) for n in photo.shape[:2])
            pixels = photo[window(top, left, size)]
            luminance, lowest = pixels @ LUMINANCE, pixels.min(-1)
            colour = (pixels.max(-1) - lowest).mean()
            pallor = lowest.mean() - 0.5 * luminance.std() - 0.25 * colour
            crops.append(Candidate(number, top, left, luminance.mean(), pallor))
    return crops


def take(
    crops: list[Candidate], count: int, most: int, apart: int, used: list[Candidate]
) -> list[Candidate]:
    """Returns the first crops of a list, at most `most` of a photograph, and adds them to `used`.

    They lie `apart` pixels from each other and from used ones, unless there are too few of them.
    """
    taken: list[Candidate] = []
    for strict in (True, False):
        for crop in crops:
            same = [one for one in used if one.photo == crop.photo]
            near = any(
                max(abs(one.top - crop.top), abs(one.left - crop.left)) < apart for one in same
            )
            full = sum(one.photo == crop.photo for one in taken) >= most
            if len(taken) < count and crop not in used and not (strict and (near or full)):
                taken.append(crop)
                used.append(crop)
    return taken


def clean_samples(photos: list[np.ndarray], count: int, size: int, seed: int) -> Iterator[Sample]:
    """Yields pairs without degradation: a third pale, a third dark and a third random crops."""
    rng = default_rng([seed, 99])
    crops = candidates(rng, photos, size)
    if count > len(set(crops)):
        raise ValueError(
            f"{len(photos)} photographs give at most {len(set(crops))} clean crops, not {count};"
            " lower --count or add photographs"
        )
    orders = {
        "palest": (sorted(crops, key=lambda crop: -crop.pallor), 2),
        "darkest": (sorted(crops, key=lambda crop: crop.brightness), 2),
        "random": ([crops[i] for i in rng.permutation(len(crops))], 1),
    }
    used: list[Candidate] = []
    for place, (name, (order, most)) in enumerate(orders.items()):
        for crop in take(order, (count + 2 - place) // 3, most, size // 2, used):
            pixels = to_bytes(photos[crop.photo][window(crop.top, crop.left, size)])
            yield Sample(name, crop.photo, pixels, pixels)


def psnr(image: np.ndarray, reference: np.ndarray) -> float:
    """Returns 10 log10(255^2 / MSE) in dB, infinite for equal images."""
    error = np.mean((image.astype(float) - reference) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def read_photos(files: list[Path], size: int) -> list[np.ndarray]:
    """Returns photographs as float64 in [0, 1]. Raises ValueError for one that is too small."""
    photos = []
    for file in files:
        pixels = read_rgb(file)
        if min(pixels.shape[:2]) < size + 2 * MARGIN:
            raise ValueError(
                f"{file} has {pixels.shape[1]}x{pixels.shape[0]} pixels, and crops of {size} need"
                f" {size + 2 * MARGIN} a side; leave it out or lower --size"
            )
        photos.append(pixels.astype(np.float64) / np.iinfo(pixels.dtype).max)
    return photos


def write_pairs(clean: Path, output: Path, count: int, size: int, seed: int) -> None:
    """Writes `count` pairs of each kind, and samples.csv."""
    files = list_images(clean)
    if not files:
        raise ValueError(f"{clean} has no images; name a folder of clean photographs")
    if count < 1 or size < 8:
        raise ValueError(f"--count {count} --size {size}: take at least 1 pair of 8 pixels a side")
    if output.exists() and any(output.iterdir()):
        raise ValueError(f"{output} is not empty, and old pairs would stay; name a new folder")
    photos = read_photos(files, size)
    kinds = {kind: degraded_samples(kind, photos, count, size, seed) for kind in KINDS}
    kinds["clean"] = clean_samples(photos, count, size, seed)
    output.mkdir(parents=True, exist_ok=True)
    with open(output / "samples.csv", "w", newline="", encoding="utf-8") as table:
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(["kind", "image", "model", "photograph", "psnr"])
        for kind, samples in kinds.items():
            for index, sample in enumerate(samples):
                name = f"{index:04d}.png"
                for side, image in (("lq", sample.degraded), ("gt", sample.clean)):
                    path = output / kind / side / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(image).save(path)
                score = f"{psnr(sample.degraded, sample.clean):.2f}"
                rows.writerow([kind, name, sample.model, files[sample.photo].name, score])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clean", type=Path, help="folder of clean photographs")
    parser.add_argument("-o", "--output", type=Path, required=True, help="a new folder")
    parser.add_argument("--count", type=int, default=24, help="pairs of each kind")
    parser.add_argument("--size", type=int, default=128, help="side of the crops, pixels")
    parser.add_argument("--seed", type=int, default=20240917)
    args = parser.parse_args(arguments)
    write_pairs(args.clean, args.output, args.count, args.size, args.seed)


if __name__ == "__main__":
    main()
