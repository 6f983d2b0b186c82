"""How near a quantized nano stays to the one in 32 bits: its velocity, and what it restores.

    python benchmarks/quantize.py photos/ --count 3

The relative error of a velocity is the root mean square of the difference over that of the
velocity, and the largest difference over the largest velocity. PSNR is of the restored photographs
against those restored in 32 bits, in dB. The fidelity network is left out: it would hide
differences.
fp8 needs torchao, and is left out without it.
"""

import argparse
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from kit.gguf_file import write_gguf

from lit_mimdit.data.image_io import find_images, read_rgb, to_tensor
from lit_mimdit.evaluation.pixel import psnr
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.models.backbone import NANO, load_backbone
from lit_mimdit.models.latents import encode
from lit_mimdit.models.quantize import held_bytes

KINDS = ("nf4", "int8", "fp8")
FILES = ("Q8_0", "Q4_0")  # kinds of blocks in a GGUF file


def photographs(folder: Path, count: int, size: int) -> Tensor:
    """The middle of photographs of a folder, evenly chosen: (count, 3, size, size)."""
    images = []
    for path in find_images(folder).images:
        image = to_tensor(read_rgb(path))
        if min(image.shape[-2:]) >= size:
            top, left = ((side - size) // 2 for side in image.shape[-2:])
            images.append(image[:, top : top + size, left : left + size])
    return torch.stack(images[:: max(1, len(images) // count)][:count])


@torch.no_grad()
def looked_at(kind: str | None, lq: Tensor, dtype: str) -> tuple[Tensor, Tensor, int]:
    """Velocities at three times, the restored photographs, and the bytes of the backbone."""
    restorer = load_restorer(device="cpu", backbone_quantize=kind, dtype=dtype, overview=0)
    network = restorer.network
    z_lq = encode(restorer.vae, lq)
    condition = network.condition(z_lq)
    noise = torch.randn(z_lq.shape, generator=torch.Generator().manual_seed(0))
    times = [torch.full((len(lq),), t) for t in (0.2, 0.5, 0.9)]
    velocities = [network(torch.lerp(z_lq, noise, t[0].item()), t, condition) for t in times]
    restored, _ = restorer(lq, torch.arange(len(lq)))
    return torch.stack(velocities), restored, held_bytes(network.backbone)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, help="folder of degraded photographs")
    parser.add_argument("--count", type=int, default=3, help="photographs")
    parser.add_argument("--size", type=int, default=128, help="pixels a side, from the middle")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    args = parser.parse_args()
    lq = photographs(args.photos, args.count, args.size)
    expected, whole, size = looked_at(None, lq, args.dtype)
    print(f"{len(lq)} photographs of {args.size} px, {args.dtype}: {size / 2**20:.1f} MiB")
    print(f"{'':12}{'MiB':>7}{'rms':>9}{'largest':>9}{'PSNR':>8}")
    with tempfile.TemporaryDirectory() as folder:
        kinds = {kind: kind for kind in KINDS if kind != "fp8" or find_spec("torchao")}
        transformer = load_backbone(NANO).transformer
        for name in FILES:
            path = write_gguf(Path(folder) / f"{name}.gguf", transformer, name)
            kinds[f"gguf {name}"] = f"gguf:{path}"
        for name, kind in kinds.items():
            found, restored, held = looked_at(kind, lq, args.dtype)
            apart = found - expected
            rms = (apart.norm() / expected.norm()).item()
            largest = (apart.abs().max() / expected.abs().max()).item()
            near = psnr(restored.clamp(0, 1), whole.clamp(0, 1)).mean().item()
            print(f"{name:12}{held / 2**20:7.1f}{rms:9.4f}{largest:9.4f}{near:8.1f}")


if __name__ == "__main__":
    main()
