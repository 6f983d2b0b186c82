"""Scores against scikit-image, tables against sums by hand."""

import csv
import math

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from lit_mimdit.evaluation.scores import ScoreTable, eight_bit, score


def pair(noise: float, height: int = 40, width: int = 52) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(3, height // 4, width // 4, generator=generator).repeat_interleave(4, 1).repeat_interleave(4, 2)
    return (clean + noise * torch.randn(clean.shape, generator=generator)).clamp(0, 1), clean


@pytest.mark.parametrize("noise", [0.02, 0.3])
def test_psnr_and_ssim_are_scikit_images(noise):
    image, clean = pair(noise)
    ours = score(image, clean)
    a, b = ((x * 255).round().byte().permute(1, 2, 0).numpy() for x in (image, clean))
    assert ours["psnr"] == pytest.approx(peak_signal_noise_ratio(b, a, data_range=255), abs=1e-3)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255, "channel_axis": 2}
    assert ours["ssim"] == pytest.approx(structural_similarity(b, a, **options), abs=2e-3)


def test_scores_are_of_what_an_8_bit_file_shows():
    clean = torch.full((3, 16, 16), 100 / 255)
    assert torch.equal(eight_bit(clean + 0.4 / 255), eight_bit(clean))
    assert score(clean + 0.6 / 255, clean)["psnr"] == pytest.approx(20 * math.log10(255), abs=1e-3)
    assert score(torch.full_like(clean, 1.4), torch.ones_like(clean))["psnr"] == math.inf


@pytest.fixture
def table() -> ScoreTable:
    rows = [("b", "Rain", 20.0, 26.0), ("a", "Blur", 22.0, 24.0), ("c", "Rain", 30.0, 31.0)]
    made = ScoreTable(("degraded", "restored"))
    for name, kind, before, after in rows:
        scores = {"degraded_psnr": before, "degraded_ssim": 0.5, "restored_psnr": after, "restored_ssim": 0.75}
        made.rows.append({"id": name, "degradation": kind} | scores)
    return made


def test_means_by_degradation_and_over_all_images(table):
    means = table.means()
    assert list(means) == ["Blur", "Rain", "all"]
    assert means["Rain"] == pytest.approx({"n": 2, "degraded_psnr": 25, "degraded_ssim": 0.5, "restored_psnr": 28.5, "restored_ssim": 0.75})
    assert means["all"]["degraded_psnr"] == 24 and means["all"]["restored_psnr"] == 27 and means["all"]["n"] == 3


def test_the_interval_by_hand(table):
    """Gains 6, 2, 1: mean 3, variance (9 + 1 + 4) / 2 = 7."""
    assert table.interval("restored", "degraded") == pytest.approx((3.0, 1.96 * math.sqrt(7 / 3)))
    table.rows = table.rows[:1]
    gain, spread = table.interval("restored", "degraded")
    assert gain == 6.0 and math.isnan(spread)


def test_a_perfect_image_does_not_break_the_table(table):
    """PSNR of identical images is infinite: not finite numbers are shown, none is invented."""
    table.rows[0]["restored_psnr"] = table.rows[0]["degraded_psnr"] = math.inf
    gain, spread = table.interval("restored", "degraded")
    assert not math.isfinite(gain) and not math.isfinite(spread)
    assert "inf" in table.render("title")


def test_text_and_csv_name_every_degradation_and_image(table, tmp_path):
    table.gather()
    assert [row["id"] for row in table.rows] == ["a", "b", "c"]
    text = table.render("the title")
    assert all(word in text for word in ("the title", "Blur", "Rain", "all", "25.00 / 0.500", "28.50 / 0.750"))
    table.write_csv(tmp_path / "new" / "scores.csv")
    with open(tmp_path / "new" / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["a", "b", "c"] and float(rows[1]["restored_psnr"]) == 26.0


def test_adding_scores_every_version_against_the_reference():
    image, clean = pair(0.1)
    made = ScoreTable(("degraded", "restored"))
    made.add("x", "Blur", clean, {"degraded": image, "restored": clean})
    (row,) = made.rows
    assert row["degraded_psnr"] == score(image, clean)["psnr"] and row["restored_psnr"] == math.inf and row["restored_ssim"] == 1.0
