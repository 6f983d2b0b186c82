"""The dry run's table of cards: which restores and trains, by how the backbone is kept."""

import pytest
import torch

from lit_mimdit import cli
from lit_mimdit.estimate import Alive, meta_system, sizes_of
from lit_mimdit.inference.sampler import SamplingConfig
from lit_mimdit.models.backbone import load_backbone
from lit_mimdit.models.branch_config import BranchConfig, IntraConfig
from lit_mimdit.models.geometry import KNOWN, meta_backbone, read_geometry
from lit_mimdit.models.latents import decode, encode
from lit_mimdit.models.quantize import held_bytes, largest_layer, planned_saving
from lit_mimdit.systems.mimdit import MiMDiT
from lit_mimdit.training.cards import GIB, Peaks, Restoring, Weights, simulate_restoring

BRANCH = BranchConfig(
    width=16, heads=2, window=2, intra=IntraConfig(experts=2, top_k=1), base="position"
)
SAMPLING = SamplingConfig(tile=64, overlap=8, overview=0)


def test_what_is_saved_of_stable_diffusion_is_that_of_its_blocks():
    """Half a byte a weight and 4 bytes for 64 of them; 2 bytes a weight before."""
    transformer = meta_backbone(KNOWN[0], read_geometry(KNOWN[0]), torch.bfloat16).transformer
    named = transformer.transformer_blocks.named_parameters()
    matrices = [p for name, p in named if name.endswith("weight") and p.ndim == 2]
    count, rows = sum(p.numel() for p in matrices), sum(len(p) for p in matrices)
    assert 2.1e9 < count < 2.243e9
    assert planned_saving(transformer, "nf4") == 2 * count - count // 2 - count // 16
    for kind in ("int8", "fp8"):
        assert planned_saving(transformer, kind) == count - 4 * rows
    # the modulation of a block with two attentions: 9 vectors of the width, in bfloat16
    assert largest_layer(transformer) == 2 * 9 * 1536 * 1536


def test_restoring_takes_what_it_is_said_to_take(backbone_folder):
    """The same calls with weights, on a CPU: what PyTorch's operations make and keep."""
    arguments = {
        "backbone": str(backbone_folder),
        "branch": BRANCH,
        "sampling": SAMPLING,
    }
    said = simulate_restoring(MiMDiT, arguments, 64)
    system = MiMDiT(**arguments)
    system.configure_model()
    network, vae, image = system.eval().network, system.vae, torch.rand(1, 3, 64, 64)
    for mim in network.branch.mims:
        mim.as_on_gpu = True
    with torch.no_grad():
        with Alive() as coding:
            decode(vae, encode(vae, image))
        latent = encode(vae, image)
        with Alive() as sampling:
            network(latent, torch.ones(1), network.condition(latent))
    assert said.coding == pytest.approx(coding.peak, rel=0.05)
    assert said.sampling == pytest.approx(sampling.peak, rel=0.1)


def test_weights_and_activations_add_up():
    weights = Weights(backbone=100, vae=10, branch=20, buffer=5)
    peaks = weights.peaks(Restoring(coding=40, sampling=7), others=60)
    assert peaks == Peaks(
        restore=100 + 10 + 20 + 40,  # at the VAE's peak
        offload=20 + 100 + 5 + 7,  # the backbone alone, then the VAE alone
        train=100 + 10 + 5 + 60,
    )
    busy = weights.peaks(Restoring(coding=40, sampling=50), others=60)
    assert busy.restore == 100 + 10 + 20 + 5 + 50 and busy.offload == 20 + 100 + 5 + 50


def test_a_card_must_hold_the_peak_in_nine_tenths_of_it():
    peaks = Peaks(restore=round(7.3 * GIB), offload=round(7.1 * GIB), train=round(10.7 * GIB))
    assert [peaks.cell(card) for card in (4, 8, 12, 16)] == [
        "no/no",
        "offload/no",
        "yes/yes",
        "yes/yes",
    ]


def test_the_frozen_bytes_are_those_of_the_quantization(backbone_folder):
    arguments = {"backbone": str(backbone_folder), "branch": BRANCH, "sampling": SAMPLING}
    plain, small = (
        sizes_of(meta_system(MiMDiT, arguments | {"backbone_quantize": kind}))
        for kind in (None, "int8")
    )
    held = [
        held_bytes(load_backbone(str(backbone_folder), quantize=kind).transformer)
        for kind in (None, "int8")
    ]
    assert plain.frozen_bytes - small.frozen_bytes == held[0] - held[1] > 0
    assert (small.frozen, small.trained) == (plain.frozen, plain.trained)


def test_a_system_without_a_frozen_backbone_has_no_table(capsys):
    settings = ["-c", "experiments/nano/regression.yaml", "--dry-run"]
    assert cli.main(["fit", *settings]) == 0
    assert "this card" not in capsys.readouterr().out
