"""DiT4SR equals the authors' code, keeps its numbers and reads its files."""

import clip_systems as own
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from lit_mimdit.inference.colour import adain
from lit_mimdit.models.condition import Prompt
from lit_mimdit.systems.dit4sr import objective, sampler
from lit_mimdit.systems.dit4sr.network import ControlConfig, DiT4SRNetwork
from lit_mimdit.systems.dit4sr.official import from_official, official_name


def published(network, **more):
    """The official file of a network, with the dead tensors of the second attention."""
    state = {official_name(name): value for name, value in network.state_dict().items()}
    dead = {"transformer_blocks.0.attn2.add_q_proj.weight": torch.ones(32, 32)}
    return state | dead | more


def inputs(height=6, width=8):
    shape = 1, 16, height, width
    x, lq = own.normal("x", *shape).float(), own.normal("lq", *shape).float()
    text = Prompt(*(value.float() for value in own.prompt()))
    return x, torch.tensor([0.4]), lq, text


def test_every_number_of_the_authors_golden_file(capsys):
    own.demand_authors_numbers("dit4sr_small.safetensors", capsys)


def test_our_own_numbers_have_not_changed():
    own.demand_own_numbers("dit4sr")


def test_official_names_and_sizes():
    keys = own.official_keys("dit4sr")
    with own.without_values():
        network = from_official(own.hollow(keys["all"]), key="r1", **keys["config"])
    assert own.size(network.backbone) == keys["counts"]["base"] == 2_243_171_520
    names = {official_name(f"branch.{name}") for name in network.branch.state_dict()}
    assert names == set(keys["trained"])


def test_the_published_size_of_what_is_trained():
    with own.without_values():
        transformer = own.sd3(
            num_layers=24,
            attention_head_dim=64,
            num_attention_heads=24,
            joint_attention_dim=4096,
            caption_projection_dim=1536,
            pooled_projection_dim=2048,
            dual_attention_layers=tuple(range(13)),
        )
        network = DiT4SRNetwork(transformer)
    assert own.size(network.branch) == 350_877_696


def test_the_published_cost_of_a_step():
    sizes = {
        "num_layers": 24,
        "attention_head_dim": 64,
        "num_attention_heads": 24,
        "joint_attention_dim": 4096,
        "caption_projection_dim": 1536,
        "pooled_projection_dim": 2048,
        "pos_embed_max_size": 64,
        "dual_attention_layers": tuple(range(13)),
    }
    with own.without_values():
        bare, network = own.sd3(**sizes), DiT4SRNetwork(own.sd3(**sizes))
        x, t = torch.zeros(1, 16, 64, 64), torch.zeros(1)  # 512 pixels
        text = Prompt(torch.zeros(1, 333, 4096), torch.zeros(1, 2048))
        with FlopCounterMode(display=False) as plain, torch.no_grad():
            bare(x, text.embeds, text.pooled, t)
        with FlopCounterMode(display=False) as streams, torch.no_grad():
            network(x, t, x, text)
    assert plain.get_total_flops() / 1e12 == pytest.approx(2.443, abs=6e-4)
    assert streams.get_total_flops() / 1e12 == pytest.approx(5.440, abs=6e-4)


@pytest.mark.parametrize("key", ["r1", "original"])
def test_a_network_comes_back_from_its_official_file(key):
    network = own.dit4sr(key=key)
    state = {f"transformer.{k}": v for k, v in published(network).items()}
    again = from_official(state, key=key)
    assert torch.equal(again(*inputs()), network(*inputs()))


def test_the_variant_follows_from_the_weights():
    state = published(own.dit4sr())
    assert from_official(state).branch.config.key == "r1"
    zero = {k: torch.zeros_like(v) for k, v in state.items() if "to_k_control" in k}
    assert from_official(state | zero).branch.config.key == "original"
    with pytest.raises(ValueError, match="key is 'q': weights dit4sr_r1"):
        from_official(state, key="q")


def test_a_file_that_is_cut_off_is_refused():
    state = published(own.dit4sr())
    del state["transformer_blocks.1.ff.control_conv.weight"]
    with pytest.raises(ValueError, match=r"missing: transformer_blocks\.1\.ff\.control.*cut off"):
        from_official(state)
    with pytest.raises(ValueError, match="no tensor context_embedder"):
        from_official({k: v for k, v in state.items() if "context_embedder" not in k})


def test_another_configuration_is_refused():
    with pytest.raises(ValueError, match="num_layers=24 contradicts the checkpoint"):
        from_official(published(own.dit4sr()), num_layers=24)
    with pytest.raises(ValueError, match=r"unexpected: transformer_blocks\.1\.attn\.to_x"):
        from_official(
            published(own.dit4sr(), **{"transformer_blocks.1.attn.to_x.weight": torch.ones(1)})
        )


def test_plain_stable_diffusion_is_refused():
    with pytest.raises(ValueError, match="seems to be Stable Diffusion 3"):
        from_official(own.sd3().state_dict())


def test_a_backbone_without_normalised_keys_is_refused():
    with pytest.raises(ValueError, match="qk_norm None"):
        DiT4SRNetwork(own.sd3(qk_norm=None))


def test_the_lq_image_has_no_say_before_training():
    network = own.dit4sr()
    for name, value in network.branch.named_parameters():
        if "to_out_control" not in name:
            torch.nn.init.zeros_(value)
    x, t, lq, text = inputs()
    torch.testing.assert_close(network(x, t, lq, text), network(x, t, -lq, text))


def test_a_new_branch_copies_the_output_projections():
    network = DiT4SRNetwork(own.sd3())
    block, control = network.backbone.transformer_blocks[0], network.branch.transformer_blocks[0]
    assert torch.equal(control.attn.to_out_control.weight, block.attn.to_out[0].weight)
    assert torch.equal(control.attn2.to_out_control.weight, block.attn2.to_out[0].weight)
    assert not control.attn.to_k_control.weight.any()


