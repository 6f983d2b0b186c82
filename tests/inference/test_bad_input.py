"""What cannot be restored, or restored with, is refused in one line that names it; the smallest
images are restored.
"""

import copy
import json
import shutil

import pytest
import torch
from diffusers import PixArtTransformer2DModel

from lit_mimdit import cli
from lit_mimdit.inference.restorer import Restorer
from lit_mimdit.models.backbone import load_backbone
from lit_mimdit.models.branch_config import BranchConfig
from lit_mimdit.models.condition import Prompt
from lit_mimdit.models.network import MiMDiTNetwork

PROMPT = Prompt(torch.zeros(1, 4, 12), torch.zeros(1, 10))


@pytest.mark.parametrize("size", [(16, 24), (50, 70)], ids=["whole", "tiled"])
def test_latents_that_are_not_finite_are_named(restorer, size):
    lq, seed = torch.rand(1, 3, *size), torch.tensor([0])
    broken = lq.clone()
    broken[0, 0, 3, 5] = float("nan")
    with pytest.raises(ValueError, match=r"% of the latent of the degraded image is not finite"):
        restorer(broken, seed)
    damaged = copy.deepcopy(restorer.network)
    with torch.no_grad():
        damaged.branch.mims[1].zero_linear.bias[3] = float("inf")
    with pytest.raises(
        ValueError, match=r"100% of the latent of the restored image is not finite.*try float32"
    ):
        Restorer(damaged, restorer.vae, restorer.scheduler, restorer.config)(lq, seed)
    assert restorer(lq, seed)[0].isfinite().all()


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (8, 16)])
@pytest.mark.parametrize("window", [2, 16])
def test_images_smaller_than_a_window_are_restored(restorer, size, window):
    torch.manual_seed(0)
    network = MiMDiTNetwork(
        restorer.network.backbone,
        BranchConfig(width=8, heads=2, window=window, zero_std=0.5),
        restorer.network.prompt,
    )
    small = Restorer(network.eval(), restorer.vae, restorer.scheduler, restorer.config)
    image, _ = small(torch.rand(1, 3, *size), torch.tensor([0]))
    assert image.shape[-2:] == size and image.isfinite().all()


def test_latents_of_another_backbone_do_not_fit(restorer):
    with pytest.raises(
        ValueError,
        match=r"latent has shape \(1, 4, 8, 8\): this backbone takes \(batch, 16, height, width\)",
    ):
        restorer.network.condition(torch.zeros(1, 4, 8, 8))
    condition = restorer.network.condition(torch.zeros(1, 16, 8, 8))
    with pytest.raises(ValueError, match=r"latent has shape \(1, 32, 8, 8\)"):
        restorer.network(torch.zeros(1, 32, 8, 8), torch.ones(1), condition)


def test_a_backbone_of_another_kind_is_refused(backbone_folder, branch_file, tmp_path, capsys):
    other = PixArtTransformer2DModel(
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=12,
    )
    with pytest.raises(
        ValueError, match="the backbone is a PixArtTransformer2DModel: only Stable Diffusion 3"
    ):
        MiMDiTNetwork(other, BranchConfig(width=8, heads=2), PROMPT)
    folder = tmp_path / "other"
    shutil.copytree(backbone_folder, folder)
    shutil.rmtree(folder / "transformer")
    other.save_pretrained(folder / "transformer")
    with pytest.raises(
        ValueError, match="transformer: is a PixArtTransformer2DModel; give Stable Diffusion 3.5"
    ):
        load_backbone(str(folder))
    (tmp_path / "photo.png").write_bytes(b"")
    assert (
        cli.main(
            [
                "restore",
                str(tmp_path / "photo.png"),
                "-o",
                str(tmp_path / "x.png"),
                "--checkpoint",
                str(branch_file),
                "--backbone",
                str(folder),
            ]
        )
        == 2
    )
    lines = capsys.readouterr().err.strip().splitlines()
    assert "PixArtTransformer2DModel" in lines[-1] and lines[-1].startswith("error: ")


def test_a_config_that_does_not_say_what_it_is_still_loads(backbone_folder, tmp_path):
    folder = tmp_path / "plain"
    shutil.copytree(backbone_folder, folder)
    path = folder / "vae" / "config.json"
    values = {
        key: value for key, value in json.loads(path.read_text()).items() if key != "_class_name"
    }
    path.write_text(json.dumps(values))
    assert load_backbone(str(folder)).vae.config.latent_channels == 16
