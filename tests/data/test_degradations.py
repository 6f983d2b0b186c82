"""Degradations against their equations, worked out independently of the code."""

import io

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio as psnr

from lit_mimdit.data import degradations, photographs
from lit_mimdit.data.composition import DEGRADATIONS, FOUNDIR_TYPES, compose, degrade
from lit_mimdit.data.degradations import SEVERITIES

ALL = list(DEGRADATIONS)


@pytest.fixture(scope="module")
def photograph():
    return photographs.load("astronaut")[40:300, 100:420].astype(np.float32) / 255


def rng(seed=0):
    return np.random.default_rng(seed)


def decode_srgb(value):
    """sRGB to linear light, one value at a time, straight from IEC 61966-2-1."""
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def linear(image):
    return np.vectorize(decode_srgb)(np.asarray(image, np.float64))


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", ALL)
def test_contract(photograph, name, severity):
    before = photograph.copy()
    first, again = (DEGRADATIONS[name](photograph, severity, rng(3)) for _ in range(2))
    other = DEGRADATIONS[name](photograph, severity, rng(4))
    assert np.array_equal(first, again)
    if name != "jpeg":  # two seeds may draw one quality
        assert not np.array_equal(first, other)
    assert np.array_equal(photograph, before)
    assert first.dtype == np.float32 and first.shape == photograph.shape
    assert first.min() >= 0 and first.max() <= 1
    assert not np.shares_memory(first, photograph)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 90, 3), (33, 17, 3)])
def test_any_size(name, shape):
    assert DEGRADATIONS[name](np.full(shape, 0.5, np.float32), "heavy", rng()).shape == shape


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", [*ALL, *FOUNDIR_TYPES])
def test_severities_are_steps(photograph, name, seed):
    names, face = FOUNDIR_TYPES.get(name, (name,)), photograph[20:180, 60:240]
    light, medium, heavy = (
        psnr(face, degrade(face, names, severity, rng(seed)), data_range=1)
        for severity in SEVERITIES
    )
    assert light > medium + 0.3 and medium > heavy + 0.3
    assert light < 34  # visible; light noise at sigma 8 is 30 dB


def test_srgb_curve():
    values = np.linspace(0, 1, 256, dtype=np.float32)
    np.testing.assert_allclose(degradations.srgb_to_linear(values), linear(values), atol=1e-6)
    np.testing.assert_allclose(
        degradations.linear_to_srgb(linear(values).astype(np.float32)), values, atol=1e-6
    )


# --- Blur -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("angle", [0, 0.4, np.pi / 2, 2.5])
def test_motion_psf_lies_along_its_direction(angle):
    psf = degradations.motion_psf(30, angle, 0)
    assert psf.sum() == pytest.approx(1, abs=1e-9) and psf.min() >= 0
    y, x = np.mgrid[: psf.shape[0], : psf.shape[1]] - psf.shape[0] // 2
    assert (psf * x).sum() == pytest.approx(0, abs=1e-9) and (psf * y).sum() == pytest.approx(
        0, abs=1e-9
    )
    along, across = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    # The variance of a uniform segment is length^2 / 12; bilinear deposition adds at most 1/4
    # square pixel in each direction.
    assert (psf * along**2).sum() == pytest.approx(30**2 / 12, abs=0.3)
    assert (psf * across**2).sum() < 0.3


def test_motion_psf_turns():
    straight, curved = degradations.motion_psf(30, 0, 0), degradations.motion_psf(30, 0, np.pi / 2)
    # A quarter circle of length 30 has radius 60 / pi and sagitta radius (1 - cos 45 deg) = 5.6 px,
    # a straight line none.
    assert np.ptp(np.nonzero(straight)[0]) == 0
    assert np.ptp(np.nonzero(curved)[0]) == pytest.approx(
        60 / np.pi * (1 - np.cos(np.pi / 4)), abs=1.5
    )


def test_disc_psf():
    psf = degradations.disc_psf(6.3)
    y, x = np.mgrid[: psf.shape[0], : psf.shape[1]] - psf.shape[0] // 2
    assert psf.sum() == pytest.approx(1)
    assert (psf * (x**2 + y**2)).sum() == pytest.approx(
        6.3**2 / 2, rel=0.03
    )  # second moment of a uniform disc: r^2 / 2


