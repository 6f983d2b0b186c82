"""A diffusers pipeline of everything.

Written by export, loaded in three lines without Lightning, restoring as the Restorer does.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lit_mimdit import cli
from lit_mimdit.inference.fidelity_file import save_fidelity
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.pipeline import MiMDiTPipeline
from lit_mimdit.inference.restorer import Restorer
from lit_mimdit.models.branch_config import BranchConfig
from lit_mimdit.models.fidelity import Fidelity
from lit_mimdit.models.network import Branch, MiMDiTNetwork
from lit_mimdit.systems.controlnet import ControlNetConfig, ControlNetDiT


@pytest.fixture(scope="module")
def folder(branch_file, tmp_path_factory):
    path = tmp_path_factory.mktemp("pipeline") / "new"
    assert cli.main(["export", str(branch_file), "-o", str(path), "--pipeline"]) == 0
    return path


@pytest.fixture(scope="module")
def pipeline(folder) -> MiMDiTPipeline:
    pipeline = MiMDiTPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize("size", [(24, 32), (50, 70)])
def test_it_restores_as_the_restorer_does_before_and_after_the_round_trip(
    restorer, pipeline, folder, size
):
    """Whole and tiled.

    Weights that were read from another file lie at other addresses, which moves float32 results in
    the last digit.
    """
    pixels = photo(*size)
    expected = restorer(as_tensor(pixels)[None], torch.tensor([0]))[0][0]
    in_memory = MiMDiTPipeline.of(restorer)
    assert torch.equal(in_memory(pixels, output_type="pt").images[0], expected)
    (restored,) = pipeline(pixels, output_type="pt", return_dict=False)[0]
    torch.testing.assert_close(restored, expected, rtol=0, atol=1e-5)
    again = MiMDiTPipeline.from_pretrained(folder)
    assert torch.equal(again(Image.fromarray(pixels), output_type="pt").images[0], restored)
    picture = pipeline(pixels).images[0]
    assert (
        picture.size == size[::-1]
        and np.abs(np.asarray(picture) / 255.0 - pipeline(pixels, output_type="np").images[0]).max()
        <= 0.5001 / 255
    )


def test_a_generator_draws_the_seed_and_goes_on(restorer, pipeline):
    pixels = photo(24, 32)
    seeds = torch.randint(2**63 - 1, (2,), generator=torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(7)
    first, second = (
        pipeline(pixels, generator=generator, output_type="pt").images[0] for _ in range(2)
    )
    for found, seed in ((first, seeds[:1]), (second, seeds[1:])):
        torch.testing.assert_close(
            found, restorer(as_tensor(pixels)[None], seed)[0][0], rtol=0, atol=1e-5
        )
    assert (first - second).abs().max() > 0.01
    each = [torch.Generator().manual_seed(n) for n in (7, 8)]
    images = pipeline([pixels, photo(40, 20)], generator=each, output_type="pt").images
    assert torch.equal(images[0], first) and images[1].shape == (3, 40, 20)
    with pytest.raises(ValueError, match="generator holds 2 for 1 images"):
        pipeline(pixels, generator=each)


def test_options_of_a_call_are_those_of_sampling(restorer, pipeline):
    tensor = as_tensor(photo(24, 32))
    plain = pipeline(tensor, output_type="pt").images[0]
    more = pipeline(tensor[None], num_inference_steps=3, solver="heun", output_type="pt").images[0]
    assert not torch.equal(more, plain)
    assert (
        pipeline.restorer(steps=3, tile=16).config.steps == 3
        and pipeline.restorer().config == restorer.config
    )
    for options, message in (
        ({"stpes": 3}, "stpes is no option: choose among num_inference_steps, solver"),
        ({"num_inference_steps": 0}, "sampling.steps is 0"),
        ({"output_type": "latent"}, "output_type is 'latent'"),
        ({"guidance": 2.0}, "guidance is 2.0"),
    ):
        with pytest.raises(ValueError, match=message):
            pipeline(tensor, **options)
    for wrong in (
        torch.zeros(1, 8, 8),
        torch.zeros(3, 8, 0),
        [torch.zeros(8, 8)],
        np.zeros((8, 8, 4), np.uint8),
    ):
        with pytest.raises(ValueError, match="image has shape"):
            pipeline(wrong)


def test_the_folder_holds_everything_and_no_code_but_a_name(folder, branch_file):
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    weights = {name for name in files if not name.endswith((".json", ".md", ".py"))}
    assert weights == {
        f"{part}/diffusion_pytorch_model.safetensors" for part in ("branch", "transformer", "vae")
    }
    assert [name for name in files if name.endswith(".py")] == ["pipeline.py"]
    code = (folder / "pipeline.py").read_text().split('"""')[2].split("\n")
    assert list(filter(None, code)) == [
        "from lit_mimdit.inference.pipeline import MiMDiTPipeline",
        '__all__ = ["MiMDiTPipeline"]',
    ]
    index = json.loads((folder / "model_index.json").read_text())
    assert (
        index["branch"] == ["lit_mimdit.inference.pipeline", "BranchModel"]
        and index["sampling"]["steps"] == 2
    )
    card = (folder / "README.md").read_text()
    assert (
        card.startswith("---\nlibrary_name: diffusers")
        and "from_pretrained" in card
        and "2 steps, euler" in card
        and "/tmp" not in card
    )


