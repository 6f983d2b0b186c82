"""AutoDIR's published file becomes a file that restores by its own sampler."""

import json

import clip_systems as own
import pytest
import torch
from test_golden_autodir import HEADS, published

from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.systems.autodir import AutoDIR, sampler
from lit_mimdit.systems.import_weights import import_weights


@torch.no_grad()
def test_the_authors_file_restores_by_their_sampler(tmp_path):
    network = own.autodir()
    torch.save({"state_dict": published(network), "epoch": 1}, tmp_path / "autodir.ckpt")
    output = tmp_path / "autodir.safetensors"
    override = json.dumps(HEADS | {"steps": 2})
    import_weights("autodir", [tmp_path / "autodir.ckpt"], output=output, override=override)
    lq = torch.rand(1, 3, 16, 20, generator=torch.Generator().manual_seed(2))
    restorer = load_restorer(output, device="cpu")
    found, _ = restorer(lq, torch.tensor([7]), ids=["a"])
    *_, last = sampler.restore(
        network, 2 * lq - 1, lambda number: sampler.seeded(7, (1, 4, 8, 10)), 2
    )
    expected = ((last.result + 1) / 2).clamp(0, 1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert not torch.equal(restorer(lq, torch.tensor([8]))[0], found), "the seed decides"


def test_no_file_or_several_are_refused():
    with pytest.raises(ValueError, match="published as one file, and 2 are given"):
        AutoDIR.from_official({}, {})