def test_convolution_spreads_a_point_as_the_psf():
    psf = rng().random((5, 5))
    point = np.zeros((11, 12, 3), np.float32)
    point[4, 6] = 1
    spread = degradations.convolve(point, psf)
    np.testing.assert_allclose(spread[2:7, 4:9, 1], psf, atol=1e-6)
    assert spread.sum() == pytest.approx(3 * psf.sum(), rel=1e-5)


@pytest.mark.parametrize("name", ["motion_blur", "defocus_blur"])
def test_blur_is_in_linear_light_and_keeps_it(name):
    """A black and white checkerboard blurs to half the *light*, sRGB 0.735, not to sRGB 0.5; a flat
    image stays as it is.
    """
    checkerboard = np.repeat((np.indices((64, 64)).sum(0) % 2).astype(np.float32)[..., None], 3, 2)
    blurred = DEGRADATIONS[name](checkerboard, "heavy", rng(1))
    assert blurred.mean() == pytest.approx(0.7354, abs=0.01)
    flat = np.full((40, 30, 3), 0.3, np.float32)
    np.testing.assert_allclose(DEGRADATIONS[name](flat, "heavy", rng(1)), flat, atol=1e-5)


# --- Noise and exposure ---------------------------------------------------------------------------


def test_poissonian_gaussian_has_the_variance_of_the_model():
    a, b = 0.02, 0.003**2
    for level in (0.0, 0.1, 0.4, 0.8):
        y = degradations.poissonian_gaussian(np.full(400_000, level, np.float32), a, b, rng(1))
        assert y.mean() == pytest.approx(level, abs=1e-3)
        assert y.var() == pytest.approx(a * level + b, rel=0.02)


def test_sensor_noise_variance_grows_linearly_with_light():
    """Variance at three grey levels, measured in linear light, lies on one line a x + b with a in
    the documented range.
    """
    levels = np.array(
        [0.35, 0.5, 0.62]
    )  # sRGB, far enough from the ends not to be clipped at this severity
    variances = []
    for level in levels:
        noisy = degradations.sensor_noise(
            np.full((256, 256, 3), level, np.float32), "light", rng(7)
        )
        variances.append(linear(noisy[::2, ::2]).var())
    light = linear(levels)
    a, b = np.polyfit(light, variances, 1)
    assert 0.004 < a < 0.008
    assert abs(b) < 1e-4
    np.testing.assert_allclose(variances, a * light + b, rtol=0.03)


def test_gaussian_noise_has_the_documented_sigma():
    grey = np.full((256, 256, 3), 0.5, np.float32)
    for severity, (low, high) in {"light": (8, 15), "medium": (20, 30), "heavy": (40, 55)}.items():
        for seed in range(4):
            residual = (degradations.gaussian_noise(grey, severity, rng(seed)) - grey) * 255
            assert low * 0.98 < residual.std() < high * 1.02
            assert abs(residual.mean()) < 1


def test_low_light_divides_the_light():
    """Without its gamma (at most 1.2) the mean linear light falls by the documented ratio."""
    grey = np.full((256, 256, 3), 0.8, np.float32)
    for severity, (low, high) in {"light": (3, 5), "medium": (8, 13), "heavy": (22, 34)}.items():
        dark = degradations.low_light(grey, severity, rng(2)).mean()
        assert decode_srgb(dark) < decode_srgb(0.8) / low * 1.02
        assert decode_srgb(dark ** (1 / 1.2)) > decode_srgb(0.8) / high * 0.98


def test_low_light_with_less_grain():
    """Of a flat scene all deviation is noise, which the tone curve leaves nearly in proportion; the
    exposure is the same.
    """
    grey = np.full((128, 128, 3), 0.8, np.float32)
    full, half, none = (
        degradations.low_light(grey, "light", rng(2), grain) for grain in (1.0, 0.5, 0.0)
    )
    assert half.std() == pytest.approx(full.std() / 2, rel=0.02) and none.std() < 1e-6
    assert full.mean() == pytest.approx(none.mean(), abs=1e-3)
    assert np.array_equal(full, degradations.low_light(grey, "light", rng(2)))
    dark = [
        degrade(grey, ("low_light", "noise"), "light", rng(2), grain=grain) for grain in (1.0, 0.0)
    ]
    assert dark[0].std() > dark[1].std() > 0.01, "other noise stays"
    with pytest.raises(ValueError, match="grain is 1.5"):
        degradations.low_light(grey, "light", rng(2), 1.5)


