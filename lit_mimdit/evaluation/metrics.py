"""The table of metrics: what each is called, which way is better, what it needs.

`clipiqa`, `clipiqa+` and `clipiqa+_vitL14_512` are different metrics, and so are `lpips` and
`lpips-vgg`: the key is part of every result. Keys are pyiqa's, except for PSNR and SSIM, whose
pyiqa names (`psnr` is RGB, `ssim` is Y) invite mistakes; those are aliases.
"""

from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal
from urllib.parse import quote

from lit_mimdit import __version__

HUB = "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/"
TORCHVISION = "https://download.pytorch.org/models/"
CLIP = "https://openaipublic.azureedge.net/clip/models/"
DEFAULT = (
    "psnr",
    "psnr_y",
    "ssim_y",
    "ssim_rgb",
    "lpips",
    "fid",
    "niqe",
    "liqe",
    "musiq",
    "clipiqa+_vitL14_512",
)
MISSING = "not computed: weights missing"
NO_REFERENCE = "not computed: no reference images"


@dataclass(frozen=True)
class WeightFile:
    """A file of weights as it is published.

    name: its file name.
    folder: the sub-folder of a torch hub cache it belongs to.
    source: its address.
    prefix: the first digits of the published file's sha256, where they are known.
    """

    name: str
    folder: Literal["checkpoints", "pyiqa", "clip"]
    source: str
    prefix: str | None = None

    @property
    def cached(self) -> str:
        """Its name in pyiqa's cache, where a + stays as its address has it (%2B)."""
        return self.source.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Metric:
    """One row of the table.

    key: its name in commands and results.
    label: its name in tables.
    higher: whether higher is better.
    needs: "pair" an image and its reference, "image" the image alone, "set" all images and all
        references.
    backend: "pixel" (this package), "pyiqa", or "set".
    pyiqa: its name there.
    files: its weights.
    min_side: smallest image side in pixels.
    tiled: images above the cap are scored in tiles.
    published: its column in the paper's tables.
    aliases: other names it answers to.
    decimals: those shown in tables.
    """

    key: str
    label: str
    higher: bool
    needs: Literal["pair", "image", "set"]
    backend: Literal["pixel", "pyiqa", "set"]
    pyiqa: str | None = None
    files: tuple[WeightFile, ...] = ()
    min_side: int = 1
    tiled: bool = False
    published: str | None = None
    aliases: tuple[str, ...] = ()
    decimals: int = 4

    @property
    def arrow(self) -> str:
        return "↑" if self.higher else "↓"

    @property
    def direction(self) -> str:
        return "higher is better" if self.higher else "lower is better"

    @property
    def implementation(self) -> str:
        """Returns what computes it, with its version."""
        if self.backend == "pixel":
            return f"lit_mimdit {__version__}"
        if self.key == "fid_torchmetrics":
            return f"torchmetrics {version('torchmetrics')}, features of pyiqa {version('pyiqa')}"
        return (
            f"pyiqa {version('pyiqa')}"
            if self.backend == "pyiqa"
            else f"lit_mimdit {__version__}, features of pyiqa {version('pyiqa')}"
        )


def _hub(name: str, prefix: str | None = None) -> WeightFile:
    return WeightFile(name, "pyiqa", HUB + quote(name), prefix)


def _clip(name: str, sha256: str) -> WeightFile:
    return WeightFile(name, "clip", f"{CLIP}{sha256}/{name}", sha256)


ALEXNET = WeightFile(
    "alexnet-owt-7be5be79.pth", "checkpoints", TORCHVISION + "alexnet-owt-7be5be79.pth", "7be5be79"
)
VGG16 = WeightFile(
    "vgg16-397923af.pth", "checkpoints", TORCHVISION + "vgg16-397923af.pth", "397923af"
)
RN50 = _clip("RN50.pt", "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762")
VIT_B_32 = _clip("ViT-B-32.pt", "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af")
VIT_L_14 = _clip("ViT-L-14.pt", "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836")
INCEPTION = _hub("pt_inception-2015-12-05-6726825d.pth", "6726825d")

