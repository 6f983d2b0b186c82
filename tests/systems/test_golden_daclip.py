"""DA-CLIP equals the authors' code, keeps its numbers and reads its files."""

import math

import clip_systems as own
import pytest
import torch

from lit_mimdit.systems.daclip.clip import DegradationCLIP, TextConfig, VisionConfig
from lit_mimdit.systems.daclip.network import UNet, UNetConfig
from lit_mimdit.systems.daclip.objective import build_sde, clip_loss, marginal, posterior_mean
from lit_mimdit.systems.daclip.official import (
    TRANSPOSED,
    DACLIPNetwork,
    from_official,
    official_name,
)
from lit_mimdit.systems.daclip.sampler import clip_pixels, first_state, trajectory

WILD = {"use_degra_context": False, "scale": 0.5}


def unet_file(**changes):
    return dict(own.daclip_unet(**changes).state_dict())


def clip_file(network):
    """The official controller file of a network, from our names."""
    parts = {official_name(name): value for name, value in network.state_dict().items()}
    state = {}
    for name, value in parts.items():
        whole = name.removesuffix("[q]")
        if whole != name:
            state[whole] = torch.cat([parts[f"{whole}[{k}]"] for k in "qkv"])
        elif not name.endswith(("[k]", "[v]")):
            state[name] = value.T if name in TRANSPOSED else value
    twins = {n.removeprefix("clip."): v for n, v in state.items() if n.startswith("clip.visual.")}
    return state | twins


@pytest.mark.parametrize("name", ["daclip_small", "daclip_wild_small"])
def test_every_number_of_the_authors_golden_file(name, capsys):
    own.demand_authors_numbers(f"{name}.safetensors", capsys)


def test_our_own_numbers_have_not_changed():
    own.demand_own_numbers("daclip")


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 48_975_747),
        ({"context_dim": 768} | WILD, 49_470_467),
        ({"use_degra_context": False, "use_image_context": False}, 36_236_419),
    ],
)
def test_the_published_size_of_the_u_net(changes, count):
    with own.without_values():
        assert own.size(UNet(UNetConfig(**changes))) == count


def test_the_published_size_of_controller_and_clip():
    with own.without_values():
        network = DegradationCLIP(512, VisionConfig(), TextConfig())
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert trained == 94_936_321
    assert own.size(network) == 246_213_634


def test_official_names_of_all_four_files():
    keys = own.official_keys("daclip")
    with own.without_values():
        for name in ("daclip_ViT-B-32", "daclip_ViT-L-14"):
            network = from_official({"state_dict": own.hollow(keys[name]), "epoch": 3})
            counts = keys[f"counts {name}"]
            assert own.size(network) == counts["all"]
            assert own.size(network.control) + 1 == counts["trained"]
        for name in ("universal-ir unet", "wild-ir unet"):
            network = from_official(own.hollow(keys[name]))
            assert own.size(network) == keys["counts"][name]


@pytest.mark.parametrize("changes", [{}, WILD, {"ch_mult": (1, 1, 1, 2)}])
def test_a_u_net_comes_back_from_its_official_file(changes):
    network = own.daclip_unet(**changes)
    file = {f"module.{k}": v for k, v in network.state_dict().items()}
    again = from_official(file)
    assert again.config == network.config
    x, context = torch.rand(2, 3, 9, 17), torch.rand(2, 8)
    arguments = x, torch.rand(2, 3, 9, 17), torch.tensor([3, 80]), context, context
    assert torch.equal(again(*arguments), network(*arguments))


def test_controller_and_clip_come_back_from_their_official_file():
    network = own.daclip_clip()
    file = {"state_dict": clip_file(network), "epoch": 4, "name": "daclip"}
    again = from_official(file, vision_cfg={"head_width": 8}, text_cfg={"heads": 2})
    image = torch.rand(2, 3, 16, 16)
    for ours, theirs in zip(again.encode(image), network.encode(image), strict=True):
        assert torch.equal(ours, theirs)
    words = torch.tensor([[1, 31, 0, 0, 0, 0], [2, 3, 31, 0, 0, 0]])
    assert torch.equal(again.text(words), network.text(words))
    both = {f"daclip.{k}": v for k, v in file["state_dict"].items()}
    both |= {f"unet.{k}": v for k, v in unet_file().items()}
    sizes = {"vision_cfg": {"head_width": 8}, "text_cfg": {"heads": 2}, "nf": 32}
    assert isinstance(from_official(both, **sizes), DACLIPNetwork)


def test_a_file_that_is_cut_off_is_refused():
    state = unet_file()
    del state["ups.1.3.weight"]
    with pytest.raises(ValueError, match=r"1 names are missing: ups\.1\.3\.weight.*cut off"):
        from_official(state)
    controller = clip_file(own.daclip_clip())
    del controller["visual_control.transformer.transformer.resblocks.2.attn.in_proj_weight"]
    with pytest.raises(ValueError, match=r"in_proj_weight\[q\].*cut off"):
        from_official(controller, vision_cfg={"head_width": 8}, text_cfg={"heads": 2})