def test_the_convolution_sees_rows_of_a_wide_latent():
    # A change at one place of the LQ image reaches its neighbours only: without attention between
    # the streams, the convolution is the one way across.
    network = own.dit4sr()
    for control in network.branch.transformer_blocks:
        conv = control.ff["control_conv"]
        torch.nn.init.zeros_(conv.bias)
    block = network.backbone.transformer_blocks[0]
    grid = (2, 8)  # 16 tokens, a perfect square, which the published code scrambles
    tokens = torch.zeros(1, 32, 32)
    block.ff.grid = grid
    before = block.ff(tokens)
    tokens[0, 16 + 3] = 1.0  # row 0, column 3 of the LQ stream
    changed = (block.ff(tokens) - before)[0, :16].abs().sum(dim=1) > 1e-6
    block.ff.grid = None
    expected = torch.zeros(2, 8, dtype=torch.bool)
    expected[:, 2:5] = True
    assert torch.equal(changed.view(grid), expected)


def test_without_a_grid_the_mlp_is_the_backbones_own():
    torch.manual_seed(0)
    plain = own.sd3()
    wrapped = DiT4SRNetwork(own.sd3()).backbone
    wrapped.load_state_dict(plain.state_dict())
    x = torch.rand(1, 6, 32)
    ours, theirs = (net.transformer_blocks[1].ff(x) for net in (wrapped, plain))
    assert torch.equal(ours, theirs)
    assert wrapped.transformer_blocks[1].ff.grid is None


def test_recomputed_activations_give_the_same_gradients():
    network, gradients = own.dit4sr(), []
    network.branch.requires_grad_(True)
    for recompute in (False, True):
        if recompute:
            network.enable_gradient_checkpointing()
        loss = network(*inputs()).square().mean()
        gradients.append(torch.autograd.grad(loss, list(network.branch.parameters())[:3]))
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_wrong_input_is_refused():
    network = own.dit4sr()
    x, t, lq, text = inputs()
    with pytest.raises(ValueError, match="got none: give the embeddings"):
        network(x, t, lq)
    with pytest.raises(ValueError, match="both of one shape"):
        network(x, t, lq[..., :4], text)
    with pytest.raises(ValueError, match="multiples of the patch size"):
        network.condition(lq[..., :3])
    with pytest.raises(ValueError, match="cannot overlap by 8"):
        sampler.tile_starts(20, 8, 8)
    with pytest.raises(ValueError, match="0 sampling steps"):
        sampler.sigmas(0)


def test_the_noise_levels_are_those_of_diffusers_scheduler():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    torch.testing.assert_close(
        objective.training_sigmas(torch.arange(1000)).float(), scheduler.sigmas
    )
    scheduler.set_timesteps(40)
    torch.testing.assert_close(sampler.sigmas(40).float(), scheduler.sigmas)


def test_the_drawn_steps_are_logit_normal():
    drawn = objective.draw_index(torch.tensor([0.0, -50.0, 50.0, 1.0]))
    assert drawn.tolist() == [500, 0, 999, 731]


def test_tiles_of_a_network_that_looks_at_one_place_change_nothing():
    def network(x, t, z_lq, text):
        return x * 2 + z_lq

    x, lq = torch.rand(2, 1, 4, 20, 26)
    found = sampler.tiled(network, x, 0.5, lq, own.prompt(), 8, 2)
    torch.testing.assert_close(found, 2 * x + lq)
    assert sampler.tile_starts(20, 8, 2) == [0, 6, 12]
    assert sampler.tile_starts(16, 8, 2) == [0, 6, 8]
    assert sampler.tile_starts(8, 8, 2) == [0]


@pytest.mark.parametrize(
    ("caption", "kept"),
    [
        ("A boat. The focus is on its bow. Gulls!", "A boat. Gulls!"),
        ("A tower, 3.5 m high? It is positioned left. End", "A tower, 3.5 m high? End"),
        ("no stop at all", "no stop at all"),
        ("The blurry fence.", ""),
    ],
)
def test_captions_lose_sentences_about_sharpness(caption, kept):
    assert sampler.filter_caption(caption) == kept


def test_captions_of_the_authors_golden_file():
    path = own.check_golden.SHARED / "dit4sr_small.safetensors"
    if not path.is_file():
        pytest.skip(f"{path} is not here, so no captions are compared")
    for caption, kept in own.check_golden.read(path).info["prompt_filter"]:
        assert sampler.filter_caption(caption) == kept


@pytest.mark.parametrize(
    ("size", "prepared"),
    [((64, 100), (512, 800)), ((201, 130), (800, 520)), ((128, 128), (512,) * 2)],
)
def test_pictures_are_enlarged_to_multiples_of_8(size, prepared):
    assert sampler.prepare(Image.new("RGB", size)).size == prepared


def test_adain_brings_mean_and_deviation():
    restored, degraded = torch.rand(1, 3, 8, 8), 0.2 * torch.rand(1, 3, 8, 8) + 0.5
    found = adain(restored, degraded)
    torch.testing.assert_close(found.mean((2, 3)), degraded.mean((2, 3)))
    torch.testing.assert_close(found.std((2, 3)), degraded.std((2, 3)), rtol=1e-3, atol=1e-4)


def test_the_key_of_the_lq_stream_matters():
    r1, original = own.dit4sr(), own.dit4sr(key="original")
    assert (r1(*inputs()) - original(*inputs())).abs().max() > 1e-4
    with pytest.raises(ValueError, match="key is 'r2'"):
        ControlConfig(key="r2")
