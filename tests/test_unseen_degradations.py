"""benchmarks/unseen_degradations.py: its pairs from two photographs, twice, and what it refuses."""

import ast
import csv
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import unseen_degradations as unseen

pytestmark = pytest.mark.usefixtures("takes_seconds")  # 36 photographs are degraded whole, twice

KINDS = ["blur", "noise", "haze", "rain", "low_light"]
NAMES = [f"{index:04d}.png" for index in range(6)]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    Image.fromarray(data.astronaut()[:180, 100:300]).save(folder / "a.png")
    Image.fromarray(data.coffee()[100:300, 100:280]).save(folder / "b.png")
    return folder


def make(photos: Path, output: Path, *options: str) -> Path:
    unseen.main([str(photos), "-o", str(output), "--count", "6", *options])
    return output


@pytest.fixture(scope="module")
def pairs(photos, tmp_path_factory) -> Path:
    return make(photos, tmp_path_factory.mktemp("pairs") / "once")


def images(pairs: Path, kind: str, side: str) -> np.ndarray:
    files = sorted((pairs / kind / side).iterdir())
    assert [file.name for file in files] == NAMES
    return np.stack([np.asarray(Image.open(file)) for file in files])


def test_layout_and_table(pairs):
    folders = {path.name for path in pairs.iterdir() if path.is_dir()}
    assert folders == {*KINDS, "clean"}
    for kind in folders:
        for side in ("lq", "gt"):
            assert images(pairs, kind, side).shape == (6, 128, 128, 3)
    with open(pairs / "samples.csv", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    assert [row["image"] for row in rows] == NAMES * 6
    assert {row["photograph"] for row in rows} == {"a.png", "b.png"}
    for kind in KINDS:
        models = {name for name, _ in unseen.KINDS[kind][1] if not name.startswith("white ")}
        assert len({row["model"] for row in rows if row["kind"] == kind} & models) >= 3


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_degrades_every_crop(pairs, kind):
    degraded, clean = (images(pairs, kind, side).astype(float) for side in ("lq", "gt"))
    errors = np.sqrt(((degraded - clean) ** 2).mean((1, 2, 3)))
    assert errors.min() > 3, errors


def test_kinds_do_what_they_are_called(pairs):
    def detail(kind: str, side: str) -> np.ndarray:
        return np.abs(np.diff(images(pairs, kind, side).astype(float), axis=2)).mean((1, 2, 3))

    means = {(k, s): images(pairs, k, s).mean((1, 2, 3)) for k in KINDS for s in ("lq", "gt")}
    assert (means["low_light", "lq"] < 0.5 * means["low_light", "gt"]).all()
    assert (means["rain", "lq"] > means["rain", "gt"]).all()
    assert (detail("blur", "lq") < detail("blur", "gt")).all()
    assert (detail("haze", "lq") < detail("haze", "gt")).all()
    assert (detail("noise", "lq") > detail("noise", "gt")).all()


def test_clean_pairs_are_equal_and_differ_from_each_other(pairs):
    clean = images(pairs, "clean", "gt")
    assert np.array_equal(images(pairs, "clean", "lq"), clean)
    assert len({one.tobytes() for one in clean}) == 6


def test_the_seed_decides_everything(pairs, photos, tmp_path):
    again, other = make(photos, tmp_path / "a"), make(photos, tmp_path / "b", "--seed", "1")
    for kind in (*KINDS, "clean"):
        assert np.array_equal(images(again, kind, "lq"), images(pairs, kind, "lq"))
        assert not np.array_equal(images(other, kind, "lq"), images(pairs, kind, "lq"))


def test_models_take_their_shares_of_any_count():
    for kind, (_, models) in unseen.KINDS.items():
        assert sum(share for _, share in models) == unseen.SHARES
        whole = [unseen.model_of(kind, index, 24) for index in range(24)]
        assert [unseen.model_of(kind, index, 12) for index in range(12)] == whole[::2]
        twice = [unseen.model_of(kind, index, 48) for index in range(48)]
        assert twice[::2] == twice[1::2] == whole


def test_kernels_keep_brightness_and_place():
    rng = np.random.default_rng(0)
    for model in ("line", "shake", "round", "oval", "defocus"):
        kernel = unseen.blur_kernel(rng, model)
        y, x = np.indices(kernel.shape) - kernel.shape[0] // 2
        assert kernel.sum() == pytest.approx(1)
        assert [(kernel * y).sum(), (kernel * x).sum()] == pytest.approx([0, 0], abs=0.05)


def test_nothing_of_the_training_is_imported():
    tree = ast.parse(Path(unseen.__file__).read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    own = {name for name in modules if name.startswith("lit_mimdit")}
    assert own == {"lit_mimdit.data.image_io"}


def test_what_it_refuses(pairs, photos, tmp_path):
    with pytest.raises(ValueError, match="name a new folder"):
        make(photos, pairs)
    with pytest.raises(ValueError, match=r"a\.png has 200x180 pixels.* need 192 a side"):
        make(photos, tmp_path / "large", "--size", "176")
    with pytest.raises(ValueError, match="has no images"):
        make(tmp_path, tmp_path / "none")
