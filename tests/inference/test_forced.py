"""Routers overruled while a photograph is restored: in Python, by a pipeline, by a command."""

import json

import pytest
import torch
from torch.utils._pytree import tree_leaves

from lit_mimdit.cli import main
from lit_mimdit.data.image_io import write_photo
from lit_mimdit.inference.pipeline import MiMDiTPipeline
from lit_mimdit.inference.run_record import read_record

SEED = torch.tensor([5])


def image(side: int) -> torch.Tensor:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(side))


def test_weights_as_the_router_gave_them_change_no_bit(restorer):
    lq = image(30)
    expected, (decisions,) = restorer(lq, SEED)
    inter = {
        name: [mim.inter.weights[0, index].item() for mim in decisions]
        for index, name in enumerate(restorer.network.branch.config.groups)
    }
    text = ",".join(
        f"{name}@{block}={weight!r}"
        for name, each in inter.items()
        for block, weight in enumerate(each)
    )
    for given in (inter, text):
        found, (again,) = restorer.forced(given)(lq, SEED)
        assert torch.equal(found, expected)
        assert all(map(torch.equal, tree_leaves(again), tree_leaves(decisions)))
    assert torch.equal(restorer(lq, SEED)[0], expected)  # the first restorer is as it was


@pytest.mark.parametrize("side", [30, 50], ids=["whole", "tiles"])
def test_what_is_forced_is_what_is_told(restorer, side):
    forced = restorer.forced("spatial=0,se=1.5", {"swin": [1]})
    lq = image(side)
    restored, (decisions,) = forced(lq, SEED)
    assert not torch.equal(restored, restorer(lq, SEED)[0])
    assert all(map(torch.equal, tree_leaves(forced.route(lq)[0]), tree_leaves(decisions)))
    for mim in decisions:
        assert (mim.inter.weights[:, 0] == 0).all() and (mim.inter.weights[:, 3] == 1.5).all()
        assert (mim.intra[2].selected == 1).all()
    record = forced.record()
    assert record["what_if"]["inter"] == {"spatial": 0.0, "se": 1.5}
    assert record["config_hash"] != restorer.record()["config_hash"]
    assert "what_if" not in restorer.record()
    assert forced.corrected_by(None).record() == record


def test_a_pipeline_overrules_routers_too(restorer):
    pipeline = MiMDiTPipeline.of(restorer)
    pipeline.set_progress_bar_config(disable=True)
    lq = image(24)
    given = {"inter": {"channel": 0}, "intra": {"se": [0]}}
    found = pipeline(lq[0], output_type="pt", **given).images
    assert torch.equal(found, restorer.forced(**given)(lq, torch.tensor([0]))[0])


def test_the_command_takes_weights_and_records_them(branch_file, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    write_photo(tmp_path / "in" / "a.png", image(16)[0])
    output = tmp_path / "out"
    call = ["restore", str(tmp_path / "in"), "-o", str(output), "--checkpoint", str(branch_file)]
    call += ["--device", "cpu"]
    assert main([*call, "--inter", "spatial=0,others=1", "--intra", "swin=1"]) == 0
    record = read_record(output)
    ones = {"channel": 1.0, "swin": 1.0, "se": 1.0}
    assert record["what_if"] == {"inter": {"spatial": 0.0} | ones, "intra": {"swin": {"1": None}}}
    assert record["images"]["a.png"] == [[0.0, 1.0, 1.0, 1.0]] * 3
    assert json.dumps(record)
    assert main([*call, "--overwrite", "--inter", "wavelet=1"]) == 2
    assert "there is no group 'wavelet'" in capsys.readouterr().err


def test_systems_without_routers_say_so(tmp_path, capsys):
    from lit_mimdit.inference.system_file import save_system
    from lit_mimdit.systems.regression import Regression

    torch.manual_seed(0)
    system = Regression(widths=[4, 8], blocks=1)
    system.configure_model()
    save_system(tmp_path / "unet.safetensors", system.system_file())
    write_photo(tmp_path / "a.png", image(16)[0])
    call = ["restore", str(tmp_path / "a.png"), "-o", str(tmp_path / "b.png")]
    call += ["--checkpoint", str(tmp_path / "unet.safetensors"), "--inter", "spatial=0"]
    assert main(call) == 2
    assert "this system has no routers" in capsys.readouterr().err
    assert not (tmp_path / "b.png").exists()
