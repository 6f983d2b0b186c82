"""DGUNet and DGUNet+ equal the authors' code, and keep their numbers."""

import own_numbers
import pytest
import shared_golden
import torch
from filling import fill_network

from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.systems.dgunet import DGUNet, objective
from lit_mimdit.systems.dgunet.blocks import project
from lit_mimdit.systems.dgunet.inference import restore
from lit_mimdit.systems.dgunet.network import DGUNetNetwork
from lit_mimdit.systems.dgunet.official import (
    DEAD,
    PUBLISHED,
    arguments,
    from_official,
    official_name,
    ties,
)
from lit_mimdit.systems.import_weights import import_weights

VARIANTS = pytest.mark.parametrize("plus", [False, True])


def small(plus: bool, depth: int = 5) -> DGUNetNetwork:
    return fill_network(DGUNetNetwork(4, 2, 2, 2, depth, plus), 3, gain=0.8)


def official_state(network: DGUNetNetwork) -> dict[str, torch.Tensor]:
    return {
        official_name(name, network.plus): value.clone()
        for name, value in network.state_dict().items()
    }


@pytest.mark.parametrize("name", ["DGUNet_small.safetensors", "DGUNetPlus_small.safetensors"])
def test_every_number_of_the_authors_golden_file(name, capsys):
    shared_golden.demand_equal(name, capsys)


@pytest.mark.parametrize("name", ["dgunet", "dgunet_plus"])
def test_our_own_numbers_have_not_changed(name):
    own_numbers.demand_equal(name)


@pytest.mark.parametrize(
    ("sizes", "plus", "published", "dead"),
    [
        ((40, 20, 16), False, 3_661_912, 2 * 40 * 40 * 9),
        ((80, 48, 32), False, 17_331_512, 2 * 80 * 80 * 9),
        ((40, 20, 16), True, 12_176_107, 0),
        ((96, 48, 32), True, 69_572_915, 0),
        ((80, 40, 32), True, 48_361_987, 0),
    ],
)
def test_the_published_sizes(sizes, plus, published, dead):
    with torch.device("meta"):
        network = DGUNetNetwork(*sizes, plus=plus)
    assert shared_golden.parameters(network) + dead == published


@pytest.mark.parametrize(
    ("name", "sizes", "plus"),
    [("DGUNet", (80, 48, 32), False), ("DGUNetPlus", (40, 20, 16), True)],
)
def test_the_official_names(name, sizes, plus):
    with torch.device("meta"):
        network = DGUNetNetwork(*sizes, plus=plus)
    state = official_state(network)
    read = arguments(state, plus)
    assert (read["n_feat"], read["scale_unetfeats"]) == sizes[:2]
    if not plus:
        assert read == PUBLISHED
    shared_golden.demand_official_names(
        f"{name}_keys.json",
        shared_golden.shapes(network, lambda entry: official_name(entry, plus)),
        set() if plus else set(DEAD),
    )


@VARIANTS
def test_loading_gives_the_same_outputs(plus):
    network = small(plus)
    state = {f"module.{name}": value for name, value in official_state(network).items()}
    again = from_official({"epoch": 3, "state_dict": state, "optimizer": {}}, reduction=2)
    x = torch.rand(1, 3, 16, 8)
    for ours, theirs in zip(again(x), network(x)):
        assert torch.equal(ours, theirs)


@VARIANTS
def test_the_slopes_are_shared_as_in_the_official_network(plus):
    groups = {len(names) for names in ties(small(plus))}
    assert groups == ({14, 7} if plus else {6, 2})


def test_entries_that_are_one_parameter_must_be_equal():
    state = official_state(small(False))
    state["phi_6.body.1.weight"] += 0.1
    with pytest.raises(ValueError, match="phi_6.body.1.weight differs from .*one parameter"):
        from_official(state)


@VARIANTS
def test_the_other_variant_is_named(plus):
    state = official_state(small(not plus))
    expected, other = ("DGUNet\\+", "DGUNet;") if plus else ("DGUNet", "DGUNet\\+")
    with pytest.raises(ValueError, match=f"not a checkpoint of {expected}: it seems to be {other}"):
        from_official(state, plus=plus)


def test_the_depth_of_shared_stages_is_an_override():
    network = small(False, depth=2)
    x = torch.rand(1, 3, 16, 8)
    again = from_official(official_state(network), depth=2)
    assert len(again(x)) == 4 and torch.equal(again(x)[0], network(x)[0])
    assert len(from_official(official_state(network))(x)) == 7


def test_projecting_twice_changes_nothing_and_a_combination_stays():
    torch.manual_seed(0)
    basis = torch.randn(2, 16, 6, 7, dtype=torch.float64)
    b = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    once = project(basis, b)
    torch.testing.assert_close(project(basis, once), once)
    combination = torch.einsum("ck,bkhw->bchw", torch.randn(3, 16, dtype=torch.float64), basis)
    torch.testing.assert_close(project(basis, combination), combination)


