"""DiffIR equals the authors' code, reads their files, and keeps its numbers."""

import official_files
import own_diffusion
import own_numbers
import pytest
import shared_golden
import torch

from lit_mimdit.systems.diffir import objective, sampler
from lit_mimdit.systems.diffir.network import FirstStage, SecondStage
from lit_mimdit.systems.diffir.official import FIRST, PARAMETERS, SECOND, from_official


@pytest.fixture(scope="module")
def second():
    torch.manual_seed(1)
    return SecondStage(**own_diffusion.SIZES)


@pytest.fixture
def state(second):
    return official_files.diffir_state(second)


def test_every_number_of_the_authors_golden_file(capsys):
    shared_golden.demand_equal("DiffIR_small.safetensors", capsys)


def test_every_number_at_the_published_size(demand_equal_at_full_size):
    demand_equal_at_full_size("DiffIR_fullsize.safetensors")


def test_our_own_numbers_have_not_changed():
    own_numbers.demand_equal("diffir")


@pytest.mark.parametrize(
    ("kind", "name", "file"), [(FirstStage, FIRST, "S1"), (SecondStage, SECOND, "S2")]
)
def test_the_published_size(kind, name, file):
    with torch.device("meta"):
        network = kind()
    assert sum(value.numel() for value in network.parameters()) == PARAMETERS[name]
    network = network.to_empty(device="cpu")
    ours = official_files.shapes(official_files.diffir_state(network))
    assert ours == official_files.published("DiffIR", file)


def test_both_stages_are_loaded_from_their_wrappings(second, state):
    first = FirstStage(**own_diffusion.SIZES)
    again = from_official({"params": official_files.diffir_state(first)})
    assert isinstance(again, FirstStage)
    x, z = torch.rand(2, 3, 16, 16), torch.randn(2, 16)
    assert torch.equal(again(x, x)[0], first(x, x)[0])
    other = {name: value + 1 for name, value in state.items()}
    wrapped = {f"module.{name}": value for name, value in state.items()}
    again = from_official({"params": other, "params_ema": wrapped})
    assert torch.equal(sampler.restore(again, x, z), sampler.restore(second, x, z))


def test_a_wider_or_deeper_network_is_read_from_the_shapes():
    sizes = {**own_diffusion.SIZES, "num_blocks": (1, 2, 1, 3), "heads": (2, 2, 4, 4), "bias": True}
    sizes |= {"ffn_expansion_factor": 2.3, "LayerNorm_type": "BiasFree"}
    network = SecondStage(n_denoise_res=3, timesteps=6, **sizes)
    again = from_official(official_files.diffir_state(network))
    assert again.timesteps == 6
    x, z = torch.rand(1, 3, 8, 8), torch.randn(1, 16)
    assert torch.equal(sampler.restore(again, x, z), sampler.restore(network, x, z))


def renamed(state, old, new):
    return {name.replace(old, new): value for name, value in state.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {"phi_0.body.0": s["condition.E.0.bias"], "phi_1.body.0": torch.ones(1)},
         "seems to be DGUNet"),
        (lambda s: {"ema": {"step": torch.ones(1), "ema_model.model.unet0.a": torch.ones(1),
                            "ema_model.betas_cumsum": torch.ones(1)}}, "seems to be DiffUIR"),
        (lambda s: {name: s[name] for name in list(s)[:-3]}, "name.* missing: .*cut off"),
        (lambda s: {k: v for k, v in s.items() if k != "condition.E.0.bias"},
         "1 names are missing: condition.E.0.bias; the file seems cut off"),
        (lambda s: s | {"G.tail.weight": torch.ones(1)}, "unexpected: G.tail.weight"),
        (lambda s: s | {"diffusion.other": torch.ones(1)}, "unexpected: diffusion.other"),
        (lambda s: s | {"G.patch_embed.proj.weight": torch.ones(8, 4, 3, 3)}, "for inpainting"),
        (lambda s: s | {"G.patch_embed.proj.weight": torch.ones(64, 3, 3, 3)}
         | {f"G.encoder_level1.{i}.x": torch.ones(1) for i in range(13)}, "for super-resolution"),
        (lambda s: s | {"diffusion.condition.E.0.bias": torch.ones(4)}, "differs from condition.E"),
        (lambda s: s | {"diffusion.betas": s["diffusion.betas"] / 2}, "go from 0.05 to 0.495"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_in_one_line(state, change, message):
    with pytest.raises(ValueError, match=message) as refusal:
        from_official(change(state))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"dim": 48}, "dim=48 contradicts the checkpoint, whose tensors say 8"),
        ({"ffn_expansion_factor": 2.66}, "ffn_expansion_factor=2.66 contradicts"),
        ({"linear_end": 0.5}, "0.1 to 0.5; the file's betas go from 0.1 to 0.99"),
        ({"width": 3}, "no argument width; the official constructor has n_encoder_res"),
    ],
)
def test_an_override_that_contradicts_the_file_is_refused(state, overrides, message):
    with pytest.raises(ValueError, match=message):
        from_official(state, **overrides)


def test_an_image_of_any_size_is_restored(second):
    z = torch.randn(1, 16)
    for size in ((8, 16), (5, 3), (1, 9)):
        restored = sampler.restore(second, torch.rand(1, 3, *size), z)
        assert restored.shape == (1, 3, *size) and restored.min() >= 0 and restored.max() <= 1


def test_the_schedule_has_the_published_values():
    table = sampler.schedule()
    for row, values in (
        (table.beta, [0.1, 0.294286, 0.590952, 0.99]),
        (table.kept, [0.9, 0.635143, 0.259804, 0.002598]),
        (table.from_prediction, [1, 0.765187, 0.636270, 0.505927]),
        (table.from_state, [0, 0.230246, 0.315256, 0.074212]),
    ):
        torch.testing.assert_close(row, torch.tensor(values), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="rise between 0 and 1"):
        sampler.schedule(4, 0.5, 0.1)


def test_no_gradient_reaches_the_target(second):
    target = torch.rand(1, 16, requires_grad=True)
    prior = objective.distilled_prior(
        second, torch.rand(1, 3, 8, 8), target, torch.randn(1, 16), sampler.schedule_of(second)
    )
    loss = objective.joint_loss(prior, prior.detach() + 1, prior, target)
    loss.backward()
    assert target.grad is None and second.denoiser.dense[0].weight.grad.abs().sum() > 0


def test_learning_rates_and_patches_follow_the_plan():
    assert objective.first_stage_rate(0) == 2e-4
    assert objective.first_stage_rate(92_000) == pytest.approx(2.85e-4)
    assert objective.first_stage_rate(300_000) == pytest.approx(1e-6)
    assert objective.second_stage_rate(99_999) == pytest.approx(2e-5)
    assert objective.second_stage_rate(100_000) == 2e-4
    with pytest.raises(ValueError, match="0 to 300000"):
        objective.first_stage_rate(300_001)
    assert [objective.progressive_phase(i) for i in (0, 91_999, 92_000, 10**6)] == [0, 0, 1, 5]
    assert sum(objective.FIRST_PHASES) == 300_000 and sum(objective.SECOND_PHASES) == 400_000
