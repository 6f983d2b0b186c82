"""PromptIR equals the authors' code, and keeps its numbers."""

import math

import own_numbers
import pytest
import shared_golden
import torch
from filling import fill_network

from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.models.restormer import ChannelNorm, Modulation, RestormerBlock, expansion_of
from lit_mimdit.systems.import_weights import import_weights
from lit_mimdit.systems.promptir import PromptIR, objective
from lit_mimdit.systems.promptir.inference import restore
from lit_mimdit.systems.promptir.network import PromptIRNetwork
from lit_mimdit.systems.promptir.official import (
    DEAD,
    PUBLISHED,
    arguments,
    from_official,
    official_name,
    prompts_untrained,
)


def small(norm_bias: bool = True) -> PromptIRNetwork:
    sizes = (4, (1, 2, 1, 1), 1, (1, 2, 2, 4), 2.66, norm_bias, (4, 4, 4), 3, (5, 3, 2))
    return fill_network(PromptIRNetwork(*sizes), 3)


def official_state(network: PromptIRNetwork) -> dict[str, torch.Tensor]:
    state = {official_name(name): value for name, value in network.state_dict().items()}
    return {
        name: value[None] if name.endswith("prompt_param") else value
        for name, value in state.items()
    }


def test_every_number_of_the_authors_golden_file(capsys):
    shared_golden.demand_equal("PromptIR_small.safetensors", capsys)


def test_our_own_numbers_have_not_changed():
    own_numbers.demand_equal("promptir")


def test_the_published_size():
    with torch.device("meta"):
        network = PromptIRNetwork()
    assert shared_golden.parameters(network) == 35_592_263 - 215_296
    state = official_state(network)
    assert arguments(state) == PUBLISHED
    shared_golden.demand_official_names(
        "PromptIR_keys.json", {name: value.shape for name, value in state.items()}, set(DEAD)
    )


@pytest.mark.parametrize("norm_bias", [True, False])
def test_loading_a_lightning_checkpoint_gives_the_same_outputs(norm_bias):
    network = small(norm_bias)
    state = {f"net.{name}": value for name, value in official_state(network).items()}
    state |= {f"net.{name}": torch.zeros(1) for name in DEAD}
    again = from_official({"epoch": 1, "state_dict": state, "optimizer_states": []})
    x = torch.rand(1, 3, 16, 24)
    assert torch.equal(again(x), network(x))


def test_a_constructor_without_decoder_is_refused():
    with pytest.raises(ValueError, match="decoder=False contradicts the checkpoint"):
        from_official(official_state(small()), decoder=False)


def test_other_numbers_of_channels_are_refused():
    state = official_state(small())
    with pytest.raises(ValueError, match="inp_channels=1 contradicts the checkpoint"):
        from_official(state, inp_channels=1)
    assert from_official(state, inp_channels=3, out_channels=3)
    grey = state | {"output.weight": state["output.weight"][:1]}
    with pytest.raises(ValueError, match="not for images of three colours"):
        from_official(grey)


def test_a_contradicting_expansion_is_refused():
    with pytest.raises(ValueError, match="ffn_expansion_factor=3.0 contradicts"):
        from_official(official_state(small()), ffn_expansion_factor=3.0)


def test_the_expansion_follows_from_the_widths():
    assert expansion_of({48: 127, 96: 255, 192: 510, 384: 1021}, 2.66) == 2.66
    found = expansion_of({8: 17, 16: 35}, 2.66)
    assert (int(8 * found), int(16 * found)) == (17, 35)
    with pytest.raises(ValueError, match="different networks"):
        expansion_of({8: 17, 16: 40}, 2.66)


@pytest.mark.parametrize("with_bias", [True, False])
def test_the_norm_is_its_formula(with_bias):
    torch.manual_seed(0)
    norm = ChannelNorm(6, with_bias)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        if with_bias:
            norm.bias.uniform_(-1, 1)
    u = torch.randn(1, 6, 2, 1) + 3
    pixel = u[0, :, 1, 0].tolist()
    mean = sum(pixel) / 6
    deviation = math.sqrt(sum((value - mean) ** 2 for value in pixel) / 6 + 1e-5)
    for channel, value in enumerate(pixel):
        centred = value - mean if with_bias else value
        expected = centred / deviation * norm.weight[channel].item()
        expected += norm.bias[channel].item() if with_bias else 0
        assert norm(u)[0, channel, 1, 0].item() == pytest.approx(expected, abs=1e-5)


