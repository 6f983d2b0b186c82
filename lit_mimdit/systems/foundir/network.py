"""FoundIR's three networks at their published sizes.

Source: "FoundIR: Unleashing Million-scale Training Data to Advance Foundation Models for Image
Restoration" (ICCV 2025). The generalist is residual diffusion. Two specialists improve its images
of weather and of low light.
"""

from lit_mimdit.models.residual_diffusion import ResidualDiffusion
from lit_mimdit.models.restormer_network import Restormer
from lit_mimdit.systems.foundir.wave_mamba import WaveMamba

PARAMETERS = {"generalist": 36_261_187, "weather": 26_126_644, "low light": 1_512_718}


def generalist() -> ResidualDiffusion:
    """Returns the generalist: DiffUIR's largest U-Net, another delta, four steps."""
    return ResidualDiffusion(64, (1, 2, 4, 8), delta_end=1.4e-3, sampling_timesteps=4)


def weather_specialist() -> Restormer:
    """Returns the specialist for weather, Restormer at its original size."""
    return Restormer()


def low_light_specialist() -> WaveMamba:
    """Returns the specialist for low light."""
    return WaveMamba()
