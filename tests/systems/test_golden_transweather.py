"""TransWeather equals the authors' code, and keeps its numbers."""

import json

import own_numbers
import pytest
import shared_golden
import torch
from filling import fill_network
from torchvision.models import vgg16

from lit_mimdit.evaluation.weights import VARIABLE
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.systems import vgg
from lit_mimdit.systems.import_weights import import_weights
from lit_mimdit.systems.transweather import TransWeather, objective
from lit_mimdit.systems.transweather.blocks import Attention, DropPath
from lit_mimdit.systems.transweather.inference import lanczos, published_size, restore
from lit_mimdit.systems.transweather.network import TransWeatherNetwork
from lit_mimdit.systems.transweather.official import (
    PUBLISHED,
    arguments,
    dead,
    from_official,
    official_name,
)

HEADS = {"enc_heads": (1, 2, 2, 2), "dec_heads": 2}


def small(decoder: bool = True) -> TransWeatherNetwork:
    sizes = ((4, 4, 8, 8), (4, 4), *HEADS.values(), 6)
    return fill_network(TransWeatherNetwork(*sizes, decoder=decoder), 3).eval()


def official_state(network: TransWeatherNetwork) -> dict[str, torch.Tensor]:
    decoder = network.decoder is not None
    return {
        official_name(name, decoder): value.clone() for name, value in network.state_dict().items()
    }


def test_every_number_of_the_authors_golden_file(capsys):
    shared_golden.demand_equal("TransWeather_small.safetensors", capsys)


def test_our_own_numbers_have_not_changed():
    own_numbers.demand_equal("transweather")


def test_the_published_size():
    with torch.device("meta"):
        network, base = TransWeatherNetwork(), TransWeatherNetwork(decoder=False)
    unused = (512 * 64 * 9 + 3 * 512, 8 * 3 * 9 + 3)  # two layers that act on nothing
    assert shared_golden.parameters(network) == 37_755_411 == 38_052_078 - sum(unused)
    assert shared_golden.parameters(base) == 21_903_086 - sum(unused)
    assert arguments(official_state(network)) == PUBLISHED
    layers = ("Tenc.mini_patch_embed4.proj", "Tenc.mini_patch_embed4.norm")
    names = {
        f"{layer}.{kind}"
        for layer in (*layers, "convtail.conv_output.conv2d")
        for kind in ("weight", "bias")
    }
    assert all(dead(name) for name in names)
    shared_golden.demand_official_names(
        "TransWeather_keys.json", shared_golden.shapes(network, official_name), names
    )


@pytest.mark.parametrize("decoder", [True, False])
def test_loading_gives_the_same_outputs(decoder):
    network = small(decoder)
    state = {f"module.{name}": value for name, value in official_state(network).items()}
    state["module.Tenc.mini_patch_embed4.norm.bias"] = torch.zeros(3)
    again = from_official(state, **HEADS).eval()
    x = torch.rand(1, 3, 48, 80)
    assert torch.equal(again(x), network(x))


def test_heads_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="3 heads do not divide 8 channels; give"):
        from_official(official_state(small()), enc_heads=(1, 2, 2, 3), dec_heads=2)


def test_queries_are_resized_by_the_nearest_neighbour():
    torch.manual_seed(0)
    layer = Attention(4, 1, queries=6)
    t = torch.randn(2, 4, 4)
    plain = Attention(4, 1)
    plain.load_state_dict({k: v for k, v in layer.state_dict().items() if k != "task_query"})
    # floor(i 6 / 4) = 0, 1, 3, 4, by hand; the keys come of t in both
    queries = layer.q(layer.task_query)[:, [0, 1, 3, 4]].expand(2, -1, -1)
    k, v = layer.kv(t).chunk(2, dim=2)
    expected = layer.proj((queries @ k.transpose(1, 2) / 2).softmax(-1) @ v)
    torch.testing.assert_close(layer(t, (2, 2)), expected)


def test_a_dropped_branch_is_dropped_for_whole_samples_and_scaled():
    torch.manual_seed(0)
    layer = DropPath(0.25)
    kept = layer(torch.ones(4000, 2, 3))
    assert set(kept.unique().tolist()) == {0.0, float(torch.tensor(1.0) / 0.75)}
    assert (kept.amax((1, 2)) == kept.amin((1, 2))).all()
    assert kept.mean() == pytest.approx(1, abs=0.05)
    assert torch.equal(layer.eval()(torch.ones(2, 2)), torch.ones(2, 2))