def test_a_modulated_block_scales_and_shifts_what_enters_its_parts():
    torch.manual_seed(0)
    block, plain = RestormerBlock(4, 2, 2, prior=3), RestormerBlock(4, 2, 2)
    plain.load_state_dict(block.state_dict(), strict=False)
    u, z = torch.randn(1, 4, 4, 6), torch.ones(1, 3)
    with torch.no_grad():
        for modulation in (block.modulate1, block.modulate2):
            modulation.project.weight.zero_()
            modulation.project.weight[:4, 0] = 1.0  # scale 1, shift 0
    torch.testing.assert_close(block(u, z), plain(u))
    one = Modulation(1, 2)
    with torch.no_grad():
        one.project.weight.copy_(torch.tensor([[2.0], [3.0], [10.0], [20.0]]))
    scaled = one(torch.ones(1, 2, 1, 1), torch.ones(1, 1))
    assert scaled.flatten().tolist() == [12.0, 23.0]


def test_prompts_that_got_no_gradient_are_found():
    torch.manual_seed(0)
    network = PromptIRNetwork(4, (1, 1, 1, 1), 1, (1, 2, 2, 4), prompt_dims=(4, 4, 4))
    assert prompts_untrained(network)
    with torch.no_grad():
        network.prompt2.maps.add_(0.05)
    assert not prompts_untrained(network)


def test_the_import_of_untrained_prompts_says_so(tmp_path, capsys):
    torch.manual_seed(0)
    network = PromptIRNetwork(4, (1, 1, 1, 1), 1, (1, 2, 2, 4), prompt_dims=(4, 4, 4))
    file, output = tmp_path / "model.ckpt", tmp_path / "promptir.safetensors"

    def said() -> str:
        state = {f"net.{name}": value for name, value in official_state(network).items()}
        torch.save({"state_dict": state}, file)
        import_weights("promptir", [file], output=output)
        return capsys.readouterr().out

    assert "\nnote: the prompts of this file look untrained" in said()
    with torch.no_grad():
        network.prompt3.maps.add_(0.05)
    assert "note:" not in said()


@pytest.mark.parametrize("tile", [None, 16])
def test_an_image_of_any_size_is_restored(tile):
    image = torch.rand(1, 3, 29, 45)
    restored = restore(small(), image, tile, 8)
    assert restored.shape == image.shape and restored.min() >= 0 and restored.max() <= 1


@pytest.mark.parametrize("merge", ["window", "mean"])
def test_an_imported_file_keeps_the_tiles_of_the_demo(merge, tmp_path):
    network, image = small(), torch.rand(1, 3, 29, 45)
    torch.save({"state_dict": official_state(network)}, tmp_path / "model.ckpt")
    output = tmp_path / "promptir.safetensors"
    override = f'{{"tile": 16, "overlap": 8, "merge": "{merge}"}}'
    import_weights("promptir", [tmp_path / "model.ckpt"], output=output, override=override)
    restorer, seeds, counted = load_restorer(output, device="cpu"), torch.zeros(1).long(), []
    found, _ = restorer(image, seeds, counted.append)
    assert sum(counted) == restorer.evaluations(29, 45)
    assert restorer.record()["sampling"] == {"tile": 16, "overlap": 8}
    demo = restore(network, image, 16, 8)
    assert torch.equal(found, demo) == (merge == "mean")
    whole, _ = load_restorer(output, device="cpu", tile=0)(image, seeds)
    assert torch.equal(whole, restore(network, image))
    assert (whole - found).abs().max() > 1e-4


def test_an_unknown_merge_is_refused():
    with pytest.raises(ValueError, match="model.merge is 'median': .* by window or by mean"):
        PromptIR.from_official(official_state(small()), merge="median")


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="multiples of 8, not 12 x 16"):
        small()(torch.rand(1, 3, 12, 16))
    with pytest.raises(ValueError, match="tiles are multiples of 8 pixels, not 20"):
        restore(small(), torch.rand(1, 3, 32, 32), 20)
    with pytest.raises(ValueError, match="overlap of 16 does not fit tiles of 16"):
        restore(small(), torch.rand(1, 3, 32, 32), 16, 16)


def test_the_learning_rate():
    late = [objective.learning_rate(epoch) for epoch in (0, 1, 2, 15, 16)]
    assert late == pytest.approx([0, 0, 2e-4 / 14, 2e-4, 2e-4], rel=1e-9)
    assert objective.learning_rate(119) == pytest.approx(2.65e-5, rel=2e-3)
    assert objective.learning_rate(0, late=False) > 0
    assert objective.optimizer([torch.nn.Parameter(torch.ones(1))]).defaults["weight_decay"] == 0.01
