"""Classifier-free guidance and prompts in sampling."""

import csv
from pathlib import Path

import pytest
import torch
from kit.files import mim_file

from lit_mimdit import cli
from lit_mimdit.inference.guidance import conditioned, guide
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.sampler import SamplingConfig
from lit_mimdit.inference.system_file import load_system, save_system
from lit_mimdit.models.backbone import load_backbone
from lit_mimdit.models.branch_config import BranchConfig, IntraConfig
from lit_mimdit.models.condition import Prompt
from lit_mimdit.models.network import MiMDiTNetwork

CPU = torch.device("cpu")


@pytest.fixture
def prompted(pipeline_folder, cache, tmp_path) -> Path:
    """A branch on the whole small pipeline, trained with a prompt."""
    loaded = load_backbone(str(pipeline_folder))
    config = BranchConfig(
        width=16, heads=2, window=2, intra=IntraConfig(experts=2, top_k=1), zero_std=0.5
    )
    torch.manual_seed(3)
    branch = MiMDiTNetwork(loaded.transformer, config, loaded.prompt).branch
    sampling = SamplingConfig(steps=2, tile=32, overlap=8, tile_batch=2)
    save_system(
        tmp_path / "b.safetensors",
        mim_file(branch, sampling, loaded.identity, "a sharp photograph"),
    )
    return tmp_path / "b.safetensors"


def images(count: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_the_formula():
    told, empty = torch.tensor([3.0]), torch.tensor([1.0])
    assert [guide(told, empty, g).item() for g in (0.0, 1.0, 2.5)] == [1.0, 3.0, 6.0]


@pytest.mark.parametrize("base", ["zero", "position"])
def test_guided_velocity_is_made_of_two_networks(transformer, base):
    """Of a network told the prompt throughout and one told nothing, `position` tokens included."""
    draw = torch.Generator().manual_seed(5)
    empty, prompt = (
        Prompt(torch.randn(1, 4, 12, generator=draw), torch.randn(1, 10, generator=draw))
        for _ in range(2)
    )
    config = BranchConfig(
        width=16, heads=2, window=2, intra=IntraConfig(experts=2, top_k=1), zero_std=0.5, base=base
    )
    network = MiMDiTNetwork(transformer, config, empty).eval()
    z, x, t = *torch.randn(2, 2, 16, 8, 8, generator=draw), torch.full((2,), 0.7)
    with torch.no_grad():
        velocity = conditioned(network, z, prompt, 3.0).velocity
        told, nothing = (
            network(x, t, network.condition(z, prompt), prompt),
            network(x, t, network.condition(z, empty), empty),
        )
        torch.testing.assert_close(velocity(x, 0.7), nothing + 3.0 * (told - nothing))
        torch.testing.assert_close(conditioned(network, z, prompt, 1.0)[0](x, 0.7), told)
    assert not torch.allclose(told, nothing, atol=1e-3)


@pytest.mark.parametrize("size", [(32, 32), (40, 48)])
def test_prompt_and_guidance_change_the_picture(prompted, size):
    lq, seeds = images(1, *size), torch.tensor([1])
    own = load_restorer(prompted, None, CPU)
    assert own.prompts.config.text == "a sharp photograph", "that of training"
    results = [own(lq, seeds)[0]]
    for options in ({"prompt": ""}, {"prompt": "haze"}, {"guidance": 4.0}):
        results.append(load_restorer(prompted, None, CPU, **options)(lq, seeds)[0])
    assert all(not torch.equal(a, b) for i, a in enumerate(results) for b in results[:i])
    torch.testing.assert_close(
        load_restorer(prompted, None, CPU, guidance=0.0)(lq, seeds)[0], results[1]
    )


def test_each_image_of_a_batch_has_its_caption(prompted, tmp_path):
    (tmp_path / "c.csv").write_text("id,caption\na,rain\nb,haze over hills\n")
    restorer = load_restorer(prompted, None, CPU, captions=tmp_path / "c.csv", guidance=3.0)
    for size in ((32, 32), (40, 48)):
        lq, seeds = images(3, *size), torch.arange(3)
        together = restorer(lq, seeds, ids=["a", "b", "other"])[0]
        for row, id in enumerate(["a", "b", "other"]):
            alone = restorer(lq[row : row + 1], seeds[row : row + 1], ids=[id])[0]
            torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-4)
        assert not torch.allclose(
            together[:1], restorer(lq[:1], seeds[:1], ids=["b"])[0], atol=1e-3
        )


def test_guidance_without_a_prompt_is_refused(branch_file, prompted):
    with pytest.raises(ValueError, match="sampling.guidance is 2.0, but the prompt is empty"):
        load_restorer(branch_file, None, CPU, guidance=2.0)
    with pytest.raises(ValueError, match="sampling.guidance is -1.0: it must be 0 or more"):
        load_restorer(prompted, None, CPU, guidance=-1.0)


def test_restore_takes_prompt_captions_guidance_and_precision(prompted, tmp_path, capsys):
    from PIL import Image

    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("in/one.png", "in/deep/two.jpg"):
        Image.new("RGB", (24, 24), (90, 120, 60)).save(tmp_path / name)
    with open(tmp_path / "c.csv", "w", newline="") as file:
        csv.writer(file).writerows([["id", "caption"], ["one", "rain"], ["deep/two", "haze"]])
    command = [
        "restore",
        str(tmp_path / "in"),
        "--checkpoint",
        str(prompted),
        "--guidance",
        "2",
        "--device",
        "cpu",
    ]
    options = {
        "fixed": ["--prompt", "rain"],
        "captions": ["--captions", str(tmp_path / "c.csv")],
        "low": ["--dtype", "bfloat16"],
    }
    made = {}
    for name, extra in options.items():
        assert cli.main([*command, "-o", str(tmp_path / name), *extra]) == 0
        made[name] = [(tmp_path / name / file).read_bytes() for file in ("one.png", "deep/two.png")]
    assert made["fixed"][0] == made["captions"][0] and made["fixed"][1] != made["captions"][1]
    record = (tmp_path / "fixed" / "restoration.json").read_text()
    assert '"text": "rain"' in record and '"guidance": 2.0' in record
    assert '"dtype": "bfloat16"' in (tmp_path / "low" / "restoration.json").read_text()
    assert (
        cli.main(
            [
                "restore",
                str(tmp_path / "in" / "one.png"),
                "-o",
                str(tmp_path / "x.png"),
                "--prompt",
                "a cat",
            ]
        )
        == 2
    )
    assert "backbone 'nano' has no text encoders for the prompt 'a cat'" in capsys.readouterr().err


def test_training_listens_to_the_prompt(pipeline_folder, cache, tiny, capsys):
    """A run with a prompt and dropout; its checkpoint knows the prompt; the loss is another than
    without.
    """
    small = {
        "trainer.max_steps": 2,
        "trainer.limit_val_batches": 0,
        "model.init_args.backbone": str(pipeline_folder),
    }
    losses = []
    for prompt in ({"text": "haze", "dropout": 0.5}, {"text": "haze"}, {"text": ""}):
        assert cli.main(["fit", "-c", tiny(**small, **{"model.init_args.prompt": prompt})]) == 0
        last = max(Path("runs").rglob("last*.ckpt"), key=lambda path: path.stat().st_mtime)
        assert load_system(last).prompt == prompt["text"]
        losses.append(torch.load(last, weights_only=True)["state_dict"])
    first = next(name for name in losses[0] if name.endswith("zero_linear.weight"))
    assert not torch.equal(losses[0][first], losses[1][first]) and not torch.equal(
        losses[1][first], losses[2][first]
    )
