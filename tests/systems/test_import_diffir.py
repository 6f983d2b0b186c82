"""DiffIR's published files become files that restore and train; the stages follow each other."""

import official_files
import own_diffusion
import pytest
import torch

from lit_mimdit.data.pairs import collate
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.system_class import state_of
from lit_mimdit.inference.system_file import load_system, save_system
from lit_mimdit.systems.diffir import DiffIR, objective, sampler
from lit_mimdit.systems.diffir.network import FirstStage, SecondStage
from lit_mimdit.systems.import_weights import import_weights

SIZES = own_diffusion.SIZES


def batch(count=2, side=16):
    draw = torch.Generator().manual_seed(1)
    images = torch.rand(count, 2, 3, side, side, generator=draw)
    about = {"id": "a", "degradation": "01Blur", "dataset": ""}
    rows = [{"lq": lq, "gt": gt, "seed": 5 + i} | about for i, (lq, gt) in enumerate(images)]
    return collate(rows)


@pytest.fixture(scope="module")
def stage_1(tmp_path_factory):
    """A file of stage 1, imported from one in the official form, and its network."""
    torch.manual_seed(1)
    network = FirstStage(**SIZES)
    folder = tmp_path_factory.mktemp("diffir")
    torch.save({"params_ema": official_files.diffir_state(network)}, folder / "s1.pth")
    import_weights("diffir", [folder / "s1.pth"], output=folder / "s1.safetensors")
    return folder / "s1.safetensors", network


def second(stage_1, **arguments):
    torch.manual_seed(2)
    system = DiffIR(stage=2, first_stage=str(stage_1[0]), **SIZES, **arguments)
    system.configure_model()
    return system


def test_stage_2_is_imported_and_restores_from_its_seed(tmp_path):
    torch.manual_seed(3)
    network = SecondStage(**SIZES).eval()
    torch.save({"params": official_files.diffir_state(network)}, tmp_path / "s2.pth")
    output = tmp_path / "s2.safetensors"
    import_weights("diffir", [tmp_path / "s2.pth"], output=output)
    lq = torch.rand(1, 3, 13, 22)
    noise = torch.randn(1, 16, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        expected = sampler.restore(network, lq, noise)
    restorer = load_restorer(output, device="cpu")
    restored, _ = restorer(lq, torch.tensor([7]), ids=["a"])
    torch.testing.assert_close(restored, expected, rtol=0, atol=1e-6)
    assert not torch.equal(restorer(lq, torch.tensor([8]))[0], restored), "the seed decides"


def test_stage_1_is_imported_and_says_that_it_does_not_restore(stage_1):
    assert load_system(stage_1[0]).arguments["stage"] == 1
    with pytest.raises(ValueError, match="clean version is known; train stage 2 from it"):
        load_restorer(stage_1[0], device="cpu")


def test_stage_1_learns_with_the_clean_image(stage_1):
    system = DiffIR.from_official(official_files.diffir_state(stage_1[1]))
    data = batch()
    losses = system.losses(data)
    expected = (stage_1[1](data["lq"], data["gt"])[0] - data["gt"]).abs().mean()
    torch.testing.assert_close(losses.total, expected)


@pytest.mark.parametrize("phase", ["prior", "joint"])
def test_stage_2_starts_from_stage_1_and_learns_its_priors(stage_1, phase):
    system, first = second(stage_1, phase=phase), stage_1[1]
    restorer = system.network.restorer.state_dict()
    assert all(torch.equal(restorer[k], v) for k, v in first.restorer.state_dict().items())
    data = batch()
    losses = system.losses(data)
    noise = torch.stack(
        [torch.randn(16, generator=torch.Generator().manual_seed(seed)) for seed in (5, 6)]
    )
    target = first.encoder(data["lq"], data["gt"])
    prior = objective.distilled_prior(
        system.network, data["lq"], target, noise, sampler.schedule_of(system.network)
    )
    expected = objective.prior_loss(prior, target)
    if phase == "joint":
        y = system.network.restorer(data["lq"], prior)
        expected = objective.joint_loss(y, data["gt"], prior, target)
    torch.testing.assert_close(losses.total, expected)
    losses.total.backward()
    trained = {
        name.split(".")[0] for name, p in system.network.named_parameters() if p.requires_grad
    }
    assert trained == {"condition", "denoiser"} | ({"restorer"} if phase == "joint" else set())
    assert all(p.grad is not None for p in system.parameters() if p.requires_grad)
    assert all(p.grad is None for p in system.target.parameters())


def test_stage_2_learns_the_same_after_a_validation(stage_1):
    system = second(stage_1, phase="prior")
    before = system.losses(batch()).total
    system.on_validation_epoch_start()
    assert torch.equal(system.losses(batch()).total, before)


def test_the_joint_phase_goes_on_from_the_first_ones_file(stage_1, tmp_path):
    save_system(tmp_path / "prior.safetensors", second(stage_1, phase="prior").system_file())
    torch.manual_seed(9)
    system = DiffIR(first_stage=str(stage_1[0]), init=str(tmp_path / "prior.safetensors"), **SIZES)
    system.configure_model()
    expected = load_system(tmp_path / "prior.safetensors").tensors
    found = state_of(system.network)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_stage_that_does_not_fit_is_refused(stage_1, tmp_path):
    with pytest.raises(ValueError, match="model.first_stage is missing"):
        DiffIR(**SIZES).losses(batch())
    with pytest.raises(ValueError, match="model.stage is 1, but model.first_stage"):
        DiffIR(stage=1, first_stage=str(stage_1[0]), **SIZES)
    path = tmp_path / "s2.safetensors"
    save_system(path, DiffIR(**SIZES).system_file())
    with pytest.raises(ValueError, match="with stage 2, and stage 2 starts from DiffIR's stage 1"):
        DiffIR(first_stage=str(path), **SIZES).configure_model()
    with pytest.raises(ValueError, match="does not fit the configured network"):
        DiffIR(first_stage=str(stage_1[0]), **(SIZES | {"n_feats": 8})).configure_model()


def test_rates_follow_the_iterations_of_the_publication(stage_1):
    first = DiffIR(stage=1, **SIZES)
    assert first._steps_per_epoch() == 1
    assert first.published_rate(0) * 2.85e-4 == pytest.approx(2e-4)
    assert first.published_rate(92_000) == pytest.approx(1)
    prior, joint = second(stage_1, phase="prior"), second(stage_1, phase="joint")
    assert [prior.published_rate(i) for i in (0, 60_000)] == pytest.approx([1, 0.1])
    assert [joint.published_rate(i) for i in (0, 80_000)] == pytest.approx([1, 0.5])


def test_patches_grow_while_batches_shrink():
    data = {"lq": torch.rand(8, 3, 512, 512), "seed": torch.arange(8), "id": list("abcdefgh")}
    data["gt"] = data["lq"]
    for iteration, count, side in ((0, 8, 192), (92_000, 4, 256), (299_999, 1, 512)):
        cut = objective.cut_patches(data, iteration)
        assert cut["lq"].shape == (count, 3, side, side) and len(cut["id"]) == count
        assert torch.equal(cut["lq"], cut["gt"]), "both are cut at one place"
    assert objective.cut_patches(data, 149_999, objective.SECOND_PHASES)["lq"].shape[-1] == 192
    with pytest.raises(ValueError, match="data.crop is 256"):
        objective.cut_patches(data | {"lq": data["lq"][..., :256]}, 0)