_LPIPS_ALEX = (ALEXNET, _hub("LPIPS_v0.1_alex-df73285e.pth", "df73285e"))
_LPIPS_VGG = (VGG16, _hub("LPIPS_v0.1_vgg-a78928a0.pth", "a78928a0"))
_MUSIQ = (_hub("musiq_koniq_ckpt-e95806b9.pth", "e95806b9"),)
_PLUS = (RN50, _hub("CLIP-IQA+_learned_prompts-603f3273.pth", "603f3273"))
_PLUS_L = (VIT_L_14, _hub("CLIPIQA+_ViTL14_512-e66488f2.pth", "e66488f2"))

_TABLE = (
    Metric(
        "psnr", "PSNR RGB (dB)", True, "pair", "pixel", "psnr", aliases=("psnr_rgb",), decimals=2
    ),
    Metric("psnr_y", "PSNR Y (dB)", True, "pair", "pixel", "psnry", aliases=("psnry",), decimals=2),
    Metric("ssim_y", "SSIM Y", True, "pair", "pixel", "ssim", min_side=11, aliases=("ssim",)),
    Metric("ssim_rgb", "SSIM RGB", True, "pair", "pixel", "ssimc", min_side=11, aliases=("ssimc",)),
    Metric(
        "lpips", "LPIPS (Alex)", False, "pair", "pyiqa", "lpips", _LPIPS_ALEX, 64, published="LPIPS"
    ),
    Metric(
        "lpips-vgg", "LPIPS (VGG)", False, "pair", "pyiqa", "lpips-vgg", _LPIPS_VGG, 32, tiled=True
    ),
    Metric("fid", "FID (clean)", False, "set", "set", "fid", (INCEPTION,), published="FID"),
    Metric(
        "fid_torchmetrics", "FID (clean, torchmetrics)", False, "set", "set", "fid", (INCEPTION,)
    ),
    Metric(
        key="niqe",
        label="NIQE",
        higher=False,
        needs="image",
        backend="pyiqa",
        pyiqa="niqe",
        files=(_hub("niqe_modelparameters.mat"),),
        min_side=96,
        published="NIQE",
    ),
    Metric(
        key="liqe",
        label="LIQE",
        higher=True,
        needs="image",
        backend="pyiqa",
        pyiqa="liqe",
        files=(VIT_B_32, _hub("liqe_koniq.pt")),
        min_side=224,
        published="LIQE",
    ),
    Metric(
        key="liqe_mix",
        label="LIQE (mix)",
        higher=True,
        needs="image",
        backend="pyiqa",
        pyiqa="liqe_mix",
        files=(VIT_B_32, _hub("liqe_mix.pt")),
        min_side=224,
    ),
    Metric(
        key="musiq",
        label="MUSIQ (KonIQ)",
        higher=True,
        needs="image",
        backend="pyiqa",
        pyiqa="musiq",
        files=_MUSIQ,
        min_side=32,
        tiled=True,
        published="MUSIQ",
        decimals=3,
    ),
    Metric("clipiqa", "CLIPIQA (RN50)", True, "image", "pyiqa", "clipiqa", (RN50,), 64, tiled=True),
    Metric(
        "clipiqa+", "CLIPIQA+ (RN50)", True, "image", "pyiqa", "clipiqa+", _PLUS, 64, tiled=True
    ),
    Metric(
        key="clipiqa+_vitL14_512",
        label="CLIPIQA+ (ViT-L/14)",
        higher=True,
        needs="image",
        backend="pyiqa",
        pyiqa="clipiqa+_vitL14_512",
        files=_PLUS_L,
        min_side=64,
        tiled=True,
        published="CLIP-IQA",
    ),
)
METRICS: dict[str, Metric] = {metric.key: metric for metric in _TABLE}
_NAMES = {name: metric for metric in _TABLE for name in (metric.key, *metric.aliases)}


def choose(names: str | list[str] | tuple[str, ...], where: str = "metrics") -> list[Metric]:
    """Returns metrics by key or alias, in the order given, each once; a text is split at commas.

    Raises ValueError.
    """
    wanted = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    unknown = [name for name in wanted if name not in _NAMES]
    if unknown or not wanted:
        raise ValueError(
            f"{where}: no metric {', '.join(map(repr, unknown)) or 'named'}; choose among"
            f" {', '.join(METRICS)}"
        )
    return list(dict.fromkeys(_NAMES[name] for name in wanted))
