"""ZeRO-2, ZeRO-3 and DDP on two processes follow one process; a checkpoint of any of them resumes under any other."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lit_mimdit import cli
from lit_mimdit.training.checkpoint import load_branch

CHECKPOINTS = Path("runs/quickstart/checkpoints")


def tensors(path: Path) -> dict[str, torch.Tensor]:
    """Parameters, average and moments of a checkpoint."""
    checkpoint = torch.load(path, weights_only=True)
    found = {f"parameter {name}": tensor for name, tensor in checkpoint["state_dict"].items()}
    (average,) = [state["average"] for name, state in checkpoint["callbacks"].items() if name.startswith("EMA")]
    found |= {f"average {name}": tensor for name, tensor in average.items()}
    for index, state in checkpoint["optimizer_states"][0]["state"].items():
        found |= {f"moment {index} {key}": tensor for key, tensor in state.items()}
    return found


@pytest.mark.slow
def test_two_processes_follow_one_and_every_checkpoint_resumes_everywhere(tiny, tmp_path):
    pytest.importorskip("deepspeed")
    config = tiny(**{"trainer.limit_val_batches": 1})
    assert cli.main(["fit", "-c", config]) == 0
    one = tensors(tmp_path / CHECKPOINTS / "last.ckpt")

    def case(name: str, strategy: str, resumed: str | None = None) -> dict:
        args = ["fit", "-c", config, "--trainer.strategy", strategy, "--trainer.devices", "2"]
        if resumed is not None:
            args += ["--ckpt_path", str(tmp_path / resumed / CHECKPOINTS / "step=3.ckpt")]
        return {"folder": str(tmp_path / name), "args": args}

    cases = [
        case("ddp", "ddp"),
        case("zero2", "zero2_cpu"),
        case("zero3", "zero3_offload_cpu"),
        case("zero3_from_ddp", "zero3_cpu", "ddp"),
        case("ddp_from_zero3", "ddp", "zero3"),
    ]
    (tmp_path / "runs.json").write_text(json.dumps(cases))
    script = Path(__file__).with_name("many_runs.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script), "runs.json"]
    subprocess.run(command, check=True, timeout=900, cwd=tmp_path, capture_output=True)
    for run in cases:
        folder = Path(run["folder"])
        assert (folder / "rank0.txt").read_text().endswith("status 0\n"), (folder / "rank0.txt").read_text()[-2000:]
        two = tensors(folder / CHECKPOINTS / "last.ckpt")
        assert two.keys() == one.keys()
        for name, tensor in one.items():
            torch.testing.assert_close(two[name], tensor, rtol=0, atol=2e-6, msg=lambda text, n=name, f=folder.name: f"{f}: {n}: {text}")
    exported = tmp_path / "branch.safetensors"
    assert cli.main(["export", str(tmp_path / "zero3" / CHECKPOINTS / "last.ckpt"), "-o", str(exported), "--dtype", "float32"]) == 0
    assert load_branch(exported).tensors.keys() == load_branch(tmp_path / CHECKPOINTS / "last.ckpt").tensors.keys()