@pytest.fixture(scope="module")
def corrected(branch_file, tmp_path_factory) -> tuple[Restorer, MiMDiTPipeline, Path]:
    """A restorer with a fidelity network of weight 0.5, the pipeline that was written of the same
    files, and its folder.
    """
    path = tmp_path_factory.mktemp("fidelity")
    one, draw = ((4,), 1, False), torch.Generator().manual_seed(0)
    network = Fidelity((4, 4), 1, cleaner=one, deblurrer=one)
    for unet in (network.correction, *(first.correction for first in network.first)):
        torch.nn.init.normal_(unet.leave.weight, generator=draw)
    save_fidelity(path / "f.safetensors", network)
    options = ["--pipeline", "--fidelity", str(path / "f.safetensors"), "--fidelity_weight", "0.5"]
    assert cli.main(["export", str(branch_file), "-o", str(path / "new"), *options]) == 0
    restorer = load_restorer(
        branch_file,
        None,
        torch.device("cpu"),
        fidelity=str(path / "f.safetensors"),
        fidelity_weight=0.5,
    )
    return restorer, MiMDiTPipeline.from_pretrained(path / "new"), path / "new"


@pytest.mark.parametrize("size", [(24, 32), (50, 70)])
def test_with_a_fidelity_network_it_corrects_as_the_restorer_does(corrected, pipeline, size):
    restorer, written, folder = corrected
    pixels = photo(*size)
    expected = restorer(as_tensor(pixels)[None], torch.tensor([0]))[0][0]
    found = written(pixels, output_type="pt").images[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    without = written(pixels, output_type="pt", fidelity_weight=0.0).images[0]
    torch.testing.assert_close(
        without, pipeline(pixels, output_type="pt").images[0], rtol=0, atol=1e-5
    )
    assert (found - without).abs().max() > 0.01
    assert (folder / "fidelity" / "diffusion_pytorch_model.safetensors").is_file()
    assert "| fidelity network | weight 0.5 |" in (folder / "README.md").read_text()
    with pytest.raises(ValueError, match="fidelity_weight is 2.0: it must lie in"):
        written(pixels, fidelity_weight=2.0)
    with pytest.raises(ValueError, match="this pipeline holds no fidelity network"):
        pipeline(pixels, fidelity_weight=0.5)


def test_the_packages_own_branch_is_exported_with_its_fidelity_network(tmp_path):
    assert cli.main(["export", "package", "-o", str(tmp_path / "new"), "--pipeline"]) == 0
    pixels = photo(32, 48)
    expected = load_restorer(None, None, torch.device("cpu"), fidelity="package")(
        as_tensor(pixels)[None], torch.tensor([0])
    )[0][0]
    found = MiMDiTPipeline.from_pretrained(tmp_path / "new")(pixels, output_type="pt").images[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert (
        cli.main(
            ["export", "package", "-o", str(tmp_path / "bare"), "--pipeline", "--fidelity", "none"]
        )
        == 0
    )
    assert not (tmp_path / "bare" / "fidelity").exists()


SCRIPT = """
import sys
from PIL import Image
from lit_mimdit.inference.fidelity_file import save_fidelity
from lit_mimdit.inference.pipeline import MiMDiTPipeline
pipeline = MiMDiTPipeline.from_pretrained(sys.argv[1])
pipeline(Image.open(sys.argv[2])).images[0].save(sys.argv[3])
unwanted = ("lightning", "pytorch_lightning", "deepspeed")
heavy = sorted(name for name in sys.modules if name.split(".")[0] in unwanted)
assert not heavy, heavy[:3]
"""


def test_three_lines_restore_without_lightning(processes, folder, pipeline, tmp_path):
    pixels = photo(24, 40)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    done = processes.run(
        [
            sys.executable,
            "-c",
            SCRIPT,
            str(folder),
            str(tmp_path / "photo.png"),
            str(tmp_path / "restored.png"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert np.array_equal(
        np.asarray(Image.open(tmp_path / "restored.png")), np.asarray(pipeline(pixels).images[0])
    )


def test_what_cannot_be_a_pipeline_is_refused_in_one_line(
    branch_file, restorer, folder, tmp_path, capsys
):
    for options, message in (
        (["-o", str(folder), "--pipeline"], "a pipeline is written into a new or empty folder"),
        (
            ["-o", str(tmp_path / "x"), "--pipeline", "--dtype", "float16"],
            "a pipeline keeps the branch in float32",
        ),
        (["-o", str(tmp_path / "x.safetensors"), "--backbone", "nano"], "backbone is 'nano'"),
        (["-o", str(tmp_path / "x.safetensors"), "--fidelity", "package"], "fidelity is 'package'"),
        (
            ["-o", str(tmp_path / "x.safetensors"), "--fidelity_weight", "0.5"],
            "fidelity_weight is 0.5",
        ),
    ):
        assert cli.main(["export", str(branch_file), *options]) == 2
        assert message in capsys.readouterr().err
    control = ControlNetDiT(restorer.network.backbone, ControlNetConfig(1), restorer.network.prompt)
    with pytest.raises(ValueError, match="only a MiM branch has a pipeline"):
        MiMDiTPipeline.of(Restorer(control, restorer.vae, restorer.scheduler, restorer.config))


def test_a_branch_of_another_width_or_depth_does_not_fit(transformer, restorer):
    config = BranchConfig(width=8, heads=2)
    for branch in (Branch(config, 24, 2, 3), Branch(config, 16, 2, 4)):
        with pytest.raises(
            ValueError,
            match="the branch was made for . blocks of width .*, this backbone has 3 of width 16",
        ):
            MiMDiTNetwork(transformer, branch, restorer.network.prompt)
