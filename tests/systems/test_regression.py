"""Plain regression.

Trains on the branch's data, restores photographs of any size, sees the degraded image alone.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from lit_mimdit.cli import main
from lit_mimdit.data.photographs import load
from lit_mimdit.models.branch_config import BranchConfig
from lit_mimdit.models.network import Branch
from lit_mimdit.settings import build
from lit_mimdit.systems.regression import Regression

NANO = Path(__file__).parents[2] / "experiments" / "nano"


def test_it_has_the_branchs_parameter_count():
    settings = {
        name: yaml.safe_load((NANO / f"{name}.yaml").read_text(encoding="utf-8"))
        for name in ("branch", "regression")
    }
    branch = Branch(
        build(BranchConfig, settings["branch"]["model"]["init_args"]["branch"]), 192, 6, 6
    )
    options = settings["regression"]["model"]["init_args"]
    regression = Regression(options["widths"], options["blocks"])
    counts = [sum(p.numel() for p in module.parameters()) for module in (regression, branch)]
    assert counts[0] == pytest.approx(counts[1], rel=0.03)
    data = [settings[name]["data"] for name in ("branch", "regression")]
    assert data[0] == data[1]


def test_fit_and_predict(data_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.fromarray(load("coffee")[:101, :143]).save(tmp_path / "photos" / "coffee.png")
    args = [
        "-c",
        str(NANO / "regression.yaml"),
        "--model.init_args.widths",
        "[4,4]",
        "--model.init_args.blocks",
        "1",
    ]
    args += [
        "--data.init_args.photos",
        "photos",
        "--data.init_args.root",
        str(data_root),
        "--data.init_args.crop",
        "32",
    ]
    args += ["--data.init_args.eval_crop", "32", "--data.init_args.batch_size", "2"]
    assert (
        main(["fit", *args, "--trainer.max_steps", "3", "--trainer.val_check_interval", "3"]) == 0
    )
    last = str(tmp_path / "runs" / "nano" / "regression" / "checkpoints" / "last.ckpt")
    assert main(["predict", *args, "--ckpt_path", last, "--data.init_args.predict", "photos"]) == 0
    written = Image.open(tmp_path / "runs" / "nano" / "regression" / "restored" / "coffee.png")
    assert written.size == (143, 101) and np.asarray(written).std() > 10


def test_it_sees_the_scene_as_a_whole():
    module = Regression((4,), 1)
    for parameter in module.parameters():
        torch.nn.init.normal_(
            parameter, std=0.2, generator=torch.Generator().manual_seed(parameter.numel())
        )
    lq = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    darker = lq.clone()
    darker[..., :32, :] *= 0.2  # further away than the convolutions of one level see
    change = (module.restore(darker) - module.restore(lq))[..., -8:, :]
    assert change.abs().max() > 1e-4


def test_its_loss_is_the_mean_error_of_the_images():
    module = Regression((4,), 1, gradient_weight=0.0)
    lq = torch.full((2, 3, 16, 16), 0.5)
    gt = torch.stack(
        [torch.full((3, 16, 16), value) for value in (0.4, 0.1)]
    )  # untrained it gives its input: errors 0.1 and 0.4
    torch.testing.assert_close(module.losses({"lq": lq, "gt": gt}).total, torch.tensor(0.25))
