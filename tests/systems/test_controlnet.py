"""A ControlNet in MiM's place: diffusers' own numbers, and the same commands."""

import copy
import json

import pytest
import torch
from diffusers import SD3ControlNetModel
from PIL import Image

from lit_mimdit import cli
from lit_mimdit.inference.system_file import load_system
from lit_mimdit.models.condition import Prompt
from lit_mimdit.systems.controlnet import ControlNetConfig, ControlNetDiT

CALLBACKS = "lit_mimdit.training.callbacks.Routing"


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


PROMPT = Prompt(randn(1, 4, 12, seed=1), randn(1, 10, seed=2))
X, T, Z = randn(2, 16, 8, 12, seed=3), torch.tensor([0.3, 0.9]), randn(2, 16, 8, 12, seed=4)


def trained(network: ControlNetDiT) -> ControlNetDiT:
    """With output projections that are no longer 0."""
    torch.manual_seed(5)
    for layer in (*network.branch.net.controlnet_blocks, network.branch.net.pos_embed_input.proj):
        torch.nn.init.normal_(layer.weight, std=0.3)
    return network


@pytest.mark.parametrize("layers, blocks", [(1, 3), (2, 4), (2, 5), (3, 6)])
def test_it_is_diffusers_controlnet_on_diffusers_transformer(make_transformer, layers, blocks):
    def make():
        return make_transformer(num_layers=blocks)

    network = trained(ControlNetDiT(make(), ControlNetConfig(layers), PROMPT))
    control = SD3ControlNetModel.from_transformer(
        make(), num_layers=layers, num_extra_conditioning_channels=0
    )
    missing = control.load_state_dict(network.branch.net.state_dict(), strict=False).missing_keys
    assert all(
        "ff_context" in name or "to_add_out" in name or name == "pos_embed.pos_embed"
        for name in missing
    )
    prompt = PROMPT.expand(2)
    common = {
        "encoder_hidden_states": prompt.embeds,
        "pooled_projections": prompt.pooled,
        "timestep": 1000 * T,
        "return_dict": False,
    }
    with torch.no_grad():
        residuals = control(hidden_states=X, controlnet_cond=Z, **common)[0]
        expected = make()(hidden_states=X, block_controlnet_hidden_states=residuals, **common)[0]
        bare = make()(hidden_states=X, **common)[0]
        found = network(X, T, network.condition(Z))
        torch.testing.assert_close(network(X, T, None), bare)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (found - bare).abs().max() > 0.1


def test_at_the_start_it_is_the_backbone_and_copies_it(make_transformer):
    transformer = make_transformer()
    before = copy.deepcopy(dict(transformer.config))
    network = ControlNetDiT(transformer, ControlNetConfig(2), PROMPT)
    with torch.no_grad():
        assert torch.equal(network(X, T, network.condition(Z)), network(X, T, None))
    assert dict(transformer.config) == before
    for own, theirs in zip(
        network.branch.net.transformer_blocks, transformer.transformer_blocks[:2], strict=True
    ):
        assert (
            torch.equal(own.attn.to_q.weight, theirs.attn.to_q.weight)
            and own.attn.to_q.weight is not theirs.attn.to_q.weight
        )


def test_everything_in_the_branch_trains_and_nothing_else(transformer):
    network = trained(ControlNetDiT(transformer, ControlNetConfig(2), PROMPT))
    network(X, T, network.condition(Z)).square().mean().backward()
    assert [name for name, p in network.branch.named_parameters() if p.grad is None] == []
    assert all(p.grad is None and not p.requires_grad for p in network.backbone.parameters())
    plain = {name: p.grad.clone() for name, p in network.branch.named_parameters()}
    network.zero_grad()
    network.enable_gradient_checkpointing()
    assert network.branch.net.gradient_checkpointing and network.backbone.is_gradient_checkpointing
    network(X, T, network.condition(Z)).square().mean().backward()
    for name, p in network.branch.named_parameters():
        torch.testing.assert_close(p.grad, plain[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "layers, message", [(0, "at least 1"), (3, "this backbone of 3 blocks gives 1 to 2")]
)
def test_impossible_layers(transformer, layers, message):
    with pytest.raises(ValueError, match=f"branch.layers is {layers}: .*{message}"):
        ControlNetDiT(transformer, ControlNetConfig(layers), PROMPT)


@pytest.fixture
def settings(tiny_settings) -> dict:
    """The small run with a ControlNet, as experiments/nano/controlnet.yaml differs from
    branch.yaml.
    """
    settings = copy.deepcopy(tiny_settings)
    model, trainer = settings["model"], settings["trainer"]
    model["class_path"] = "lit_mimdit.systems.controlnet.ControlNet"
    model["init_args"]["branch"] = {"layers": 2}
    del model["init_args"]["balance"]
    trainer["callbacks"] = [
        c for c in trainer["callbacks"] if not c["class_path"].startswith(CALLBACKS)
    ]
    return settings


def test_it_is_trained_tested_exported_and_restores_by_the_same_commands(
    settings, write_settings, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    config = write_settings(tmp_path / "tiny.yaml", settings)
    assert cli.main(["fit", "-c", config]) == 0
    last = "runs/quickstart/checkpoints/last.ckpt"
    assert cli.main(["test", "-c", config, "--ckpt_path", last]) == 0
    assert "restored" in capsys.readouterr().out
    assert cli.main(["fit", "-c", config, "--ckpt_path", last, "--trainer.max_steps", "8"]) == 0
    assert cli.main(["export", last, "-o", "control.safetensors", "--dtype", "float32"]) == 0
    file = load_system("control.safetensors")
    assert file.class_path == "lit_mimdit.systems.controlnet.ControlNet"
    assert (
        file.arguments["branch"] == {"layers": 2}
        and "net.controlnet_blocks.1.weight" in file.tensors
    )
    assert file.tensors["net.controlnet_blocks.1.weight"].abs().max() > 0, "it has learned"
    Image.new("RGB", (40, 24), (90, 60, 30)).save("photo.png")
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 24), (90, 60, 30)).save("photos/photo.png")
    for checkpoint, output in ((last, "a.png"), ("control.safetensors", "b.png")):
        assert cli.main(["restore", "photo.png", "-o", output, "--checkpoint", checkpoint]) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert cli.main(["restore", "photos", "-o", "restored", "--checkpoint", last]) == 0
    assert json.loads((tmp_path / "restored" / "restoration.json").read_text())["images"] == {
        "photo.png": []
    }
    capsys.readouterr()
    assert (
        cli.main(
            [
                "routing",
                "--data",
                settings["data"]["init_args"]["root"],
                "--checkpoint",
                last,
                "-o",
                "routing",
            ]
        )
        == 2
    )
    assert "it holds ControlNet, which has no routers" in capsys.readouterr().err


def test_routing_callbacks_and_balance_losses_are_refused(
    settings, write_settings, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    config = write_settings(tmp_path / "tiny.yaml", settings)
    assert cli.main(["fit", "-c", config, "--model.init_args.balance.z", "1"]) == 2
    assert "balance" in capsys.readouterr().err
    settings["trainer"]["callbacks"].append(
        {"class_path": f"{CALLBACKS}Scalars", "init_args": {"every_n_steps": 2}}
    )
    assert cli.main(["fit", "-c", write_settings(tmp_path / "routing.yaml", settings)]) == 2
    assert (
        "trainer.callbacks holds RoutingScalars, but this network has no routers"
        in capsys.readouterr().err
    )
