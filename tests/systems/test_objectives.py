"""Which terms make a training step of systems whose golden files hold the parts only."""

import copy

import pytest
import torch
from test_contract import RECIPES, SYSTEMS, fit, samples

from lit_mimdit.data.pairs import collate
from lit_mimdit.settings import build
from lit_mimdit.systems.base import RestorationSystem
from lit_mimdit.systems.vgg import VGGFeatures

BATCH = collate(samples(2))


def small(name: str, **changes) -> RestorationSystem:
    torch.manual_seed(0)
    return build(SYSTEMS[name], copy.deepcopy(RECIPES[name]) | changes)


def test_airnet_adds_a_tenth_of_the_contrast_in_its_second_stage():
    losses = small("airnet.AirNet", encoder_epochs=0).losses(BATCH)
    expected = losses.terms["l1"] + 0.1 * losses.terms["contrast"]
    assert losses.terms["l1"].min() > 0 and losses.terms["contrast"].min() > 0
    torch.testing.assert_close(losses.per_sample, expected)
    torch.testing.assert_close(losses.total, expected.mean())


def test_airnet_learns_the_contrast_alone_at_first():
    system = small("airnet.AirNet", encoder_epochs=1)
    losses = system.losses(BATCH)
    assert losses.terms.keys() == {"contrast"}
    torch.testing.assert_close(losses.total, losses.terms["contrast"].mean())
    losses.total.backward()
    assert all(p.grad is None for p in system.network.restorer.parameters())


def test_airnets_key_encoder_follows_and_its_queue_takes_the_keys():
    """One step: key <- 0.999 key + 0.001 query, and the first two of six columns are its keys."""
    system = small("airnet.AirNet")
    contrast = system.network.contrast
    before, queue = copy.deepcopy(contrast.encoder_k), contrast.queue.clone()
    fit(system, 1)
    encoders = before, contrast.encoder_k, contrast.encoder_q
    for old, key, query in zip(*(one.parameters() for one in encoders), strict=True):
        torch.testing.assert_close(key, 0.999 * old + 0.001 * query, rtol=0, atol=1e-7)
    first, moved = (next(one.parameters()) for one in encoders[:2])
    assert not torch.equal(first, moved)
    torch.testing.assert_close(contrast.queue[:, 2:], queue[:, 2:])
    taken = contrast.queue[:, :2]
    torch.testing.assert_close(taken.norm(dim=0), torch.ones(2))
    assert not torch.equal(taken, queue[:, :2]) and not torch.equal(taken[:, 0], taken[:, 1])
    assert int(contrast.queue_ptr) == 2


def test_transweather_adds_the_perceptual_term_by_its_weight():
    system = small("transweather.TransWeather", perceptual=0.04)
    system.features = VGGFeatures()
    losses = system.losses(BATCH)
    expected = losses.terms["smooth_l1"] + 0.04 * losses.terms["perceptual"]
    assert losses.terms["perceptual"].min() > 0
    torch.testing.assert_close(losses.per_sample, expected)
    torch.testing.assert_close(losses.total, expected.mean())


def test_transweather_drops_the_branches_that_the_seed_draws():
    """Neither the global generator decides, nor is it moved."""
    system = small("transweather.TransWeather").train()
    totals = []
    for start in (5, 6):
        torch.manual_seed(start)
        totals.append(system.losses(BATCH).total.item())
        torch.testing.assert_close(torch.rand(1), torch.rand(1, generator=_at(start)))
    assert totals[0] == totals[1]
    others = {system.losses(BATCH | {"seed": BATCH["seed"] + n}).total.item() for n in range(1, 30)}
    assert len(others | {totals[0]}) > 1


def _at(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", ["airnet.AirNet", "transweather.TransWeather"])
def test_the_terms_are_one_value_for_each_sample(name):
    losses = small(name).losses(BATCH)
    assert losses.per_sample.shape == (2,)
    assert all(term.shape == (2,) for term in losses.terms.values())
