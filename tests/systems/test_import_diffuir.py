"""DiffUIR's published files become files that restore, in each size."""

import official_files
import pytest
import torch

from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.system_file import load_system
from lit_mimdit.models.residual_diffusion import ResidualDiffusion
from lit_mimdit.systems.diffuir import DiffUIR
from lit_mimdit.systems.diffuir.network import VARIANTS
from lit_mimdit.systems.import_weights import import_weights


def published_file(network, path):
    """A checkpoint as the authors' trainer writes it: other weights beside the averaged ones."""
    state = official_files.process_state(network)
    averaged = {f"ema_model.{name}": value for name, value in state.items()}
    online = {f"online_model.{name}": value + 1 for name, value in state.items()}
    torch.save({"step": 1, "model": online, "ema": averaged | online}, path)
    return path


@pytest.fixture
def network():
    torch.manual_seed(1)
    return ResidualDiffusion(8, (1, 2), 1.8e-3, 3).eval()


def test_an_imported_file_restores_with_the_averaged_weights(network, tmp_path):
    output = tmp_path / "diffuir.safetensors"
    import_weights("diffuir", [published_file(network, tmp_path / "model-300.pt")], output=output)
    lq = torch.rand(1, 3, 13, 22)
    noise = torch.randn(lq.shape, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        expected = network(lq, noise)
    restorer = load_restorer(output, device="cpu")
    restored, _ = restorer(lq, torch.tensor([7]), ids=["a"])
    torch.testing.assert_close(restored, expected, rtol=0, atol=1e-6)
    assert not torch.equal(restorer(lq, torch.tensor([8]))[0], restored), "the seed decides"
    assert restorer.evaluations(13, 22) == 3
    assert load_restorer(output, device="cpu", steps=5).evaluations(13, 22) == 5


def test_overrides_are_kept(network, tmp_path):
    output = tmp_path / "diffuir.safetensors"
    files = [published_file(network, tmp_path / "model-130.pt")]
    import_weights("diffuir", files, output=output, override='{"sampling_timesteps": 4}')
    arguments = load_system(output).arguments
    assert (arguments["steps"], arguments["dim"], arguments["dim_mults"]) == (4, 8, [1, 2])


def test_a_published_size_is_named():
    size = VARIANTS["T"]
    network = ResidualDiffusion(size.dim, size.dim_mults, 1.8e-3, 3)
    system = DiffUIR.from_official(official_files.process_state(network))
    assert system.arguments["variant"] == "T" and system.arguments["dim"] is None
    assert sum(p.numel() for p in system.parameters()) == size.parameters
    again = DiffUIR(variant="T").process.unet
    assert (again.dim, again.dim_mults) == (size.dim, size.dim_mults)


def test_two_files_are_refused(network):
    state = official_files.process_state(network)
    with pytest.raises(ValueError, match="one file, and 2 are given"):
        DiffUIR.from_official(state, state)


def test_impossible_tiles_and_steps_are_refused():
    with pytest.raises(ValueError, match="tile is 16 and overlap 16"):
        DiffUIR("T", tile=16, overlap=16)
    with pytest.raises(ValueError, match="steps is 0"):
        DiffUIR("T", steps=0)
