"""Pairs whose degradations come from another library, albumentations, to measure restoration on.

    pip install albumentations==2.0.8        # it is no dependency of this project
    python benchmarks/foreign_degradations.py PHOTOS -o data/foreign
    for kind in blur noise haze rain low_light clean; do
      python -m lit_mimdit restore data/foreign/$kind/lq -o runs/foreign/$kind
      python -m lit_mimdit evaluate --restored runs/foreign/$kind --reference data/foreign/$kind/gt --degraded data/foreign/$kind/lq \
          --metrics psnr,lpips -o runs/foreign/scores-$kind
    done

Each photograph gives one crop of each kind, at a place and with strengths drawn from the seed.
"""  # noqa: E501

import argparse
from pathlib import Path

import albumentations as A
import numpy as np
from PIL import Image

from lit_mimdit.data.image_io import list_images, read_rgb

KINDS: dict[str, list[A.BasicTransform]] = {
    "blur": [
        A.MotionBlur(blur_limit=(5, 21), p=1),
        A.Defocus(radius=(2, 6), p=1),
        A.GaussianBlur(sigma_limit=(1, 3.5), p=1),
    ],
    "noise": [
        A.GaussNoise(std_range=(0.04, 0.2), p=1),
        A.ISONoise(color_shift=(0.02, 0.06), intensity=(0.3, 0.8), p=1),
        A.ShotNoise(scale_range=(0.01, 0.1), p=1),
    ],
    "haze": [A.RandomFog(fog_coef_range=(0.3, 0.9), alpha_coef=0.1, p=1)],
    "rain": [
        A.RandomRain(blur_value=1, brightness_coefficient=1.0, rain_type=rain, p=1)
        for rain in ("drizzle", "heavy", "torrential")
    ],
    "low_light": [
        A.RandomGamma(gamma_limit=(200, 400), p=1),
        A.MultiplicativeNoise(multiplier=(0.1, 0.35), p=1),  # one factor for the whole crop
    ],
    "clean": [A.NoOp(p=1)],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "photos", type=Path, help="folder of photographs that nothing was trained on"
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--size", type=int, default=128, help="side of the crops, pixels")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for number, file in enumerate(list_images(args.photos)):
        photo = read_rgb(file)
        for place, (kind, models) in enumerate(KINDS.items()):
            generator = np.random.default_rng([args.seed, number, place])
            top, left = (int(generator.integers(n - args.size + 1)) for n in photo.shape[:2])
            clean = np.ascontiguousarray(photo[top : top + args.size, left : left + args.size])
            model = A.Compose([models[number % len(models)]], seed=int(generator.integers(2**31)))
            for name, image in (("gt", clean), ("lq", model(image=clean)["image"])):
                path = args.output / kind / name / f"{file.stem}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path)


if __name__ == "__main__":
    main()