def test_flat_and_black_images_give_finite_pictures():
    network = small(False)
    for value in (0.0, 1.0):
        picture = network(torch.full((1, 3, 16, 16), value))[0]
        assert picture.isfinite().all()
    flat = torch.ones(1, 16, 4, 4)  # a Gram matrix of rank 1
    assert project(flat, torch.rand(1, 2, 4, 4)).isfinite().all()
    assert project(0 * flat, torch.rand(1, 2, 4, 4)).abs().max() == 0


def test_the_projection_is_computed_in_float32_under_autocast():
    torch.manual_seed(0)
    basis, b = torch.randn(1, 16, 8, 8), torch.randn(1, 3, 8, 8)
    plain = project(basis, b)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(project(basis, b), plain)
    assert project(basis.bfloat16(), b.bfloat16()).dtype == torch.bfloat16


def test_the_laplacian_of_a_flat_image_is_zero_and_of_a_point_is_not():
    assert objective.laplacian(torch.full((1, 3, 12, 12), 0.5)).abs()[..., 4:8, 4:8].max() < 1e-6
    point = torch.zeros(1, 1, 17, 17)
    point[..., 8, 8] = 1
    # by hand: g(point) at even distances is 4 k_i k_j, of which g keeps sum_i k_i k_i at 0
    kept = torch.tensor([0.05, 0.4, 0.05])
    along = torch.tensor([0.05, 0.4, 0.05])
    expected = 1 - 4 * float((kept * along).sum()) ** 2
    assert objective.laplacian(point)[..., 8, 8].item() == pytest.approx(expected, abs=1e-6)


def test_the_loss_counts_every_stage():
    clean = torch.rand(1, 3, 16, 16)
    recipe = objective.RECIPES["denoising"]
    zero = float(objective.loss([clean] * 3, clean, recipe))
    assert zero == pytest.approx(3e-3, rel=1e-3)  # three times sqrt(1e-6)
    assert objective.loss([clean, clean, clean + 2], clean, recipe) > zero + 0.1


def test_the_learning_rate():
    recipe = objective.RECIPES["deraining"]
    rates = [objective.learning_rate(epoch, recipe) for epoch in range(5)]
    assert rates == pytest.approx([2e-4 / 3, 4e-4 / 3, 2e-4, 2e-4, 2e-4], rel=1e-4)
    assert objective.learning_rate(249, recipe) < 1.1e-6


@pytest.mark.parametrize("ensemble", [False, True])
def test_an_image_of_any_size_is_restored(ensemble):
    network, image = small(False, 1), torch.rand(1, 3, 13, 18)
    restored = restore(network, image, ensemble)
    assert restored.shape == image.shape and restored.min() >= 0 and restored.max() <= 1
    if ensemble:  # the ensemble commutes with flips and turns, a single pass does not
        turned = restore(network, image.flip(-1), True).flip(-1)
        torch.testing.assert_close(turned, restored, rtol=0, atol=1e-5)
        assert (restore(network, image.flip(-1)).flip(-1) - restore(network, image)).abs().max() > (
            1e-3
        )


@pytest.mark.parametrize("ensemble", [False, True])
def test_an_imported_file_keeps_the_ensemble(ensemble, tmp_path):
    network, image = small(False), torch.rand(1, 3, 16, 24)
    torch.save(official_state(network), tmp_path / "model.pth")
    output = tmp_path / "dgunet.safetensors"
    override = '{"ensemble": true}' if ensemble else "{}"
    import_weights("dgunet", [tmp_path / "model.pth"], output=output, override=override)
    found, _ = load_restorer(output, device="cpu")(image, torch.zeros(1, dtype=torch.int64))
    torch.testing.assert_close(found, restore(network, image, ensemble), rtol=0, atol=1e-6)
    assert (found - restore(network, image, not ensemble)).abs().max() > 1e-3
    if ensemble:  # the mean over all eight, by hand
        both = (image, image.transpose(-2, -1))
        axes = ((), (-1,), (-2,), (-2, -1))
        with torch.no_grad():
            four = [[network(x.flip(flips))[0].flip(flips) for flips in axes] for x in both]
        eight = [*four[0], *(x.transpose(-2, -1) for x in four[1])]
        torch.testing.assert_close(found, (sum(eight) / 8).clamp(0, 1), rtol=0, atol=1e-5)


def test_an_ensemble_that_is_neither_true_nor_false_is_refused():
    with pytest.raises(ValueError, match="ensemble is 'false'; give true"):
        DGUNet.from_official(official_state(small(False)), ensemble="false")


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="multiples of 8, not 12 x 16"):
        small(False, 1)(torch.rand(1, 3, 12, 16))
    with pytest.raises(ValueError, match="more than one pixel"):
        small(False, 1)(torch.rand(1, 3, 8, 8))
