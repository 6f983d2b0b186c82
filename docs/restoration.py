"""Draws docs/restoration.png: degraded, restored and clean test photographs of the sample set, with
the shipped branch.

python docs/restoration.py --data data/sample --output docs/restoration.png
"""

import argparse
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from lit_mimdit.data.image_io import read_rgb, to_tensor
from lit_mimdit.data.layouts import read_layout, require_complete
from lit_mimdit.evaluation.scores import score
from lit_mimdit.inference.loading import load_restorer

TYPES = ("05Noise", "08Haze", "10Rain", "14Lowlight", "01Blur", "16Lowlight_Noise")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data/sample"))
    parser.add_argument("--output", type=Path, default=Path("docs/restoration.png"))
    parser.add_argument("--which", type=int, default=1, help="which test pair of each type")
    args = parser.parse_args()
    pairs = require_complete(read_layout("foundir", args.data, meta=args.data / "test.txt"))
    restorer = load_restorer(None, None, "cpu", fidelity="package")
    side, label = 256, 18
    sheet = Image.new("RGB", (len(TYPES) * (side + 4), 3 * (side + label)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, kind in enumerate(TYPES):
        pair = [p for p in pairs if p.degradation == kind][args.which]
        lq, gt = to_tensor(read_rgb(pair.lq)), to_tensor(read_rgb(pair.gt))
        restored = restorer(lq[None], torch.tensor([0]))[0][0]
        texts = [
            f"{kind}  {score(lq, gt)['psnr']:.1f} dB",
            f"restored  {score(restored, gt)['psnr']:.1f} dB",
            "clean",
        ]
        for row, (image, text) in enumerate(zip((lq, restored, gt), texts, strict=True)):
            pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
            x, y = column * (side + 4), row * (side + label)
            draw.text((x + 2, y + 3), text, fill="black")
            sheet.paste(Image.fromarray(pixels), (x, y + label))
        print(f"{pair.id}: {texts[0]}, {texts[1]}")
    sheet.convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(args.output, optimize=True)


if __name__ == "__main__":
    main()
