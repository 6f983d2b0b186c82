"""AirNet equals the authors' code, and keeps its numbers."""

import own_numbers
import pytest
import shared_golden
import torch
from filling import fill_network
from torchvision.ops import deform_conv2d

from lit_mimdit.systems.airnet import objective
from lit_mimdit.systems.airnet.deformable import DeformableConv, sampled_conv2d
from lit_mimdit.systems.airnet.inference import restore
from lit_mimdit.systems.airnet.network import AirNetNetwork
from lit_mimdit.systems.airnet.official import PUBLISHED, arguments, from_official, names_of


def small(queue: int = 16) -> AirNetNetwork:
    return fill_network(AirNetNetwork(1, 1, 4, (4, 6, 8), 8, queue), 3).eval()


def official_state(network: AirNetNetwork) -> dict[str, torch.Tensor]:
    name_of = names_of(network)
    return {name_of(name): value.clone() for name, value in network.state_dict().items()}


def test_every_number_of_the_authors_golden_file(capsys):
    shared_golden.demand_equal("AirNet_small.safetensors", capsys)


def test_our_own_numbers_have_not_changed():
    own_numbers.demand_equal("airnet")


def test_the_published_size():
    with torch.device("meta"):
        network = AirNetNetwork()
    assert shared_golden.parameters(network) == 8_930_313
    acting = [network.restorer, network.contrast.encoder_q.pre]
    assert sum(map(shared_golden.parameters, acting)) == 6_329_609
    trained = sum(value.numel() for value in network.parameters() if value.requires_grad)
    assert trained == 7_610_377
    assert arguments(official_state(network)) == PUBLISHED
    shared_golden.demand_official_names(
        "AirNet_keys.json", shared_golden.shapes(network, names_of(network)), set()
    )


@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_a_queue_of_any_batch_size_is_loaded(batch_size):
    network = from_official(official_state(small(8 * batch_size)))
    assert network.contrast.queue.shape == (8, 8 * batch_size)


def test_a_batch_size_that_is_not_the_queues_is_refused():
    with pytest.raises(ValueError, match="batch_size=5 contradicts .* say 3"):
        from_official(official_state(small(24)), batch_size=5)


def test_loading_gives_the_same_outputs():
    network = small()
    state = {f"module.{name}": value for name, value in official_state(network).items()}
    again = from_official(state).eval()
    x = torch.rand(1, 3, 7, 9)
    assert torch.equal(again(x), network(x))


def test_a_fresh_deformable_convolution_is_half_a_plain_one():
    layer = DeformableConv(3)
    u, inter = torch.rand(2, 3, 6, 5), torch.rand(2, 3, 6, 5)
    plain = torch.nn.functional.conv2d(u, layer.weight, padding=1) / 2
    torch.testing.assert_close(layer(u, inter), plain)


@pytest.mark.parametrize("shape", [(2, 5, 7, 9), (1, 3, 1, 4)])
def test_a_deformable_convolution_and_its_gradients_are_torchvisions(shape):
    count, channels, height, width = shape
    given = [
        torch.randn(shape).double(),
        # far enough to leave the image on every side
        3 * torch.randn(count, 18, height, width).double(),
        torch.randn(4, channels, 3, 3).double(),
        torch.rand(count, 9, height, width).double(),
    ]
    u, offset, weight, mask = (value.requires_grad_() for value in given)
    own = sampled_conv2d(u, offset, weight, mask)
    theirs = deform_conv2d(u, offset, weight, padding=1, mask=mask)
    torch.testing.assert_close(own, theirs, rtol=0, atol=1e-12)
    direction = torch.randn(own.shape).double()
    for found, wanted in zip(
        torch.autograd.grad(own, given, direction), torch.autograd.grad(theirs, given, direction)
    ):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_offsets_that_are_no_numbers_give_none_and_end_nothing():
    """torchvision reads memory at an address that such an offset makes."""
    layer = DeformableConv(4)
    fill_network(layer, 0)
    u, inter = torch.rand(2, 1, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    clean = layer(u, inter)
    assert clean.isfinite().all()
    for value in (float("nan"), float("inf")):
        broken = u.clone()
        broken[0, 0, 30, 30] = value
        found = layer(broken, inter)
        assert found[..., 30, 30].isnan().all() and found[..., :20, :].equal(clean[..., :20, :])


def test_the_queue_goes_round_and_a_batch_must_divide_it():
    network = small(6).train()
    for start in (2, 4, 0):
        network.forward_pair(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8))
        assert int(network.contrast.queue_ptr) == start
    with pytest.raises(ValueError, match="6 entries, which batches of 4 do not fill evenly"):
        network.forward_pair(torch.rand(4, 3, 8, 8), torch.rand(4, 3, 8, 8))


def test_the_key_encoder_follows_slowly_and_has_no_gradient():
    network = small().train()
    before = [value.clone() for value in network.contrast.encoder_k.parameters()]
    restored, logits, labels = network.forward_pair(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8))
    objective.loss(restored, torch.rand_like(restored), logits, labels).backward()
    queries = network.contrast.encoder_q.parameters()
    for old, new, query in zip(before, network.contrast.encoder_k.parameters(), queries):
        torch.testing.assert_close(new, 0.999 * old + 0.001 * query)
        assert new.grad is None and query.grad is not None


def test_an_image_of_any_size_is_restored():
    image = torch.rand(1, 3, 13, 18)
    restored = restore(small(), image)
    assert restored.shape == image.shape
    assert restored.min() >= 0 and restored.max() <= 1


def test_the_learning_rate():
    rates = [objective.learning_rate(epoch) for epoch in (0, 60, 61, 225, 226, 351, 999)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 5e-5, 2.5e-5, 1e-4 / 2**7])


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="RGB images"):
        small()(torch.rand(1, 1, 8, 8))
    with pytest.raises(ValueError, match="set enc\\[0\\] to n_feats"):
        AirNetNetwork(1, 1, 8, (4, 6, 8), 8, 16)
