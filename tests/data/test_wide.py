"""Wide degradations against their equations, worked out independently of the code."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import convolve as direct_convolution

from lit_mimdit.data import photographs
from lit_mimdit.data.degradations import linear_to_srgb, srgb_to_linear
from lit_mimdit.data.wide import blur, darkness, haze, mixture, noise, rain
from lit_mimdit.data.wide.mixture import KINDS, SHARES, Step, degrade, draw

MODELS = {
    "blur": blur.blur,
    **{f.__name__: f for f in noise.MODELS},
    "haze": haze.haze,
    **{f.__name__: f for f in (rain.drops, rain.streaks, rain.lines)},
    "darkness": darkness.darkness,
    "jpeg": mixture.jpeg,
}


@pytest.fixture(scope="module")
def photograph():
    return photographs.load("astronaut")[40:104, 180:260].astype(np.float32) / 255


def rng(seed=0):
    return np.random.default_rng(seed)


def rms(a, b):
    return float(np.sqrt(np.mean((np.float64(a) - np.float64(b)) ** 2)))


@pytest.mark.parametrize("name", MODELS)
def test_contract(photograph, name):
    before = photograph.copy()
    first, again = (MODELS[name](photograph, 0.6, rng(3)) for _ in range(2))
    assert np.array_equal(first, again)
    assert np.array_equal(photograph, before) and not np.shares_memory(first, photograph)
    assert first.dtype == np.float32 and first.shape == photograph.shape
    assert first.min() >= 0 and first.max() <= 1


@pytest.mark.parametrize("name", MODELS)
def test_from_nothing_to_heavy(photograph, name):
    nothing, little, much = (
        np.mean([rms(photograph, MODELS[name](photograph, s, rng(i))) for i in range(12)])
        for s in (0.0, 0.2, 1.0)
    )
    # JPEG of quality 95 is the one "nothing" that changes a little
    assert nothing < (0.02 if name == "jpeg" else 1e-3)
    assert nothing < little < 0.7 * much
    assert much > 0.04


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 70, 3), (33, 17, 3)])
@pytest.mark.parametrize("name", MODELS)
def test_any_size(name, shape):
    assert MODELS[name](np.full(shape, 0.5, np.float32), 1.0, rng()).shape == shape


# Blur
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("psf", blur.PSFS)
@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_psf(psf, strength):
    kernel = psf(strength, rng(5))
    assert kernel.shape[0] == kernel.shape[1] and kernel.shape[0] % 2 == 1
    assert kernel.min() >= 0 and kernel.sum() == pytest.approx(1)
    r = kernel.shape[0] // 2
    y, x = np.mgrid[-r : r + 1, -r : r + 1]
    assert abs((kernel * x).sum()) < 0.1 and abs((kernel * y).sum()) < 0.1  # nothing moves


def test_psf_widths():
    def deviation(kernel):
        r = kernel.shape[0] // 2
        y, x = np.mgrid[-r : r + 1, -r : r + 1]
        return np.sqrt((kernel * (x**2 + y**2)).sum())

    # a line of length L has deviation L / sqrt(12), a disc of radius r has r / sqrt(2)
    assert deviation(blur.straight_path(1.0, rng())) == pytest.approx(40 / np.sqrt(12), rel=0.03)
    assert deviation(blur.defocus(1.0, rng())) == pytest.approx(9 / np.sqrt(2), rel=0.03)
    # an isotropic Gaussian has sigma sqrt(2); an anisotropic one less
    widths = [deviation(blur.gaussian(1.0, rng(i))) for i in range(20)]
    assert max(widths) == pytest.approx(5 * np.sqrt(2), rel=0.02) and min(widths) > 5


def test_convolution_is_the_direct_one(photograph):
    kernel = blur.shaken_path(0.3, rng(1))
    expected = np.stack(
        [direct_convolution(photograph[..., c], kernel, mode="reflect") for c in range(3)], 2
    )
    np.testing.assert_allclose(blur.convolve(photograph, kernel), expected, atol=1e-5)


# Noise
# --------------------------------------------------------------------------------------------------


def test_white_has_its_deviation():
    grey = np.full((128, 128, 3), 0.5, np.float32)
    assert rms(noise.white(grey, 0.25, rng()), grey) == pytest.approx(15 / 255, rel=0.02)


def test_speckle_has_its_deviation_relative_to_the_value():
    for grey in (0.1, 0.3):
        image = np.full((128, 128, 3), grey, np.float32)
        apart = rms(noise.speckle(image, 0.25, rng()), image)
        assert apart == pytest.approx(0.15 * grey, rel=0.02)


def test_impulses_are_black_or_white_and_as_many_as_said():
    grey, salt, whole = np.full((64, 64, 3), 0.5, np.float32), [], []
    for seed in range(40):
        hit = noise.impulse(grey, 0.5, rng(seed))
        lost = hit != 0.5
        assert set(np.unique(hit)) <= {0, 0.5, 1}
        assert lost.mean() == pytest.approx(0.15, abs=0.02)
        salt.append((hit[lost] == 1).mean())
        whole.append(bool((lost.all(2) == lost.any(2)).all()))
    assert 0.2 < np.mean(whole) < 0.8
    assert 0 in salt and 1 in salt and any(0.1 < share < 0.9 for share in salt)


def test_sensor_has_its_variance(monkeypatch):
    for a in (0.004, 0.03):  # the normal and the Poisson branch
        monkeypatch.setattr(noise, "shot_levels", lambda strength, generator, a=a: (a, 1e-4))
        light = np.full((128, 128, 3), 0.25, np.float32)
        noisy = srgb_to_linear(noise.sensor(linear_to_srgb(light), 1.0, rng()))
        assert rms(noisy, light) ** 2 == pytest.approx(a * 0.25 + 1e-4, rel=0.03)


def test_demosaicking_takes_the_neighbours():
    values = rng().standard_normal((8, 8, 3)).astype(np.float32)
    full = noise.demosaicked(values)
    red, green, blue = full[..., 0], full[..., 1], full[..., 2]
    assert red[2, 2] == values[2, 2, 0] and blue[3, 3] == values[3, 3, 2]
    assert green[2, 3] == values[2, 3, 1] and green[3, 2] == values[3, 2, 1]
    at = [(2, 3), (3, 2), (3, 4), (4, 3)]
    assert green[3, 3] == pytest.approx(np.mean([values[p][1] for p in at]), abs=1e-6)
    corners = [(2, 2), (2, 4), (4, 2), (4, 4)]
    assert red[3, 3] == pytest.approx(np.mean([values[p][0] for p in corners]), abs=1e-6)
    assert red[2, 3] == pytest.approx(np.mean([values[2, 2, 0], values[2, 4, 0]]), abs=1e-6)


def test_coloured_is_correlated():
    grey, found = np.full((96, 96, 3), 0.5, np.float32), []
    for seed in range(12):
        apart = noise.coloured(grey, 0.5, rng(seed)) - grey
        assert apart.std() < 0.5 * 60 / 255 * 2  # chroma comes on top of luma
        found.append((apart[:, 1:] * apart[:, :-1]).mean() / apart.var())
    assert max(found) > 0.5


# Haze
# --------------------------------------------------------------------------------------------------


def test_flat_haze_scales_contrast(monkeypatch, photograph):
    """I1 - I2 = t (J1 - J2) in the domain of the haze, whatever the airlight; t = exp(-2.6 s)."""
    monkeypatch.setattr(haze, "DEPTHS", (haze.flat,))
    other, domains = photograph[::-1].copy(), set()
    for seed in range(8):
        hazy = [haze.haze(image, 0.5, rng(seed)) for image in (photograph, other)]
        for domain in (lambda x: x, srgb_to_linear):
            before, after = domain(photograph) - domain(other), domain(hazy[0]) - domain(hazy[1])
            if np.allclose(after, np.exp(-1.3) * before, atol=2e-3):
                domains.add(domain is srgb_to_linear)
                break
        else:
            pytest.fail(f"seed {seed} follows the law in neither domain")
    assert domains == {True, False}


def test_thick_haze_is_airlight(photograph):
    means = np.array([haze.haze(photograph, 3.0, rng(i)).reshape(-1, 3).mean(0) for i in range(30)])
    grey = means.mean(1, keepdims=True)
    assert means.min() > 0.4 and abs(means / grey - 1).max() > 0.02
    assert abs(means / grey - 1).max() < 0.09


@pytest.mark.parametrize("depth", haze.DEPTHS)
def test_depths(depth, photograph):
    found = depth(photograph, rng(2))
    assert found.shape == photograph.shape[:2]
    assert np.isfinite(found).all() and found.min() > 0
    assert (found.std() > 0) == (depth is not haze.flat)


# Rain
# --------------------------------------------------------------------------------------------------


def test_octaves_have_detail_of_every_size():
    field = haze.octaves(128, 128, 0.6, rng(2))
    assert field.mean() == pytest.approx(0, abs=1e-3) and field.std() == pytest.approx(1, rel=1e-3)
    power = np.abs(np.fft.rfft2(field)[0]) ** 2
    coarse, middle, fine = power[1:4].mean(), power[8:16].mean(), power[32:].mean()
    assert coarse > 5 * middle > 25 * fine > 0


def test_persistence_is_how_much_of_it_is_fine():
    def fine(persistence):
        power = np.abs(np.fft.rfft2(haze.octaves(128, 128, persistence, rng(2)))[0]) ** 2
        return power[16:].sum() / power.sum()

    assert fine(0.8) > 2 * fine(0.4) > 0


def test_fractal_fog_leaves_clear_sight(photograph):
    depths = [haze.fractal(photograph, rng(i)) for i in range(20)]
    shares = [depth.min() / depth.mean() for depth in depths]
    assert min(shares) < 0.05 and max(shares) > 0.1


def test_puffs_lie_around_one_place_and_have_soft_rims(photograph):
    image = np.zeros((160, 160, 3), np.float32)
    y, x = np.mgrid[:160, :160]
    near, steepest = [], []
    for seed in range(20):
        depth = haze.puffs(image, rng(seed))
        low = depth.min()
        above = depth - low
        middle = (above * y).sum() / above.sum(), (above * x).sum() / above.sum()
        close = np.hypot(y - middle[0], x - middle[1]) < 40
        near.append(above[close].mean() / above[~close].mean())
        steepest.append(np.abs(np.diff(depth, axis=0)).max() / np.ptp(depth))
    assert np.median(near) > 1.5
    assert min(steepest) > 0.02 and max(steepest) < 0.5  # a hard rim would step by 1


def test_some_airlight_is_uneven(photograph, monkeypatch):
    monkeypatch.setattr(haze, "DEPTHS", (haze.flat,))
    monkeypatch.setattr(haze, "THICKNESS", 50.0)  # nothing but airlight is seen
    uneven = [haze.haze(photograph, 1.0, rng(i)).std((0, 1)).max() > 1e-3 for i in range(60)]
    assert 0.15 < np.mean(uneven) < 0.45


def test_streaks_have_length_and_direction():
    layer = rain.streak_layer(200, 200, 30.0, 0.6, np.pi / 2, 0.02, rng(1))
    assert layer.min() >= 0 and layer.max() <= 1

    def correlation(dy, dx):
        a = layer[: 200 - dy, : 200 - dx] - layer.mean()
        return (a * (layer[dy:, dx:] - layer.mean())).mean() / layer.var()

    # along the fall, a streak of 30 px overlaps itself by two thirds after 10 px; not across
    assert correlation(10, 0) == pytest.approx(2 / 3, abs=0.12)
    assert abs(correlation(0, 6)) < 0.12 and abs(correlation(45, 0)) < 0.2


def test_cover_is_the_share_of_pixels():
    wide = [rain.streak_layer(200, 200, 20.0, 1.0, 1.0, 0.2, rng(i)) > 0.05 for i in range(5)]
    assert 0.1 < np.mean(wide) < 0.45


def test_streaks_brighten(photograph):
    dark = 0.3 * photograph
    assert all((rain.streaks(dark, 1.0, rng(i)) >= dark - 1e-6).mean() > 0.99 for i in range(9))


def test_lines_are_hard_and_opaque_in_half_of_the_images():
    dark, hard, opaque = np.zeros((96, 96, 3), np.float32), 0, 0
    for seed in range(60):
        drawn = rain.lines(dark, 0.6, rng(seed))
        assert (drawn.max(2) == drawn.min(2)).all()  # grey
        hard += len(np.unique(drawn)) == 2
        opaque += drawn.max() > 0.99
    assert 25 < hard < 55  # two thirds
    assert 8 < opaque < 45


def test_lines_cover_more_at_more_strength():
    dark = np.zeros((96, 96, 3), np.float32)
    few, many = (
        np.mean([(rain.lines(dark, s, rng(i)) > 0).mean() for i in range(40)]) for s in (0.1, 1.0)
    )
    assert few < 0.05 < many < 0.35


# Low light
# --------------------------------------------------------------------------------------------------


def test_exposure_divides_light(photograph):
    np.testing.assert_allclose(
        darkness.exposed(photograph, 1.0, rng()), srgb_to_linear(photograph) / 40, atol=1e-7
    )
    np.testing.assert_allclose(
        darkness.exposed(photograph, 0.5, rng()), srgb_to_linear(photograph) / 40**0.5, atol=1e-7
    )


def test_curve_keeps_black_and_white():
    ramp = np.repeat(np.linspace(0, 1, 65, dtype=np.float32)[None, :, None], 3, 2)
    curve = darkness.curved(ramp, 1.0, rng(1))[0, :, 0]
    assert curve[0] == 0 and curve[-1] == pytest.approx(1)
    assert (np.diff(curve) >= 0).all() and curve[32] < srgb_to_linear(ramp)[0, 32, 0] / 4


def test_power_darkens_by_its_exponent():
    light = darkness.powered(np.full((1, 1, 3), 0.5, np.float32), 1.0, rng(4))
    value = float(linear_to_srgb(light)[0, 0, 0])
    assert 0.3 * (0.45**5) <= value <= 0.5 ** (5**0.6)
    white = np.ones((1, 1, 3), np.float32)
    levels = [linear_to_srgb(darkness.powered(white, 1.0, rng(i)))[0, 0, 0] for i in range(200)]
    assert 0.3 * (0.9**5) <= min(levels) < 0.3, "what white becomes"


def test_a_factor_on_the_levels_keeps_their_ratios(photograph):
    """A fifteenth of each level at most, and its root at half the strength."""
    for strength, ratio in ((1.0, 15.0), (0.5, 15.0**0.5)):
        levels = linear_to_srgb(darkness.scaled(photograph, strength, rng()))
        np.testing.assert_allclose(levels, photograph / ratio, atol=1e-5)


# Mixtures
# --------------------------------------------------------------------------------------------------


def test_jpeg_is_libjpeg_of_that_quality(photograph):
    file = io.BytesIO()
    Image.fromarray(np.rint(photograph * 255).astype(np.uint8)).save(
        file, "JPEG", quality=50, subsampling=2
    )
    expected = np.asarray(Image.open(file), np.float32) / 255
    seen = [mixture.jpeg(photograph, 0.5, rng(i)) for i in range(20)]
    equal = [np.array_equal(image, expected) for image in seen]
    assert any(equal) and not all(equal)  # the others keep their chroma whole


def test_draws():
    generator = rng()
    drawn = [draw(generator) for _ in range(3000)]
    counts = np.bincount([len(steps) for steps in drawn], minlength=4) / len(drawn)
    np.testing.assert_allclose(counts, mixture.COUNTS, atol=0.03)
    single = [steps[0] for steps in drawn if len(steps) == 1]
    for kind, share in SHARES.items():
        assert np.mean([s.kind == kind for s in single]) == pytest.approx(share, abs=0.03)
    strengths = np.array([s.strength for s in single])
    assert strengths.min() < 0.01 and strengths.max() > 0.99
    assert strengths.mean() == pytest.approx(0.5, abs=0.03)
    pairs = {(a.kind, b.kind) for a, b in (steps for steps in drawn if len(steps) == 2)}
    assert {("noise", "haze"), ("haze", "noise")} <= pairs
    assert max(s.strength for steps in drawn if len(steps) == 3 for s in steps) < 1 / np.sqrt(3)


def test_a_kind_without_share_is_never_drawn():
    only = {kind: float(kind == "haze") for kind in KINDS}
    assert {s.kind for seed in range(50) for s in draw(rng(seed), only)} == {"haze"}


def test_steps_are_applied_in_order(photograph):
    steps = [Step("low_light", 0.4), Step("noise", 0.5)]
    generator, expected = rng(1), photograph
    for step in steps:
        expected = KINDS[step.kind](expected, step.strength, generator)
    assert np.array_equal(degrade(photograph, steps, rng(1)), expected)
    assert not np.allclose(degrade(photograph, steps[::-1], rng(1)), expected, atol=0.02)
    copy = degrade(photograph, [], rng())
    assert np.array_equal(copy, photograph) and not np.shares_memory(copy, photograph)
    with pytest.raises(ValueError, match="must lie in"):
        degrade(photograph * 2, steps, rng())