def test_the_loss_is_its_formula():
    restored, clean = torch.tensor([[0.5, -2.0]]), torch.tensor([[0.0, 0.0]])
    features = [lambda x: [x, 2 * x]][0]
    smooth = (0.5 * 0.25 + 1.5) / 2
    squared = (0.25 + 4) / 2
    expected = smooth + 0.04 * (squared + 4 * squared) / 2
    assert objective.loss(restored, clean, features).item() == pytest.approx(expected)


def test_the_features_are_those_of_torchvision_and_frozen(tmp_path):
    with torch.device("meta"):
        layers = vgg16().features[:16]
    layers = layers.to_empty(device="cpu")
    fill_network(layers, 77)
    state = {f"features.{name}": value for name, value in layers.state_dict().items()}
    torch.save(state, tmp_path / vgg.VGG16.name)
    network = vgg.pretrained(tmp_path)
    x = torch.rand(1, 3, 16, 16)
    found = network.train()(x)
    for index, value in zip((3, 8, 15), found):
        torch.testing.assert_close(value, layers[: index + 1](x.clone()))
    assert not network.training and not any(value.requires_grad for value in network.parameters())

    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / vgg.VGG16.name)
    with pytest.raises(ValueError, match="not the weights of VGG16, as features.0.bias is missing"):
        vgg.pretrained(tmp_path)


def test_missing_weights_are_named_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(ValueError, match="vgg16-397923af.pth is missing") as caught:
        vgg.pretrained()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((48, 64), (48, 64)),
        ((50, 64), (64, 64)),
        ((2000, 3000), (688, 1024)),
        ((1024, 9), (1024, 16)),
    ],
)
def test_the_size_of_the_authors_test(size, expected):
    assert published_size(*size) == expected


def test_resizing_keeps_a_flat_image_and_the_channels():
    image = torch.tensor([0.1, 0.5, 0.9]).view(1, 3, 1, 1).expand(1, 3, 20, 30)
    resized = lanczos(image, 48, 64)
    torch.testing.assert_close(resized, image[..., :1, :1].expand(1, 3, 48, 64))


@pytest.mark.parametrize("size", [(53, 70), (40, 100), (10, 64)])
def test_an_image_of_any_size_is_restored(size):
    image = torch.rand(1, 3, *size)
    restored = restore(small(), image)
    assert restored.shape == image.shape and restored.min() >= 0 and restored.max() <= 1
    assert restore(small(), torch.rand(1, 3, 50, 100), resize=True).shape[-2:] == (64, 112)


@pytest.mark.parametrize("resize", [False, True])
def test_an_imported_file_keeps_the_size_of_the_authors_test(resize, tmp_path):
    network, image = small(), torch.rand(1, 3, 50, 100)
    torch.save(official_state(network), tmp_path / "best")
    output = tmp_path / "transweather.safetensors"
    override = json.dumps({**HEADS, "resize": resize})
    import_weights("transweather", [tmp_path / "best"], output=output, override=override)
    restorer, counted = load_restorer(output, device="cpu"), []
    found, _ = restorer(image, torch.zeros(1, dtype=torch.int64), counted.append)
    assert sum(counted) == restorer.evaluations(50, 100) and found.shape == image.shape
    theirs = lanczos(restore(network, image, resize=True), 50, 100).clamp(0, 1)
    assert torch.equal(found, theirs if resize else restore(network, image))
    assert (theirs - restore(network, image)).abs().max() > 1e-3


def test_a_resize_that_is_neither_true_nor_false_is_refused():
    with pytest.raises(ValueError, match="resize is 1; give true"):
        TransWeather.from_official(official_state(small()), resize=1, **HEADS)


def test_wrong_input_is_refused():
    for size in ((50, 64), (32, 64)):
        with pytest.raises(ValueError, match=f"multiples of 16 and at least 48, not {size[0]} x"):
            small()(torch.rand(1, 3, *size))


def test_the_learning_rate():
    rates = [objective.learning_rate(epoch) for epoch in (0, 99, 100, 199, 200)]
    assert rates == pytest.approx([2e-4, 2e-4, 1e-4, 1e-4, 5e-5])
