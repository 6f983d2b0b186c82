"""Pictures, folders of them, and weights of every metric.

Small and random, in the files and formats that real ones have.
"""

from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from lit_mimdit.evaluation.metrics import METRICS, Metric
from lit_mimdit.evaluation.weights import find_all


def picture(seed: int, height: int = 40, width: int = 52) -> np.ndarray:
    """(H, W, 3) uint8: smooth, with edges and a little noise, another one for each seed."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = sum(
        np.sin(
            x[..., None] * draw.uniform(0.02, 0.5, 3) + y[..., None] * draw.uniform(0.02, 0.5, 3)
        )
        for _ in range(4)
    )
    steps = 40 * ((x // draw.integers(5, 15) + y // draw.integers(5, 15)) % 2)[..., None]
    return (
        (110 + 25 * waves + steps + draw.normal(0, 2, (height, width, 3)))
        .clip(0, 255)
        .astype(np.uint8)
    )


def noisy(image: np.ndarray, sigma: float, seed: int = 0) -> np.ndarray:
    return (
        (image + np.random.default_rng(seed).normal(0, sigma, image.shape))
        .clip(0, 255)
        .astype(np.uint8)
    )


def save(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


@pytest.fixture
def folders(tmp_path, monkeypatch) -> Path:
    """restored/, degraded/ and reference/ with 6 images of 2 types, in other formats and side
    folders; the working directory.
    """
    monkeypatch.chdir(tmp_path)
    for number, kind in enumerate(["01Blur", "01Blur", "01Blur", "05Noise", "05Noise", "05Noise"]):
        clean = picture(number, 40 + 4 * (number % 2), 52)
        save(Path("reference", kind, "GT", f"{number:04}.PNG"), clean)
        save(Path("degraded", kind, "LQ", f"{number:04}.png"), noisy(clean, 25 + number, 1))
        save(Path("restored", kind, f"{number:04}.png"), noisy(clean, 6 + 3 * number, 2))
    return tmp_path


def random_state(model: torch.nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights that keep activations finite; the large classifier layers, which no metric uses, are
    stored as one number each.
    """
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, value in model.state_dict().items():
        if not value.is_floating_point():
            state[name] = value
        elif name.startswith(("classifier.", "fc.")):
            state[name] = torch.zeros(1).expand(value.shape)
        elif name.endswith("running_var") or value.ndim < 2:
            state[name] = torch.rand(value.shape, generator=generator) + 0.5
        else:
            state[name] = torch.randn(value.shape, generator=generator) / value[0].numel() ** 0.5
    return state


def _tiny_clip(path: Path, vision: int | tuple[int, ...], patch: int) -> None:
    """A TorchScript archive of a CLIP of width 64, as OpenAI's files are."""
    from pyiqa.archs.clip_model import CLIP

    torch.manual_seed(0)
    layers = vision if isinstance(vision, int) else tuple(vision)
    model = (
        CLIP(64, 224, layers, 64 if isinstance(vision, int) else 8, patch, 77, 49408, 64, 1, 1)
        .float()
        .eval()
    )
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):  # else all images come out nearly alike
            torch.nn.init.kaiming_normal_(module.weight)
    tokens = torch.zeros(1, 77, dtype=torch.long)
    tokens[0, 5] = 49407
    torch.jit.save(
        torch.jit.trace(model, (torch.rand(1, 3, 224, 224), tokens), check_trace=False), str(path)
    )


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory) -> Path:
    """A `weights` folder with random weights of every metric but lpips-vgg (550 MB)."""
    import torchvision
    from pyiqa.archs import inception
    from pyiqa.archs.clip_model import load as load_clip
    from pyiqa.archs.liqe_arch import LIQE  # noqa: F401
    from pyiqa.archs.lpips_arch import LPIPS  # noqa: F401
    from pyiqa.archs.musiq_arch import MUSIQ

    folder = tmp_path_factory.mktemp("weights")
    with torch.device("meta"):
        alexnet = torchvision.models.alexnet()
    torch.save(random_state(alexnet), folder / "alexnet-owt-7be5be79.pth")
    heads = {
        f"lin{i}.model.1.weight": torch.rand(1, width, 1, 1)
        for i, width in enumerate((64, 192, 384, 256, 256))
    }
    torch.save(heads, folder / "LPIPS_v0.1_alex-df73285e.pth")
    spread = np.random.default_rng(0).normal(size=(36, 80))
    scipy.io.savemat(
        folder / "niqe_modelparameters.mat",
        {"mu_prisparam": np.full((1, 36), 0.7), "cov_prisparam": spread @ spread.T / 80},
    )
    torch.save(MUSIQ(pretrained=False).state_dict(), folder / "musiq_koniq_ckpt-e95806b9.pth")
    loader, inception.load_pretrained_network = inception.load_pretrained_network, lambda *_: None
    try:
        trunk = inception.fid_inception_v3()
    finally:
        inception.load_pretrained_network = loader
    torch.save(random_state(trunk), folder / "pt_inception-2015-12-05-6726825d.pth")
    _tiny_clip(folder / "ViT-B-32.pt", 1, 32)
    _tiny_clip(folder / "ViT-L-14.pt", 1, 14)
    _tiny_clip(folder / "RN50.pt", (1, 1, 1, 1), 32)
    clip = {
        f"clip_model.{name}": value
        for name, value in load_clip(str(folder / "ViT-B-32.pt"), "cpu").state_dict().items()
    }
    for name in ("liqe_koniq.pt", "liqe_mix.pt"):
        torch.save({"params": clip}, folder / name)
    ctx, side = (
        torch.randn(2, 16, 64),
        {
            "token_prefix": torch.randn(2, 1, 64),
            "token_suffix": torch.randn(2, 60, 64),
        },
    )
    torch.save(ctx, folder / "CLIP-IQA+_learned_prompts-603f3273.pth")
    prompts = {f"prompt_learner.{name}": value for name, value in ({"ctx": ctx} | side).items()}
    torch.save({"params": prompts}, folder / "CLIPIQA+_ViTL14_512-e66488f2.pth")
    return folder


def real(key: str) -> Metric:
    """The metric, if its real weights are on this machine; else the test is skipped."""
    metric = METRICS[key]
    found, missing = find_all(metric)
    if missing:
        pytest.skip(
            f"no weights of {key} here: {', '.join(file.name for file in missing)}; `python -m"
            " lit_mimdit metrics` says where to put them"
        )
    return metric


def calibration() -> list[tuple[Path, Path]]:
    """(distorted, reference) images that pyiqa installs, with official scores known; skipped if it
    does not.
    """
    import pyiqa

    folder = Path(pyiqa.__file__).parents[1] / "ResultsCalibra"
    pairs = [
        (path, folder / "ref_dir" / path.name)
        for path in sorted((folder / "dist_dir").glob("I*.bmp"))
    ]
    if not pairs:
        pytest.skip("this pyiqa installs no calibration images")
    return pairs
