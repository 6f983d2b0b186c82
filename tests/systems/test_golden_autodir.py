"""AutoDIR equals the authors' code, keeps its numbers and reads its file."""

import clip_systems as own
import pytest
import torch

from lit_mimdit.systems.autodir import objective, sampler
from lit_mimdit.systems.autodir.network import (
    CATEGORIES,
    Correction,
    CorrectionConfig,
    tokens,
)
from lit_mimdit.systems.autodir.official import dead, from_official, official_name
from lit_mimdit.systems.recognition import how_to_import

HEADS = {"clip_args": {"text": {"num_attention_heads": 1}, "vision": {"num_attention_heads": 1}}}


@pytest.fixture(scope="module")
def network():
    return own.autodir()


def published(network):
    """The official file of a network, from our names."""
    state = {"betas": torch.zeros(1000), "posterior_mean_coef2": torch.zeros(1000)}
    state["model_assessment.clipmodel.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    for name, value in network.state_dict().items():
        official = official_name(name, network)
        convolution = ".attn_1." in official and value.ndim == 2
        state[official] = value[:, :, None, None] if convolution else value
    return state


def test_every_number_of_the_authors_golden_file(capsys):
    own.demand_authors_numbers("autodir_small.safetensors", capsys)


def test_our_own_numbers_have_not_changed():
    own.demand_own_numbers("autodir")


def test_official_names_and_sizes():
    keys = own.official_keys("autodir")
    with own.without_values():
        network = from_official({"state_dict": own.hollow(keys["all"])})
    assert own.size(network.unet) == 859_532_484
    assert own.size(network.vae) == 83_653_863
    assert own.size(network.clip) == 427_616_513
    assert own.size(network.correction) == 115_984_643
    assert sum(map(dead, keys["all"])) == 14


def test_the_published_size_of_the_correction():
    with own.without_values():
        assert own.size(Correction(CorrectionConfig())) == 115_984_643


def test_the_networks_come_back_from_their_official_file(network):
    again = from_official({"state_dict": published(network), "epoch": 1}, **HEADS)
    ours, theirs = again.state_dict(), network.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    x, z, context = torch.rand(1, 4, 4, 6), torch.rand(1, 4, 4, 6), torch.rand(1, 77, 8)
    arguments = x, z, torch.tensor([3.5]), context
    assert torch.equal(again.noise(*arguments), network.noise(*arguments))


def test_a_file_that_is_cut_off_is_refused(network):
    state = published(network)
    del state["NAFNet.ending.bias"], state["model.diffusion_model.out.0.bias"]
    with pytest.raises(ValueError, match=r"2 names are missing: .*out\.0\.bias.*cut off"):
        from_official(state, **HEADS)


def test_other_arguments_are_refused(network):
    state = published(network)
    with pytest.raises(ValueError, match="num_res_blocks=2 contradicts"):
        from_official(state, unet_args={"num_res_blocks": 2}, **HEADS)
    for name, value, message in (
        ("projection_dim", 9, "projection_dim=9 contradicts the checkpoint, whose tensors say 8"),
        ("heads", 2, "no argument heads"),
    ):
        with pytest.raises(ValueError, match=message):
            from_official(state, clip_args=HEADS["clip_args"] | {name: value})
    with pytest.raises(ValueError, match="no argument unet"):
        from_official(state, unet={})
    with pytest.raises(ValueError, match="cannot be cut into 7 heads"):
        from_official(state, unet_args={"num_heads": 7}, **HEADS)
    with pytest.raises(ValueError, match=r"unexpected: model\.diffusion_model\.extra"):
        from_official(state | {"model.diffusion_model.extra": torch.zeros(1)}, **HEADS)


def test_plain_stable_diffusion_is_refused():
    parts = ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.")
    whole = {f"{part}out.0.bias": torch.zeros(1) for part in parts}
    for state in (dict(list(whole.items())[:1]), whole):
        with pytest.raises(ValueError, match="seems to be Stable Diffusion; give another file"):
            from_official(state)
        assert not how_to_import(state)


def test_a_part_of_autodir_is_still_autodirs(network):
    state = published(network)
    left = {name: value for name, value in state.items() if name[:5] != "first"}
    assert len(left) < len(state)
    assert "seems to be AutoDIR" in how_to_import(left)
    with pytest.raises(ValueError, match=r"AutoDIR.*(cut off|missing)"):
        from_official(left, **HEADS)


def test_sentences_are_clips_tokens():
    ids, mask = tokens("low resolution")
    assert ids[:10].tolist() == [49406, 320, 1125, 2536, 1042, 9977, 37718, 12219, 49407, 49407]
    assert mask.sum() == 9 and ids.shape == mask.shape == (77,)
    assert tokens(None)[0].tolist() == [49406] + 76 * [49407]


def test_sentences_of_the_official_list():
    official = own.official_keys("autodir")
    (listed,) = (v for k, v in official.items() if k.startswith("token_ids"))
    for category in CATEGORIES:
        ids, mask = tokens(category)
        assert ids[mask == 1].tolist() == listed[f"A photo needs {category} artifact reduction"]
    ids, mask = tokens(None)
    assert ids[mask == 1].tolist() == listed[""]


def test_the_assessor_sees_the_centre(network):
    image = torch.full((1, 3, 20, 24), -1.0)
    image[..., 2:18, 4:20] = 1.0
    white = (1 - 0.48145466) / 0.26862954
    assert network.pixels(image)[0, 0].min().item() == pytest.approx(white, abs=1e-5)
    small = network.pixels(torch.ones(1, 3, 13, 15))[0, 0]
    assert (small > 0).any(dim=1).tolist() == 2 * [False] + 13 * [True] + [False]
    assert (small > 0).any(dim=0).tolist() == [False] + 15 * [True]


def test_sides_that_do_not_fit_are_refused(network):
    with pytest.raises(ValueError, match="16 x 18 pixels; AutoDIR takes sides .* multiples of 4"):
        network.encode(torch.zeros(1, 3, 16, 18))
    with pytest.raises(ValueError, match="2 images at once"):
        next(sampler.restore(network, torch.zeros(2, 3, 16, 16), None))


def test_the_published_noise_levels():
    assert objective.sigmas_table()[-1].item() == pytest.approx(14.6146, abs=1e-4)
    levels = sampler.sampling_sigmas(4)
    table = objective.sigmas_table()
    expected = [table[999], table[666], table[333], table[0], 0]
    assert levels.tolist() == pytest.approx([float(v) for v in expected])
    with pytest.raises(ValueError, match="0 sampling steps"):
        sampler.sampling_sigmas(0)


def test_the_network_time_inverts_the_table():
    table = objective.sigmas_table()
    times = sampler.network_time(table[[0, 1, 500, 999]])
    assert times.tolist() == pytest.approx([0, 1, 500, 999], abs=1e-6)
    between = (table[500] * table[501]).sqrt()
    assert sampler.network_time(between[None]).item() == pytest.approx(500.5)


def test_a_denoiser_that_knows_the_latent_finds_it():
    latent, levels = torch.rand(1, 4, 2, 2).double(), sampler.sampling_sigmas(5)
    noises = iter(torch.randn(4, 1, 4, 2, 2).double())
    start = levels[0] * torch.randn(1, 4, 2, 2).double()
    *_, (result, _) = sampler.trajectory(lambda x, sigma: latent, start, levels, noises)
    torch.testing.assert_close(result, latent)


def test_three_passes_with_guidance_1_are_one(network):
    z, context, null = torch.rand(1, 4, 4, 4), torch.rand(1, 77, 8), torch.rand(1, 77, 8)
    x = torch.rand(1, 4, 4, 4)
    plain = sampler.denoiser(network, z, context, null)(x, 2.0)
    almost = sampler.denoiser(network, z, context, null, 1.0, 1.0 + 1e-9)(x, 2.0)
    torch.testing.assert_close(plain, almost)


def test_every_iteration_has_the_same_noise():
    first, steps = sampler.seeded(3, (1, 4, 2, 2))
    again, others = sampler.seeded(3, (1, 4, 2, 2))
    assert torch.equal(first, again) and torch.equal(next(steps), next(others))
    assert not torch.equal(first, next(steps))


class Judge(torch.nn.Module):
    """Networks that prefer the categories in this order, and whose images count the iterations."""

    def __init__(self, order):
        super().__init__()
        self.order, self.asked = order, []

    def assess(self, image, ids, mask):
        left = [c for c in CATEGORIES if any(torch.equal(tokens(c)[0], row) for row in ids)]
        self.asked.append(left)
        scores = torch.tensor([[-1.0 * self.order.index(category) for category in left]])
        return scores.softmax(dim=1), scores.T, torch.ones(len(left), 77, 8)

    def hidden(self, ids):
        return torch.zeros(len(ids), 77, 8)

    def encode(self, image):
        return torch.zeros(1, 4, 2, 2)

    def noise(self, x, z, t, context):
        return torch.zeros_like(x)

    def decode(self, latent):
        return torch.ones(1, 3, 16, 16)

    def correction(self, image, decoded):
        return image + 10


def run(order, **given):
    judge = Judge(order)
    return judge, list(
        sampler.restore(
            judge, torch.zeros(1, 3, 16, 16), lambda i: sampler.seeded(0, (1, 4, 2, 2)), 2, **given
        )
    )


def test_restoring_stops_when_nothing_is_left_to_do():
    order = ("haze", "low resolution", "no", *(c for c in CATEGORIES if c not in ("haze", "no")))
    judge, steps = run(order)
    assert [step.chosen for step in steps] == ["haze", "low resolution", "no"]
    assert "haze" not in judge.asked[1] and len(judge.asked[2]) == 6
    # the correction follows haze, and is left out after low resolution
    assert [step.result.mean().item() for step in steps] == [10.0, 1.0, 1.0]


def test_each_category_is_treated_once_and_a_second_image_begins_anew():
    order = (*(c for c in CATEGORIES if c != "no"), "no")
    for _ in range(2):
        _, steps = run(order)
        assert [step.chosen for step in steps] == list(order[:7])


def test_a_users_sentence_is_one_iteration_without_a_choice():
    judge, steps = run(CATEGORIES, sentence=tokens("blur")[0][None])
    assert len(steps) == 1 and steps[0].chosen is None and not judge.asked
    assert steps[0].result.mean().item() == 10.0


def test_bytes_are_truncated():
    image = torch.tensor([-1.5, 1.5, 2 * 100.9 / 255 - 1]).view(1, 3, 1, 1)
    assert sampler.to_bytes(image)[0, 0].tolist() == [0, 255, 100]


def test_the_fidelity_loss_is_its_formula():
    truth = torch.eye(8)[:2]
    assert objective.fidelity_loss(truth, truth).item() == pytest.approx(-8.75e-5, abs=1e-6)
    even = torch.full((2, 8), 1 / 8)
    expected = (1 - (1 / 8 + 1e-8) ** 0.5 - 7e-4) / 8
    assert objective.fidelity_loss(even, truth).item() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("size", [(7, 9), (8, 8)])
def test_the_correction_takes_any_size_and_starts_at_the_decoded_image(size):
    correction = Correction(CorrectionConfig(6, 4, (1, 1), 1, (1, 1)))
    image, decoded = torch.rand(2, 1, 3, *size)
    assert correction(image, decoded).shape == image.shape
    torch.nn.init.zeros_(correction.ending.weight)
    torch.nn.init.zeros_(correction.ending.bias)
    torch.testing.assert_close(correction(image, decoded), decoded)
