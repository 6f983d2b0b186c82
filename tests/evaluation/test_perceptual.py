"""pyiqa's metrics through the path that a user's weights take, their memory bounds, and golden
values where real weights are.
"""

import sys

import pytest
import torch

from lit_mimdit.data.image_io import read_rgb, to_tensor
from lit_mimdit.evaluation import weights
from lit_mimdit.evaluation.metrics import METRICS, MISSING, choose
from lit_mimdit.evaluation.perceptual import MAX_PIXELS, liqe_windows, load, scoring, tiles
from lit_mimdit.evaluation.scorer import Scorer

from .conftest import calibration, noisy, picture, real

CPU = torch.device("cpu")
RUNS = [key for key, metric in METRICS.items() if metric.backend == "pyiqa" and key != "lpips-vgg"]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Any attempt to download fails the test."""

    def refuse(*_, **__):
        raise AssertionError("a download was tried")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.fixture
def weights_here(random_weights, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv(weights.VARIABLE, str(random_weights))


def images(count: int = 2, height: int = 256, width: int = 288) -> torch.Tensor:
    return torch.stack([to_tensor(picture(seed, height, width)) for seed in range(count)])


@pytest.mark.parametrize("key", RUNS)
def test_every_metric_is_built_and_runs_from_files_of_the_table(key, weights_here, capsys):
    scorer = Scorer(key)
    assert scorer.missing == {} and {hit.file for hit in scorer.hits[key]} == set(
        METRICS[key].files
    )
    clean = images()
    little, much = noisy(picture(0, 256, 288), 20), noisy(picture(1, 256, 288) // 4, 60)
    other = torch.stack([to_tensor(little), to_tensor(much)])
    together = scorer.score(other, clean)
    assert [list(result.scores) for result in together] == [[key], [key]] and not any(
        result.errors for result in together
    )
    for index, result in enumerate(together):  # a batch is its images
        alone = scorer.score(other[index : index + 1], clean[index : index + 1])[0]
        assert alone.scores[key] == pytest.approx(result.scores[key], rel=1e-4)
    first, second = (result.scores[key] for result in together)
    assert first != pytest.approx(second, rel=1e-3), "or it is no proof that a batch is its images"
    assert capsys.readouterr().out == ""
    about = scorer.describe()[key]
    assert len(about["weights"]) == len(METRICS[key].files) and all(
        len(digest) == 64 for digest in about["weights"].values()
    )
    if any(file.prefix for file in METRICS[key].files):
        assert about["published_weights"] is False


def test_the_table_knows_the_files_and_addresses_of_pyiqa():
    from pyiqa.archs import (
        clip_model,
        clipiqa_arch,
        inception,
        liqe_arch,
        lpips_arch,
        musiq_arch,
        niqe_arch,
    )
    from pyiqa.default_model_configs import DEFAULT_CONFIGS

    places = {
        "lpips": lpips_arch.default_model_urls["0.1_alex"],
        "lpips-vgg": lpips_arch.default_model_urls["0.1_vgg"],
        "niqe": niqe_arch.default_model_urls["url"],
        "liqe": liqe_arch.default_model_urls["koniq"],
        "liqe_mix": liqe_arch.default_model_urls["mix"],
        "musiq": musiq_arch.default_model_urls["koniq10k"],
        "clipiqa+": clipiqa_arch.default_model_urls["clipiqa+"],
        "clipiqa+_vitL14_512": clipiqa_arch.default_model_urls["clipiqa+_vitL14_512"],
        "clipiqa": clip_model._MODELS["RN50"],
        "fid": inception.FID_WEIGHTS_URL,
    }
    for key, address in places.items():
        assert METRICS[key].files[-1].source == address, key
    assert METRICS["liqe"].files[0].source == clip_model._MODELS["ViT-B/32"]
    assert METRICS["clipiqa+_vitL14_512"].files[0].source == clip_model._MODELS["ViT-L/14"]
    for metric in METRICS.values():
        lower = DEFAULT_CONFIGS[metric.pyiqa].get("lower_better", False)
        assert metric.higher is not lower, metric.key


def test_liqe_sees_the_windows_that_pyiqa_would_choose(weights_here):
    """Exactly pyiqa's score, without its copy of every window.

    Sizes with more and with fewer than 15 windows.
    """
    found, _ = weights.find_all(METRICS["liqe"])
    net = load(METRICS["liqe"], found, CPU)
    for height, width in ((224, 224), (300, 256), (420, 500)):
        batch = images(2, height, width)
        net.net.step = 32
        with torch.no_grad():
            plain = net(batch).double().flatten()
        assert liqe_windows(batch, 15).shape[-1] <= 15 * 224
        assert torch.allclose(
            scoring(METRICS["liqe"], net, MAX_PIXELS, CPU)(batch, None), plain, rtol=1e-5
        )
    assert plain[0] != plain[1]


def test_tiles_cover_the_image_and_keep_the_cap():
    assert tiles(1528, 2720, MAX_PIXELS) == [(0, 1528, 0, 2720)], (
        "FoundIR's largest images are seen whole"
    )
    assert tiles(2160, 3840, MAX_PIXELS) == [(0, 2160, 0, 1920), (0, 2160, 1920, 3840)]
    assert tiles(100000, 100000, 0) == [(0, 100000, 0, 100000)]
    for height, width, cap in ((901, 1777, 60_000), (50, 9000, 60_000)):
        seen = torch.zeros(height, width, dtype=torch.int)
        for top, bottom, left, right in tiles(height, width, cap):
            assert 0 < (bottom - top) * (right - left) <= cap
            seen[top:bottom, left:right] += 1
        assert (seen == 1).all()


def test_an_image_above_the_cap_is_the_mean_of_its_tiles_and_says_so(weights_here):
    scorer = Scorer("musiq,niqe", max_pixels=256 * 300)
    image = images(1, 256, 600)
    (result,) = scorer.score(image, None)
    halves = [scorer.score(part, None)[0] for part in (image[..., :300], image[..., 300:])]
    assert result.scores["musiq"] == pytest.approx(
        sum(half.scores["musiq"] for half in halves) / 2, rel=1e-6
    )
    assert result.tiles == {"musiq": 2} and halves[0].tiles == {}
    assert (
        scorer.describe()["musiq"]["cap_pixels"] == 256 * 300
        and scorer.describe()["niqe"]["cap_pixels"] is None
    )
    with pytest.raises(ValueError, match="max_pixels is 100: tiles need at least 50176 pixels"):
        Scorer("musiq", max_pixels=100)


def test_weights_are_looked_for_in_order_and_missing_ones_are_said(
    random_weights, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(weights.VARIABLE, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path))
    scorer = Scorer("psnr,niqe,liqe,fid")
    assert scorer.missing["niqe"] == f"{MISSING} (niqe_modelparameters.mat)" and set(
        scorer.missing
    ) == {"niqe", "liqe", "fid"}
    assert (
        set(scorer.score(images(1), images(1))[0].scores) == {"psnr"} and not scorer.wants_features
    )
    file, name = METRICS["niqe"].files[0], "niqe_modelparameters.mat"
    for place in (
        "home/hub/pyiqa",
        "weights/hub/pyiqa",
        "weights/pyiqa",
        "weights",
        "variable",
        "given",
    ):  # each beats those before
        if place == "variable":
            monkeypatch.setenv(weights.VARIABLE, str(tmp_path / place))
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / name).write_bytes((random_weights / name).read_bytes())
        hit = weights.find(file, tmp_path / "given" if place == "given" else None)
        assert hit.path.resolve() == (tmp_path / place / name).resolve() and hit.genuine is None
    assert Scorer("niqe").missing == {}


class Payload:
    def __reduce__(self):
        return (exec, ("import pathlib; pathlib.Path('payload-ran').touch()",))


def test_a_file_that_would_run_code_or_is_damaged_is_refused_in_one_line(
    random_weights, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    name = "musiq_koniq_ckpt-e95806b9.pth"
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path))
    torch.save({"x": Payload()}, name)
    with pytest.raises(
        ValueError,
        match=(
            "metric musiq: its weights cannot be used .more than tensors in a file that is not the"
            " published"
        ),
    ):
        Scorer("musiq")
    assert not (tmp_path / "payload-ran").exists()
    (tmp_path / name).write_bytes((random_weights / name).read_bytes()[:1000])
    with pytest.raises(ValueError, match="metric musiq: its weights cannot be used") as caught:
        Scorer("musiq")
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_a_download_is_tried_only_when_asked_for(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(weights.VARIABLE, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    asked = []

    def fetch(url, target, prefix, progress):
        asked.append((url, prefix))
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    assert Scorer("musiq").missing and asked == []
    with pytest.raises(
        ValueError,
        match=(
            "musiq_koniq_ckpt-e95806b9.pth: no download from https://.*no network.*put it into"
            " weights"
        ),
    ):
        Scorer("musiq", download=True)
    assert asked == [(METRICS["musiq"].files[0].source, "e95806b9")]


def test_images_that_a_metric_cannot_take_are_errors_not_numbers(weights_here):
    small, flat = images(1, 100, 300), torch.full((1, 3, 100, 100), 0.5)
    scorer = Scorer("liqe,niqe")
    (result,) = scorer.score(small, None)
    assert result.errors["liqe"] == "image is 300 x 100 pixels, LIQE needs 224 a side"
    (result,) = scorer.score(flat, None)
    assert "niqe" not in result.scores and "niqe" in result.errors, "one block has no covariance"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_an_error(value):
    scorer = Scorer("psnr")
    scorer.metrics, scorer._score = (
        choose("niqe,psnr"),
        {"niqe": lambda images, _: torch.tensor([3.0, value])},
    )
    first, second = scorer.score(images(2), images(2))
    assert (
        first.scores["niqe"] == 3.0
        and second.errors == {"niqe": f"the score is {value}"}
        and set(second.scores) == {"psnr"}
    )


def test_keys_and_aliases():
    assert [metric.key for metric in choose("ssim,ssimc, psnr_rgb,psnr,psnry")] == [
        "ssim_y",
        "ssim_rgb",
        "psnr",
        "psnr_y",
    ]
    with pytest.raises(
        ValueError,
        match="metrics: no metric 'lpip'; choose among psnr, psnr_y, ssim_y, ssim_rgb, lpips",
    ):
        choose("lpip")


def test_lpips_of_real_weights_is_the_published_one():
    """Values that pyiqa's authors give for these five pairs."""
    net = load(real("lpips"), weights.find_all(METRICS["lpips"])[0], CPU)
    official = [0.7237, 0.2572, 0.0508, 0.0521, 0.4253]
    for (distorted, reference), value in zip(calibration(), official, strict=True):
        x, y = (to_tensor(read_rgb(path))[None] for path in (distorted, reference))
        assert scoring(METRICS["lpips"], net, MAX_PIXELS, CPU)(x, y).item() == pytest.approx(
            value, abs=1e-4
        )


def test_lpips_is_the_lpips_packages(weights_here):
    """The same weights in the package of LPIPS' authors."""
    lpips = pytest.importorskip("lpips", reason="the lpips package is not installed")
    found, _ = weights.find_all(METRICS["lpips"])
    trunk, heads = (torch.load(hit.path, weights_only=True) for hit in found)
    theirs = lpips.LPIPS(net="alex", pretrained=False, pnet_rand=True, verbose=False).eval()
    theirs.net.load_state_dict(
        {name: trunk[f"features.{name.split('.', 1)[1]}"] for name in theirs.net.state_dict()}
    )
    kept = {
        name: value
        for name, value in theirs.state_dict().items()
        if name.startswith(("net.", "scaling_layer.", "lins."))
    }
    theirs.load_state_dict(kept | heads)  # strict: the heads must be all that was missing
    clean, other = images(1), images(2)[1:]
    with torch.no_grad():
        value = theirs(other * 2 - 1, clean * 2 - 1).item()
    assert Scorer("lpips").score(other, clean)[0].scores["lpips"] == pytest.approx(value, rel=1e-4)
    assert sys.modules["lpips"]
