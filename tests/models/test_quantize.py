"""A frozen backbone in fewer bits: how near it stays, what it takes, what learns beside it."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from diffusers import SD3Transformer2DModel
from kit.gguf_file import write_gguf

from lit_mimdit.models.backbone import load_backbone
from lit_mimdit.models.branch_config import BranchConfig, IntraConfig
from lit_mimdit.models.network import MiMDiTNetwork
from lit_mimdit.models.quantize import (
    checked,
    held_bytes,
    plain_state,
    planned_saving,
    quantized_as,
)
from lit_mimdit.systems.controlnet import ControlNetConfig, ControlNetDiT
from lit_mimdit.systems.dit4sr.network import DiT4SRNetwork

WIDE = {
    "attention_head_dim": 32,
    "caption_projection_dim": 64,
}  # rows of 64: whole blocks of scales
needs_torchao = pytest.mark.skipif(
    find_spec("torchao") is None, reason="fp8 needs torchao: pip install torchao"
)
FP8 = pytest.param("fp8", marks=needs_torchao)
FP8_ROW = pytest.param("fp8", 0.035, marks=needs_torchao)
BRANCH = BranchConfig(
    width=16, heads=2, window=2, intra=IntraConfig(experts=2, top_k=1), zero_std=0.5
)


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Path:
    """A backbone whose layers are wide enough for blocks of 64 weights, and its GGUF file."""
    from kit.small_models import write_backbone

    folder = write_backbone(tmp_path_factory.mktemp("wide") / "backbone", **WIDE)
    transformer = SD3Transformer2DModel.from_pretrained(folder / "transformer")
    write_gguf(folder / "q8.gguf", transformer)
    return folder


def kind_of(name: str, folder: Path) -> str:
    return f"gguf:{folder / 'q8.gguf'}" if name == "gguf" else name


def velocity(network, z_lq):
    x_t = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(1))
    return network(x_t, torch.tensor([0.3, 0.7]), network.condition(z_lq))


# relative root mean square error of the velocity: measured 0.096, 0.0084, 0.021 and 0.0047
@pytest.mark.parametrize("name, near", [("nf4", 0.15), ("int8", 0.015), FP8_ROW, ("gguf", 0.008)])
def test_the_velocity_stays_near_and_the_branch_learns(wide, name, near):
    z_lq = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    plain, kind = load_backbone(str(wide)), kind_of(name, wide)
    loaded = load_backbone(str(wide), quantize=kind)
    assert quantized_as(loaded.transformer) == name and quantized_as(plain.transformer) is None
    networks = []
    for one in (plain, loaded):
        torch.manual_seed(3)
        networks.append(MiMDiTNetwork(one.transformer, BRANCH, one.prompt))
    expected, found = (velocity(network, z_lq) for network in networks)
    error = ((found - expected).norm() / expected.norm()).item()
    assert 1e-4 < error < near
    gradients = []
    for network, result in zip(networks, (expected, found), strict=True):
        result.square().mean().backward()
        assert all(p.grad is None for p in network.backbone.parameters())
        assert all(p.dtype == torch.float32 for p in network.branch.parameters())
        grads = [p.grad for p in network.branch.parameters()]
        assert sum(g is not None and bool(g.abs().sum() > 0) for g in grads) > len(grads) // 2
        gradients.append(torch.cat([g.flatten() for g in grads if g is not None]))
    assert (gradients[1] - gradients[0]).norm() < 3 * near * gradients[0].norm()
    # the identity is the unquantized backbone's, but for how it is kept
    assert loaded.identity.quantize == kind and plain.identity.quantize is None
    plain.identity.require(loaded.identity, "here")
    assert loaded.identity.plain() == plain.identity.plain() | {"quantize": kind}


@pytest.mark.parametrize("name", ["nf4", "int8", FP8, "gguf"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_planned_bytes_are_those_that_it_takes(wide, name, dtype):
    kind, plain = kind_of(name, wide), load_backbone(str(wide), dtype).transformer
    held = held_bytes(load_backbone(str(wide), dtype, kind).transformer)
    planned = held_bytes(plain) - planned_saving(plain, kind)
    assert held < 0.75 * held_bytes(plain) or dtype == torch.bfloat16
    # a GGUF file keeps its small tensors in 32 bits, and they are converted
    assert planned == (held if name != "gguf" else pytest.approx(held, rel=0.3))


@pytest.mark.parametrize("name", ["nf4", "int8", FP8, "gguf"])
def test_trained_copies_of_frozen_layers_begin_with_their_numbers(wide, name):
    """ControlNet and DiT4SR copy layers: the copies are no quantized ones."""
    plain = load_backbone(str(wide))
    for make in (
        lambda one: ControlNetDiT(one.transformer, ControlNetConfig(2), one.prompt),
        lambda one: DiT4SRNetwork(one.transformer, None, one.prompt),
    ):
        loaded = load_backbone(str(wide), quantize=kind_of(name, wide))
        state = make(load_backbone(str(wide))).branch.state_dict()
        own = make(loaded).branch.state_dict()
        assert own.keys() == state.keys()
        for key, value in own.items():
            assert value.dtype == torch.float32 and value.shape == state[key].shape
            assert (value - state[key]).norm() <= 0.12 * state[key].norm(), key
    layer, expected = loaded.transformer.transformer_blocks[0].attn.to_q, plain.transformer
    assert plain_state(layer).keys() == {"weight", "bias"}
    assert plain_state(expected.pos_embed).keys() == expected.pos_embed.state_dict().keys()


def test_validation_does_not_change_what_training_computes_with(wide):
    """bitsandbytes would lay the weights out anew, with rounded scales, on CPUs with AVX-512."""
    loaded = load_backbone(str(wide), quantize="nf4")
    layer = loaded.transformer.transformer_blocks[0].attn.to_q
    x = torch.randn(4, 64, requires_grad=True)
    before, weight = layer(x), layer.weight.data.clone()
    with torch.no_grad():
        between = layer(x)
    assert torch.equal(layer(x), before) and torch.equal(layer.weight.data, weight)
    assert torch.equal(between, before)


@pytest.mark.parametrize("name, near", [("nf4", 0.6), ("int8", 0.06)])
def test_the_large_text_encoder_is_quantized_likewise(pipeline_folder, cache, name, near):
    """T5 of random weights and width 32; a trained one is smoother."""
    folder = str(pipeline_folder)
    plain = load_backbone(folder).prompt
    small = load_backbone(folder, quantize=name).prompt
    again = load_backbone(folder, quantize=name).prompt
    kept = sorted((cache / "prompts").glob("*.safetensors"))
    assert len(kept) == 2, "one a quantization"
    assert torch.equal(small.embeds, again.embeds)
    assert torch.equal(small.pooled, plain.pooled), "of CLIP alone"
    error = ((small.embeds - plain.embeds).norm() / plain.embeds.norm()).item()
    assert 1e-4 < error < near


@pytest.mark.parametrize(
    "value, message",
    [
        ("int4", "key is 'int4': choose among nf4, int8, fp8, gguf:FILE and none"),
        ("gguf:nowhere.gguf", "key is 'gguf:nowhere.gguf': there is no such file"),
    ],
)
def test_what_there_is_not_is_named_in_one_line(value, message):
    with pytest.raises(ValueError, match=message) as caught:
        checked(value, "key")
    assert "\n" not in str(caught.value)
    assert checked(None) is None and checked("none") is None


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("lit_mimdit.models.quantize.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"is 'fp8', which needs .*pip install torchao$"):
        checked("fp8")


def test_a_gguf_files_configuration_that_the_hub_does_not_give_is_not_the_files_fault(
    wide, close_hub
):
    close_hub()
    with pytest.raises(ValueError, match="^model.backbone: 'me/sd' is no folder here; the hub can"):
        load_backbone("me/sd", quantize=f"gguf:{wide / 'q8.gguf'}")


def test_a_gguf_file_of_another_backbone_is_refused(wide, backbone_folder, tmp_path):
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"no such format")
    for folder, file in ((backbone_folder, wide / "q8.gguf"), (wide, damaged)):
        with pytest.raises(ValueError, match="gguf' ?: the file does not fit") as caught:
            load_backbone(str(folder), quantize=f"gguf:{file}")
        assert "\n" not in str(caught.value)
        # it may come from the option of a command as well
        assert str(caught.value).startswith("backbone_quantize is 'gguf:")
    with pytest.raises(ValueError, match="^backbone_quantize is .*: no readable GGUF file"):
        planned_saving(torch.nn.Linear(1, 1), f"gguf:{damaged}")
