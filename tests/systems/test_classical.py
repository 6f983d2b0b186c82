"""Classical tools.

Each undoes its degradation where its model of it is right, and its formulas hold.
"""

import json

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.data import astronaut

from lit_mimdit.cli import main
from lit_mimdit.systems import classical as tools


@pytest.fixture(scope="module")
def photo():
    return np.float32(astronaut()[50:178, 150:278]) / 255


def psnr(image, reference):
    return -10 * np.log10(np.mean((np.clip(image, 0, 1) - reference) ** 2))


def test_wiener_sharpens_what_its_kernel_blurred(photo):
    blurred = np.float32(gaussian_filter(photo, (1.5, 1.5, 0)))
    assert psnr(tools.wiener(blurred), photo) > psnr(blurred, photo) + 1


def test_the_noise_level_of_white_noise():
    noise = np.random.default_rng(0).normal(0.5, 0.1, (200, 200, 3))
    assert tools.noise_level(noise) == pytest.approx(0.1, rel=0.02)


def test_non_local_means_takes_noise_out(photo):
    noisy = np.float32(photo + np.random.default_rng(0).normal(0, 0.08, photo.shape))
    assert psnr(tools.nlm(noisy), photo) > psnr(noisy, photo) + 4


def test_transmission_of_haze_over_a_scene_with_dark_pixels():
    scene = np.zeros((20, 20, 3), np.float32)
    scene[::2, ::2] = 0.6
    light, through = np.array([0.8, 0.9, 1.0], np.float32), 0.4
    hazy = scene * through + light * (1 - through)
    np.testing.assert_allclose(
        tools.transmission(hazy, light, patch=5, omega=1.0), through, atol=1e-6
    )


def test_dark_channel_lifts_even_haze(photo):
    hazy = np.float32(photo * 0.5 + 0.9 * 0.5)
    assert psnr(tools.dark_channel(hazy), photo) > psnr(hazy, photo) + 4


def test_a_guided_filter_gives_back_an_affine_function_of_its_guide():
    guide = np.random.default_rng(0).random((30, 40))
    np.testing.assert_allclose(
        tools.guided_filter(guide, 0.3 * guide + 0.2, radius=3, epsilon=1e-9),
        0.3 * guide + 0.2,
        atol=1e-5,
    )
    smooth = tools.guided_filter(np.zeros((30, 40)), guide, radius=3, epsilon=1e-3)
    assert smooth[15, 20] == pytest.approx(
        np.mean([guide[y : y + 7, x : x + 7].mean() for y in range(9, 16) for x in range(14, 21)])
    )


def test_median_removes_a_streak_and_keeps_an_edge():
    image = np.zeros((9, 9, 3), np.float32)
    image[:, 5:] = 0.5
    streaked = image.copy()
    streaked[:, 2] = 1.0
    np.testing.assert_array_equal(tools.median(streaked), image)


def test_gamma_reaches_its_mean_on_an_even_image_and_clahe_raises_contrast(photo):
    np.testing.assert_allclose(tools.gamma(np.full((4, 4, 3), 0.05)), 0.45, atol=1e-6)
    dull = 0.1 + 0.1 * photo
    assert tools.clahe(dull).std() > 2 * dull.std()


@pytest.mark.parametrize("method", tools.METHODS)
def test_every_method_writes_a_folder_of_the_same_names_and_sizes(method, tmp_path, photo):
    (tmp_path / "in").mkdir()
    Image.fromarray(np.uint8(photo[:41, :52] * 255)).save(tmp_path / "in" / "a.jpg")
    assert (
        main(["classical", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--method", method])
        == 0
    )
    assert Image.open(tmp_path / "out" / "a.png").size == (52, 41)


def test_outputs_are_treated_as_those_of_restore(tmp_path, photo, capsys):
    given, out = tmp_path / "in", tmp_path / "out"
    given.mkdir(), out.mkdir()
    exif = Image.Exif()
    exif[271] = "Camera"
    pixels = np.uint8(photo[:41, :52] * 255)
    for name in ("a.jpg", "b.jpg"):
        Image.fromarray(pixels).save(given / name, exif=exif)
    (given / "c.jpg").write_bytes(b"")
    (out / "b.png").write_bytes(b"of somebody else")
    command = ["classical", str(given), "-o", str(out), "--method", "median"]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "b.png exists and was not made by restore" in said and "c.jpg: the file is empty" in said
    assert (out / "b.png").read_bytes() == b"of somebody else"
    assert Image.open(out / "a.png").getexif()[271] == "Camera"
    first = (out / "a.png").stat().st_mtime_ns
    assert main([*command, "--overwrite"]) == 1
    assert "1 photograph(s) are finished already" in capsys.readouterr().err
    assert (out / "a.png").stat().st_mtime_ns == first
    assert Image.open(out / "b.png").size == (52, 41)
    record = json.loads((out / "restoration.json").read_text("utf-8"))
    assert sorted(record["files"]) == ["a.png", "b.png"] and record["system"]["method"] == "median"
    assert main(["classical", str(given / "a.jpg"), "-o", str(out / "b.png"), *command[4:]]) == 2
    assert "b.png exists" in capsys.readouterr().err
