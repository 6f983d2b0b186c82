"""Training beside a backbone in fewer bits: fit, resume, export and restore."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from diffusers import SD3Transformer2DModel
from kit.checkpoints import read, tensors
from kit.gguf_file import write_gguf
from PIL import Image
from safetensors import safe_open

from lit_mimdit import cli
from lit_mimdit.models.backbone import load_backbone
from lit_mimdit.models.quantize import quantized_as

CHECKPOINTS = Path("runs/quickstart/checkpoints")
needs_torchao = pytest.mark.skipif(
    find_spec("torchao") is None, reason="fp8 needs torchao: pip install torchao"
)


@pytest.fixture
def wide(make_backbone, tmp_path) -> Path:
    folder = make_backbone(
        tmp_path / "wide", attention_head_dim=32, caption_projection_dim=64, num_layers=2
    )
    write_gguf(folder / "q8.gguf", SD3Transformer2DModel.from_pretrained(folder / "transformer"))
    return folder


def test_fit_resume_export_and_restore(tiny, wide, capsys):
    fit_resume_export_and_restore(tiny, wide, capsys, "int8")


@pytest.mark.usefixtures("takes_minutes")  # one of four is enough for every day
@pytest.mark.parametrize("kind", ["nf4", pytest.param("fp8", marks=needs_torchao), "gguf"])
def test_fit_resume_export_and_restore_in_other_bits(tiny, wide, capsys, kind):
    fit_resume_export_and_restore(tiny, wide, capsys, kind)


def fit_resume_export_and_restore(tiny, wide: Path, capsys, kind: str) -> None:
    """Validation lies between the steps, and resuming is the run that was not interrupted."""
    value = f"gguf:{wide / 'q8.gguf'}" if kind == "gguf" else kind
    changes = {"model.init_args.backbone": str(wide), "model.init_args.backbone_quantize": value}
    changes |= {"trainer.max_steps": 4, "trainer.limit_val_batches": 1}
    config = tiny(**changes)
    assert cli.main(["fit", "-c", config]) == 0
    (CHECKPOINTS / "last.ckpt").rename("whole.ckpt")
    assert cli.main(["fit", "-c", config, "--ckpt_path", str(CHECKPOINTS / "step=3.ckpt")]) == 0
    ours, theirs = tensors(CHECKPOINTS / "last.ckpt"), tensors("whole.ckpt")
    assert all((ours[name] == tensor).all() for name, tensor in theirs.items())
    before = tensors(CHECKPOINTS / "step=3.ckpt")
    assert any((before[name] != tensor).any() for name, tensor in theirs.items())
    assert read("whole.ckpt")["lit_mimdit"]["backbone"]["quantize"] == value
    assert not any("backbone" in name for name in theirs), "nothing frozen"

    assert cli.main(["export", "whole.ckpt", "-o", "branch.safetensors"]) == 0
    with safe_open("branch.safetensors", "pt") as file:
        described = json.loads(file.metadata()["lit_mimdit"])
    assert described["backbone"]["quantize"] == value
    assert "backbone_quantize" not in described["arguments"]
    capsys.readouterr()
    Image.new("RGB", (24, 24), (90, 120, 30)).save("a.png")
    pictures = []
    for number, options in enumerate(([], ["--backbone_quantize", "none"])):
        args = ["restore", "a.png", "-o", f"out{number}", "--checkpoint", "branch.safetensors"]
        assert cli.main([*args, "--device", "cpu", *options]) == 0
        said = capsys.readouterr().err
        note = f"trained on a backbone with backbone_quantize {value}, and this one has none"
        assert (note in said) == bool(options)
        record = json.loads(Path(f"out{number}/restoration.json").read_text())
        assert record["backbone"].get("quantize") == (None if options else value)
        pictures.append(Path(f"out{number}/a.png").read_bytes())
    assert pictures[0] != pictures[1]


def test_another_system_on_a_quantized_backbone(wide):
    """A ControlNet: its copies of quantized layers are trained as ordinary ones."""
    from lit_mimdit.inference.sampler import SamplingConfig
    from lit_mimdit.systems.controlnet import ControlNet, ControlNetConfig

    sampling = SamplingConfig(steps=1, tile=32, overlap=8, overview=0)
    system = ControlNet(str(wide), ControlNetConfig(1), sampling, backbone_quantize="int8")
    system.configure_model()
    assert quantized_as(system.network.backbone) == "int8"
    assert system.system_file().backbone.quantize == "int8"
    assert all(p.dtype.is_floating_point for p in system.trained.parameters())


def test_a_key_that_is_wrong_is_named(tiny, capsys):
    config = tiny(**{"model.init_args.backbone_quantize": "int3"})
    assert cli.main(["fit", "-c", config]) == 2
    assert "model.backbone_quantize is 'int3': choose among nf4, int8" in capsys.readouterr().err


def test_frozen_weights_that_cannot_be_cut_are_refused_under_zero3(wide):
    from lit_mimdit.inference.sampler import SamplingConfig
    from lit_mimdit.systems.controlnet import ControlNet, ControlNetConfig
    from lit_mimdit.training.strategies import refuse_quantized

    systems = [
        ControlNet(str(wide), ControlNetConfig(1), SamplingConfig(), backbone_quantize=kind)
        for kind in ("nf4", None)
    ]
    with pytest.raises(ValueError, match="is nf4 under ZeRO stage 3, which cuts .* zero2 or ddp"):
        refuse_quantized(3, systems[0])
    refuse_quantized(2, systems[0])
    refuse_quantized(3, systems[1])


def test_a_branch_learned_on_a_gguf_file_fits_its_backbone(wide):
    """The file keeps the output projection, so the two are told from other backbones."""
    plain = load_backbone(str(wide)).identity
    kept = load_backbone(str(wide), quantize=f"gguf:{wide / 'q8.gguf'}").identity
    assert plain.weights == kept.weights and plain.config == kept.config
