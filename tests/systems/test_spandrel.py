"""Networks of other projects: what spandrel reads restores, and what does not fit is refused."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

spandrel = pytest.importorskip("spandrel", reason="the extra `spandrel` is not installed")

from lit_mimdit import cli  # noqa: E402
from lit_mimdit.evaluation.league import label_of  # noqa: E402
from lit_mimdit.inference.system_class import build_system  # noqa: E402
from lit_mimdit.inference.system_file import load_system, save_system  # noqa: E402
from lit_mimdit.systems.import_weights import import_weights  # noqa: E402
from lit_mimdit.systems.spandrel import Spandrel  # noqa: E402

SHAPES = yaml.safe_load((Path(__file__).parent / "tiny" / "spandrel.yaml").read_text())
SHAPES = SHAPES["init_args"]["shapes"]


def weights(shapes: dict[str, list[int]] = SHAPES) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) / 9 for name, shape in shapes.items()}


def test_a_released_file_restores_as_spandrel_does(tmp_path):
    """By `--checkpoint FILE.pth` and after import-weights, on a size that no tile fits."""
    path, image = tmp_path / "model.pth", torch.rand(1, 3, 21, 30)
    torch.save({"params": weights()}, path)
    expected = spandrel.ModelLoader().load_from_state_dict(weights())(image)
    import_weights("spandrel", [path], output=tmp_path / "ours.safetensors")
    for file in (path, tmp_path / "ours.safetensors"):
        system = build_system(load_system(file), str(file))
        restored, _ = system.restorer()(image, torch.tensor([0]))
        assert torch.equal(restored, expected) and not torch.equal(restored, image)
        assert system.architecture == "DnCNN"


def test_without_spandrel_the_message_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(ValueError, match=r'needs spandrel.* pip install "spandrel>=0.4.1,<0.5"$'):
        Spandrel.from_official(weights())


def test_a_released_file_becomes_a_row_in_one_command(tmp_path, monkeypatch, capsys):
    """It scores what `restore` and `evaluate` score, also of a data set's own layout."""
    monkeypatch.chdir(tmp_path)
    torch.save({"params": weights()}, "model.pth")
    draw = np.random.default_rng(0)
    for kind, number in (("01Blur", "0001"), ("05Noise", "0002")):
        for side in ("GT", "LQ"):
            path = Path("root", kind, side, f"{number}.png")
            path.parent.mkdir(parents=True)
            Image.fromarray(draw.integers(0, 256, (24, 30, 3), dtype=np.uint8)).save(path)
            Path(side).mkdir(exist_ok=True)
            shutil.copy(path, Path(side, f"{number}.png"))
    common = ["--metrics", "psnr", "--device", "cpu"]

    def run(*args: str, output: str) -> dict:
        assert cli.main(["evaluate", *args, *common, "-o", output]) == 0
        return json.loads(Path(output, "summary.json").read_text())

    plain = run("--checkpoint", "model.pth", "--degraded", "LQ", "--reference", "GT", output="one")
    layout = ["--reference", "root", "--layout", "foundir"]
    listed = run("--checkpoint", "model.pth", *layout, output="two")
    restore = ["restore", "LQ", "-o", "apart", "--checkpoint", "model.pth", "--device", "cpu"]
    assert cli.main(restore) == 0
    apart = run("--restored", "apart", "--reference", "GT", output="three")
    assert {group["degradation"] for group in listed["groups"]} >= {"01Blur", "05Noise"}

    def mean(summary: dict) -> float:
        return summary["groups"][-1]["versions"]["restored"]["psnr"]["mean"]

    assert mean(plain) == mean(listed) == mean(apart)
    assert label_of(plain) == label_of(listed) == "model" and apart["name"] == "restored"
    assert plain["restoration"]["checkpoint"]["name"] == "model.pth"
    assert plain["restoration"] == apart["restoration"], "with the same seed, too"
    Path("named").mkdir()
    for path in Path("LQ").iterdir():
        shutil.copy(path, Path("named", f"{path.stem}_lq.png"))
    ending = ["--degraded", "named", "--degraded_suffix", "_lq", "--reference", "GT"]
    assert mean(run("--checkpoint", "model.pth", *ending, output="five")) == mean(plain)
    for wrong in (["--degraded", "LQ"], ["--restored", "apart", "--checkpoint", "model.pth"]):
        assert cli.main(["evaluate", *wrong, "--reference", "GT", "-o", "four"]) == 2
    assert cli.main(["evaluate", "--checkpoint", "model.pth", "-o", "four", *common]) == 2
    capsys.readouterr()
    both = ["--restored", "apart", "--checkpoint", "model.pth", "--degraded", "LQ"]
    assert cli.main(["evaluate", *both, "--reference", "GT", "-o", "four", *common]) == 2
    assert "--restored FOLDER, or by --checkpoint FILE" in capsys.readouterr().err


def test_tiles_are_what_the_network_demands():
    """DRUNet halves the image three times, so it takes multiples of 8; its tile is rounded up."""
    from spandrel.architectures.DRUNet import DRUNet

    network = DRUNet(in_nc=4, out_nc=3, nc=[4, 4, 4, 4], nb=4)
    system = Spandrel.from_official(network.state_dict(), tile=50, overlap=8)
    assert (system.multiple, system.tile) == (8, 56)
    image = torch.rand(1, 3, 61, 70)
    restored, _ = system.restorer()(image, torch.tensor([0]))
    assert restored.shape == image.shape and system.restorer().evaluations(61, 70) == 4


def grey() -> dict[str, torch.Tensor]:
    shapes = SHAPES | {"model.0.weight": [4, 1, 3, 3], "model.14.weight": [1, 4, 3, 3]}
    return weights(shapes | {"model.14.bias": [1]})


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (grey(), "DnCNN turns 1 channels into 1 at scale 1; only networks from 3 to 3"),
        ({"a.weight": torch.zeros(2)}, "knows no architecture"),
        ({"model.0.weight": torch.zeros(4, 3, 3, 3)}, "knows no architecture"),
    ],
)
def test_another_network_is_refused_in_one_line(state, message, tmp_path):
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="other.pth") as error:
        load_system(tmp_path / "other.pth")
    assert message in str(error.value) and "\n" not in str(error.value)


class Code:
    def __reduce__(self):
        return (Path.touch, (Path("touched"),))


def test_code_in_a_file_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(weights() | {"x": Code()}, "bad.pth")
    with pytest.raises(ValueError, match="needs code"):
        load_system("bad.pth")
    assert not Path("touched").exists()


def test_a_loaded_file_keeps_its_class(tmp_path):
    system = Spandrel.from_official(weights())
    save_system(tmp_path / "a.safetensors", system.system_file())
    assert load_system(tmp_path / "a.safetensors").arguments["shapes"] == SHAPES
