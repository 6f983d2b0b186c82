"""Pipelines on a quantized backbone, and what is written of one."""

import torch
from kit.gguf_file import write_gguf

from lit_mimdit import cli
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.pipeline import MiMDiTPipeline
from lit_mimdit.inference.system_file import load_system, save_system
from lit_mimdit.models.backbone import load_backbone
from lit_mimdit.models.quantize import quantized_as

SEED = torch.tensor([0])


def test_a_branch_becomes_a_pipeline_on_a_quantized_backbone(branch_file):
    image = torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(1))
    pipeline = MiMDiTPipeline.from_pretrained(branch_file, backbone_quantize="int8")
    assert quantized_as(pipeline.transformer) == "int8"
    assert pipeline.config.backbone["quantize"] == "int8"
    found = pipeline(image, output_type="pt").images[0]
    kept = load_restorer(branch_file, device="cpu", backbone_quantize="int8")
    plain = load_restorer(branch_file, device="cpu")
    assert torch.equal(found, kept(image[None], SEED)[0][0])
    assert not torch.equal(found, plain(image[None], SEED)[0][0])


def test_what_is_written_holds_no_quantized_weights_and_no_folder(
    branch_file, backbone_folder, tmp_path, capsys
):
    """A GGUF file that is elsewhere does not keep a branch from its backbone."""
    transformer = load_backbone(str(backbone_folder)).transformer
    file = load_system(branch_file)
    path = write_gguf(tmp_path / "q8.gguf", transformer)
    file.backbone = load_backbone(str(backbone_folder), quantize=f"gguf:{path}").identity
    save_system(tmp_path / "branch.safetensors", file)
    path.unlink()
    restorer = load_restorer(tmp_path / "branch.safetensors", device="cpu")
    assert quantized_as(restorer.network.backbone) is None
    assert f"backbone_quantize gguf:{path}, and this one has none" in capsys.readouterr().err
    assert file.backbone.shown_quantize() == "gguf:q8.gguf"

    file.backbone = load_backbone(str(backbone_folder), quantize="nf4").identity
    save_system(tmp_path / "branch.safetensors", file)
    args = ["export", str(tmp_path / "branch.safetensors"), "--pipeline", "-o"]
    assert cli.main([*args, str(tmp_path / "folder")]) == 0
    pipeline = MiMDiTPipeline.from_pretrained(tmp_path / "folder")
    assert quantized_as(pipeline.transformer) is None
    assert torch.equal(pipeline.transformer.proj_out.weight, transformer.proj_out.weight)