# --- Scene, lens, encoder -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "severity,low,high", [("light", 0.45, 0.65), ("medium", 1.0, 1.3), ("heavy", 2.0, 2.5)]
)
def test_haze_obeys_the_scattering_equation(severity, low, high):
    """On a constant image J with depths 0, 1/2, 1.

    (I(1) - J) / (I(1/2) - J) = 1 + t(1/2), which gives beta and the airlight.
    """
    image = np.full((4, 100, 3), 0.4, np.float32)
    depth = np.zeros((4, 100), np.float32)
    depth[1], depth[2], depth[3] = 0.5, 1, 0.25
    hazy = linear(degradations.haze(image, severity, rng(5), depth))[:, 0, 0]
    j = decode_srgb(0.4)
    assert hazy[0] == pytest.approx(j, abs=1e-5)
    t_half = (hazy[2] - j) / (hazy[1] - j) - 1
    assert low < -2 * np.log(t_half) < high
    airlight = j + (hazy[1] - j) / (1 - t_half)
    assert hazy[3] == pytest.approx(j * t_half**0.5 + airlight * (1 - t_half**0.5), abs=1e-4)


def test_haze_uses_the_depth_it_is_given_and_refuses_a_wrong_one(photograph):
    near, far = (np.full(photograph.shape[:2], depth, np.float32) for depth in (0, 1))
    np.testing.assert_allclose(
        degradations.haze(photograph, "heavy", rng(), near), photograph, atol=1e-5
    )
    assert degradations.haze(photograph, "heavy", rng(), far).std() < 0.5 * photograph.std()
    for wrong in (far[1:], -far, far * np.nan):
        with pytest.raises(ValueError, match="depth must be finite"):
            degradations.haze(photograph, "heavy", rng(), wrong)


def test_drawn_depth_is_a_smooth_scene_that_recedes_upwards():
    for seed in range(20):
        depth = degradations.draw_depth(120, 160, rng(seed))
        assert depth.min() > 0 and depth.max() == 1
        assert depth[:20].mean() > 1.5 * depth[-20:].mean()
        assert max(np.abs(np.diff(depth, axis=axis)).max() for axis in (0, 1)) < 0.05


def test_rain_streaks_fall():
    """Streaks only add light on a dark scene, and change fast across their direction, slowly along
    it (within 23 degrees of vertical).
    """
    opacity = degradations.rain_opacity(256, 256, 2.0, rng(3))
    assert opacity.min() >= 0 and opacity.max() < 1
    across, along = np.abs(np.diff(opacity, axis=1)).mean(), np.abs(np.diff(opacity, axis=0)).mean()
    assert across > 1.8 * along
    dark = np.full((128, 128, 3), 0.1, np.float32)
    assert (degradations.rain(dark, "medium", rng(3)) > dark).all()


def test_raindrops_cover_the_documented_part_and_leave_the_rest(photograph):
    for severity, (low, high) in {
        "light": (0.07, 0.10),
        "medium": (0.16, 0.22),
        "heavy": (0.32, 0.40),
    }.items():
        changed = (
            np.abs(degradations.raindrop(photograph, severity, rng(2)) - photograph).max(2) > 1e-3
        ).mean()
        assert (
            0.4 * low < changed < 1.9 * high
        )  # overlaps and borders take away, soft rims and irregular outlines add


def test_jpeg_equals_the_encoder(photograph):
    for severity in SEVERITIES:
        file = io.BytesIO()
        image = Image.fromarray(np.rint(photograph * 255).astype(np.uint8))
        image.save(file, "JPEG", quality=degradations.jpeg_quality(severity, rng(6)))
        np.testing.assert_array_equal(
            degradations.jpeg(photograph, severity, rng(6)),
            np.float32(Image.open(file)) / np.float32(255),
        )


# --- Composition ----------------------------------------------------------------------------------


