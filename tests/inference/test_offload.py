"""Weights that rest in main memory: the picture is the same to the bit, on accelerate's hooks."""

import pytest
import torch

from lit_mimdit import cli
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.offload import offload_to_host, require_offload

HERE, THERE = torch.device("cpu"), torch.device("cuda")
SEED = torch.tensor([3])


@pytest.mark.parametrize("size", [(24, 32), (40, 72)])
@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_the_picture_is_the_same(branch_file, monkeypatch, offload, size):
    """Whole and in tiles. accelerate's hooks run as they do beside a GPU; both places are the
    CPU.
    """
    from accelerate.hooks import AlignDevicesHook, CpuOffload

    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    expected = load_restorer(branch_file, device="cpu")(image, SEED)[0]
    restorer = offload_to_host(load_restorer(branch_file, device="cpu"), offload, HERE)
    parts = restorer.network.backbone, restorer.vae
    hook, woken = (CpuOffload if offload == "model" else AlignDevicesHook), []
    own = hook.pre_forward
    monkeypatch.setattr(
        hook,
        "pre_forward",
        lambda self, module, *a, **k: (woken.append(module), own(self, module, *a, **k))[1],
    )
    assert torch.equal(restorer(image, SEED)[0], expected)
    if offload == "model":  # each sends the other away
        hooks = [part._hf_hook for part in parts]
        assert [h.prev_module_hook.hook for h in hooks] == hooks[::-1]
        assert woken[:2] == [parts[1], parts[0]] and set(woken) == set(parts)
    else:
        for part in parts:
            assert all(p.is_meta for p in part.parameters()), "nothing stays on the device"
        assert parts[0].transformer_blocks[0].attn.to_k in woken
    assert not any(p.is_meta for p in restorer.network.branch.parameters())


def test_where_it_cannot_be_it_says_so_in_one_line(branch_file, tmp_path, capsys):
    args = ["restore", str(tmp_path), "-o", str(tmp_path / "out"), "--device", "cpu"]
    restorer = load_restorer(branch_file, device="cpu")
    with pytest.raises(ValueError, match="needs a GPU to compute on, and the device is the CPU"):
        load_restorer(branch_file, device="cpu", offload="model")
    with pytest.raises(ValueError, match="here: --offload model is given, and this system has no"):
        require_offload("model", THERE, "here", object())
    require_offload("sequential", THERE, "here", restorer)
    from PIL import Image

    Image.new("RGB", (24, 24)).save(tmp_path / "a.png")
    given = ["--checkpoint", str(branch_file), "--offload", "sequential"]
    assert cli.main([*args, *given]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "--offload sequential needs a GPU" in line
