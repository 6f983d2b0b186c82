import pytest
import torch
from torch.testing import assert_close

from lit_mimdit.models.latents import decode, downsampling, encode, posterior


@pytest.fixture
def image():
    return torch.rand(2, 3, 12, 20, generator=torch.Generator().manual_seed(0))


def test_encode_is_the_shifted_and_scaled_mode(vae, image):
    latent = encode(vae, image)
    mean, log_variance = vae.encoder(2.0 * image - 1.0).chunk(2, dim=1)
    assert log_variance.exp().mean() > 0.1, "a sample would differ from the mode"
    assert_close(latent, (mean - 0.0609) * 1.5305)
    assert torch.equal(latent, encode(vae, image)) and not latent.requires_grad


def test_decode_undoes_scale_and_shift_and_clamps(vae):
    latent = 2.0 * torch.randn(2, 16, 3, 5, generator=torch.Generator().manual_seed(0))
    raw = vae.decoder(latent / 1.5305 + 0.0609)
    expected = ((raw + 1.0) / 2.0).clamp(0.0, 1.0)
    assert (raw.abs() > 1.0).any() and (raw.abs() < 1.0).any()
    assert_close(decode(vae, latent), expected)


def test_no_shift_factor_means_no_shift(vae, image):
    with_shift = encode(vae, image)
    vae.register_to_config(shift_factor=None)
    assert_close(encode(vae, image), with_shift + 0.0609 * 1.5305)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 5), (7, 2)])
def test_round_trip_keeps_the_size_of_odd_multiples(vae, rows, columns):
    factor = downsampling(vae)
    latent = encode(vae, torch.rand(1, 3, rows * factor, columns * factor))
    assert factor == 4 and latent.shape == (1, 16, rows, columns)
    restored = decode(vae, latent)
    assert restored.shape == (1, 3, rows * factor, columns * factor)
    assert restored.min() >= 0.0 and restored.max() <= 1.0


def test_outputs_are_float32_whatever_the_autoencoder_is(vae, image):
    reference = encode(vae, image)
    latent = encode(vae.bfloat16(), image)
    assert latent.dtype == decode(vae, latent).dtype == torch.float32
    assert (latent - reference).abs().mean() < 0.05 * reference.abs().mean()


def test_the_posterior_is_that_of_the_scaled_latent(vae, image):
    """Its mode is `encode`'s to the bit; its spread is that of 4,000 draws."""
    mode, logvar = posterior(vae, image)
    assert torch.equal(mode, encode(vae, image))
    with torch.no_grad():
        drawn = vae.encode(image * 2 - 1).latent_dist
        element = (drawn.sample()[0, :, 0, 0] for _ in range(4000))
        scaled = torch.stack(list(element)) * vae.config.scaling_factor
    assert_close(logvar[0, :, 0, 0], scaled.var(0).log(), rtol=0, atol=0.15)