def test_foundir_types():
    assert len(FOUNDIR_TYPES) == 20
    assert [name[:2] for name in FOUNDIR_TYPES] == [f"{number:02d}" for number in range(1, 21)]
    assert sum(len(names) == 1 for names in FOUNDIR_TYPES.values()) == 7
    for folder, names in FOUNDIR_TYPES.items():
        words = (
            folder[2:]
            .replace("NightRain", "Lowlight_Rain")
            .replace("Lowlight", "low-light")
            .lower()
            .split("_")
        )
        assert [name.replace("_", "-") for name in names] == words


def test_composition_is_in_physical_order_and_chains_the_steps(photograph):
    names = ["low_light", "noise", "jpeg", "blur", "raindrop", "rain", "haze"]
    steps = compose(names, "heavy", rng(9))
    assert [step.name for step in steps] == [
        "haze",
        "rain",
        "raindrop",
        "blur",
        "low_light",
        "noise",
        "jpeg",
    ]
    assert [step.severity for step in steps] == [
        "light",
        "light",
        "light",
        "light",
        "heavy",
        "medium",
        "light",
    ]
    expected = photograph
    for step in steps:
        expected = DEGRADATIONS[step.name](expected, step.severity, step.generator)
    assert np.array_equal(degrade(photograph, names, "heavy", rng(9)), expected)
    assert np.array_equal(degrade(photograph, names[:2] + names[:1:-1], "heavy", rng(9)), expected)


def test_a_step_does_not_depend_on_its_neighbours(photograph):
    with_jpeg, without = rng(2), rng(2)
    full = degrade(photograph, ("blur", "noise", "jpeg"), "medium", with_jpeg)
    raw = degrade(photograph, ("blur", "noise"), "medium", without)
    last = compose(("blur", "noise", "jpeg"), "medium", rng(2))[-1]
    assert np.array_equal(full, degradations.jpeg(raw, last.severity, last.generator))
    assert with_jpeg.random() == without.random()


def test_depth_reaches_haze_through_degrade(photograph):
    near = np.zeros(photograph.shape[:2], np.float32)
    np.testing.assert_allclose(
        degrade(photograph, ("haze",), "heavy", rng(), near), photograph, atol=1e-5
    )


def test_nothing_to_do_is_a_copy(photograph):
    output = degrade(photograph, (), "light", rng())
    assert np.array_equal(output, photograph) and not np.shares_memory(output, photograph)


def test_families_use_both_members():
    flat = np.full((64, 64, 3), 0.5, np.float32)
    point = flat.copy()
    point[32, 32] = 1
    for family, members in {
        "blur": ("motion_blur", "defocus_blur"),
        "noise": ("sensor_noise", "gaussian_noise"),
    }.items():
        seen = set()
        for seed in range(20):
            output = DEGRADATIONS[family](point, "light", rng(seed))
            for member in members:
                generator = rng(seed)
                generator.random()  # the choice
                if np.array_equal(output, DEGRADATIONS[member](point, "light", generator)):
                    seen.add(member)
        assert seen == set(members)


@pytest.mark.parametrize("name", ALL)
def test_unknown_severity(photograph, name):
    with pytest.raises(
        ValueError, match="unknown severity 'Heavy': choose from light, medium, heavy"
    ):
        DEGRADATIONS[name](photograph, "Heavy", rng())
    with pytest.raises(ValueError, match="unknown severity 'Heavy'"):
        degrade(photograph, (name,), "Heavy", rng())


def test_unknown_degradation(photograph):
    with pytest.raises(
        ValueError, match="unknown degradation 'fog': choose from haze, rain, raindrop, blur"
    ):
        degrade(photograph, ("haze", "fog"), "light", rng())


@pytest.mark.parametrize(
    "wrong,message",
    [
        (np.zeros((8, 8, 3), np.uint8), "float array .* divide by 255"),
        (np.zeros((8, 8), np.float32), "float array"),
        (np.zeros((3, 8, 8), np.float32), "float array"),
        (np.full((8, 8, 3), 1.5, np.float32), r"in \[0, 1\]"),
        (np.full((8, 8, 3), np.nan, np.float32), r"in \[0, 1\]"),
    ],
)
def test_wrong_image(wrong, message):
    for call in (
        lambda: degrade(wrong, ("haze",), "light", rng()),
        lambda: degradations.rain(wrong, "light", rng()),
    ):
        with pytest.raises(ValueError, match=message):
            call()