def test_another_variant_is_refused():
    with pytest.raises(ValueError, match="scale=1.0 contradicts the checkpoint"):
        from_official(unet_file(**WILD), scale=1.0)
    with pytest.raises(ValueError, match=r"unexpected: extra\.weight"):
        from_official(unet_file() | {"extra.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="no argument depth"):
        from_official(unet_file(), depth=3)


def test_another_system_is_refused():
    state = {"prompt1.prompt_param": torch.zeros(1), "encoder_level1.0.x": torch.zeros(1)}
    with pytest.raises(ValueError, match="seems to be PromptIR"):
        from_official(state)


def test_a_controller_whose_twin_tensors_differ_is_refused():
    state = clip_file(own.daclip_clip())
    state["visual.conv1.weight"] = state["visual.conv1.weight"] + 1
    with pytest.raises(ValueError, match=r"visual\.conv1\.weight.*differ"):
        from_official(state, vision_cfg={"head_width": 8})


def test_heads_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="width 16 cannot be cut into 0.25 heads"):
        from_official(clip_file(own.daclip_clip()))


def test_an_image_of_any_size_is_taken_and_one_without_its_embedding_refused():
    network = own.daclip_unet()
    x, context = torch.rand(1, 3, 1, 9), torch.rand(1, 8)
    row = network(x, x, torch.tensor([1]), context, context)
    whole = x.expand(1, 3, network.multiple, 9)  # a row is its own mirror image
    assert row.shape == x.shape
    again = network(whole, whole, torch.tensor([1]), context, context)
    torch.testing.assert_close(row, again[..., :1, :])
    x = torch.rand(1, 3, 8, 8)
    with pytest.raises(ValueError, match="none is given"):
        network(x, x, torch.tensor([1]), context)
    with pytest.raises(ValueError, match=r"scale is 0\.25"):
        UNetConfig(scale=0.25)


def test_half_precision_spoils_no_sines():
    network, late = own.daclip_unet(), torch.tensor([97.0])
    exact = network.time_mlp[0](late)
    low = network.time_mlp[0](late.bfloat16())
    torch.testing.assert_close(low.float(), exact, atol=2**-8, rtol=0)


def test_a_new_controller_leaves_clip_alone():
    torch.manual_seed(0)
    network = DegradationCLIP(8, VisionConfig(16, 3, 16, 8, 8), TextConfig(6, 32, 16, 2, 1))
    image = torch.rand(2, 3, 16, 16)
    content, degradation = network.encode(image)
    assert torch.equal(content, network.content(image))
    assert torch.equal(degradation, content)


def test_the_controllers_last_block_steers_the_first_block_of_clip():
    network = own.daclip_clip()
    image, seen = torch.rand(1, 3, 16, 16), []
    tower = network.clip.vision_model.encoder.layers
    hook = tower[1].register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    _, controls = network.control(image)
    network.content(image)
    network.content(image, [torch.zeros_like(controls[0])] * 2 + controls[2:])
    hook.remove()
    torch.testing.assert_close(seen[1] - seen[0], controls[2])


def test_the_published_schedule():
    sde = build_sde()
    assert sde.theta[0].item() == pytest.approx(6.14e-4, rel=1e-3)
    assert sde.theta[-1].item() == pytest.approx(0.99977, abs=1e-5)
    assert sde.dt == pytest.approx(0.10409, abs=1e-5)
    # what is left of the clean image at the end is eps, and x_T's noise is below lambda
    assert math.exp(-sde.cumulated[-1].item() * sde.dt) == pytest.approx(0.005)
    assert sde.bar[-1].item() == pytest.approx(0.196076, abs=1e-6)
    assert sde.scale == pytest.approx(0.196078, abs=1e-6)
    with pytest.raises(ValueError, match="eps=2.* make no SDE"):
        build_sde(eps=2)
    with pytest.raises(ValueError, match="schedule is 'square'"):
        build_sde(schedule="square")


@pytest.mark.parametrize("mode", ["posterior", "ode"])
def test_a_network_that_knows_the_noise_restores_the_image(mode):
    torch.manual_seed(0)
    clean, mu = torch.rand(2, 1, 3, 4, 4).double()
    sde = build_sde()
    start = first_state(sde, mu, torch.randn(1, 3, 4, 4).double())

    def noise(x, t):
        left = torch.exp(-sde.cumulated[t.long()] * sde.dt)
        return (x - mu - (clean - mu) * left) / sde.bar[t.long()]

    *_, restored = trajectory(sde, noise, mu, start, mode, generator=torch.Generator())
    difference = (restored - clean).abs().max().item()
    assert difference < (1e-9 if mode == "posterior" else 0.1)
    with pytest.raises(ValueError, match="mode is 'euler'"):
        list(trajectory(sde, noise, mu, start, "euler"))


def test_the_posterior_mean_follows_the_marginal():
    sde, t = build_sde(), torch.tensor([40])
    clean, mu = torch.rand(2, 1, 3, 2, 2).double()
    none = torch.zeros_like(mu)
    x = marginal(sde, clean, mu, t, none)
    torch.testing.assert_close(
        posterior_mean(sde, x, mu, t, clean), marginal(sde, clean, mu, t - 1, none)
    )


def test_equal_words_bound_the_contrastive_loss():
    images, word = torch.randn(6, 8), torch.randn(1, 8)
    assert clip_loss(images, word.expand(6, -1), torch.tensor(100.0)).item() >= math.log(6)
    matched = torch.eye(6)
    assert clip_loss(matched, matched, torch.tensor(100.0)).item() < 1e-6


def test_clip_sees_the_centre_of_a_wide_picture():
    picture = torch.zeros(32, 96, 3, dtype=torch.uint8)
    picture[:, 32:64] = 255
    pixels = clip_pixels(picture.numpy(), 16)
    assert pixels.shape == (3, 16, 16)
    assert pixels[0, 8, 8].item() == pytest.approx((1 - 0.48145466) / 0.26862954, abs=1e-5)


def test_probabilities_of_degradations():
    found = own.daclip_clip().classify(torch.rand(2, 3, 16, 16), torch.tensor([[1, 31], [2, 31]]))
    torch.testing.assert_close(found.sum(dim=1), torch.ones(2))
