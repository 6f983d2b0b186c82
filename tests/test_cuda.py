"""On a CUDA device the same things happen as on a CPU. Without one all of this is skipped."""

import copy
import csv
import math
import os
import sys
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from torch.testing import assert_close

from lit_mimdit import cli
from lit_mimdit.estimate import meta_system, simulate, sizes_of
from lit_mimdit.inference.loading import load_restorer
from lit_mimdit.inference.system_file import load_system
from lit_mimdit.models.branch_config import BranchConfig, InterConfig
from lit_mimdit.models.mim import MiM
from lit_mimdit.training.strategy_memory import static

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
ROOT = Path(__file__).parents[1]
QUICKSTART = yaml.safe_load((ROOT / "experiments" / "quickstart.yaml").read_text(encoding="utf-8"))
CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def full_precision():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("size", [(96, 64), (150, 200)])
def test_a_photograph_comes_out_as_on_a_cpu(size):
    """With the shipped weights, whole and in tiles, overview and fidelity network included."""
    lq = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    found = [
        load_restorer(None, None, device, fidelity="package")(lq, torch.tensor([3]))[0]
        for device in (torch.device("cpu"), CUDA)
    ]
    assert_close(found[0], found[1], rtol=0, atol=2e-3)


def mims(**changes) -> tuple[MiM, MiM]:
    """The same weights on CPU and CUDA device."""
    torch.manual_seed(0)
    mim = MiM(64, BranchConfig(width=32, heads=2, zero_std=0.2, **changes), shifted=True)
    return mim, copy.deepcopy(mim).to(CUDA)


def gradients(mim, x: torch.Tensor) -> list[torch.Tensor]:
    loss = mim(x, (8, 8))[0].square().sum()
    found = torch.autograd.grad(loss, list(mim.parameters()), materialize_grads=True)
    return [loss.detach(), *found]


def waits(run) -> list[str]:
    """When the host waited for the device."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return [str(w.message) for w in seen if "synchroniz" in str(w.message)]


@pytest.mark.parametrize("inter,expected", [("dense", 0), ("top1", 1)])
def test_sparse_experts_compute_as_on_a_cpu_and_the_host_does_not_wait(inter, expected):
    """But where images leave out whole groups: once, to know which."""
    cpu, cuda = mims(inter=InterConfig(inter))
    x = torch.randn(6, 64, 64) + 2 * torch.randn(6, 1, 64)
    for a, b in zip(gradients(cpu, x), gradients(cuda, x.to(CUDA)), strict=True):
        assert_close(b.cpu(), a, rtol=1e-3, atol=1e-3)
    x = x.to(CUDA)
    found = waits(lambda: cuda(x, (8, 8))[0].square().sum().backward())
    assert len(found) == expected, found


def test_compiled_for_the_device_it_computes_the_same():
    _, mim = mims()
    compiled = torch.compile(mim)
    for seed, batch in ((0, 5), (1, 2)):
        torch.manual_seed(seed)
        x = (torch.randn(batch, 64, 64) + 2 * torch.randn(batch, 1, 64)).to(CUDA)
        for a, b in zip(gradients(compiled, x), gradients(mim, x), strict=True):
            assert_close(a, b, rtol=1e-3, atol=1e-3)


def settings(**trainer) -> dict:
    values = copy.deepcopy(QUICKSTART)
    values["trainer"] |= {
        "max_steps": 3,
        "accelerator": "gpu",
        "val_check_interval": 3,
        "limit_val_batches": 1,
    } | trainer
    values["data"]["init_args"] |= {"batch_size": 4, "workers": 2}
    return values


def fit(folder: Path, monkeypatch, values: dict) -> list[float]:
    """Losses of the three steps."""
    monkeypatch.chdir(folder)
    Path("exp.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    assert cli.main(["fit", "-c", "exp.yaml"]) == 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (file,) = sorted(Path("runs").rglob("events.*"))[:1]
    return [event.value for event in EventAccumulator(str(file)).Reload().Scalars("train/loss")]


def test_training_follows_that_on_a_cpu(tmp_path, monkeypatch):
    """In single precision, as far as its rounding lets it; the exported branch restores."""
    losses = {}
    for device in ("cpu", "gpu"):
        (tmp_path / device).mkdir()
        values = settings(accelerator=device, log_every_n_steps=1)
        losses[device] = fit(tmp_path / device, monkeypatch, values)
    assert losses["gpu"] == pytest.approx(losses["cpu"], rel=1e-2) and len(losses["gpu"]) == 3
    last = next(Path("runs").rglob("last.ckpt"))
    assert load_system(last).arguments["branch"]["width"] == 80
    assert cli.main(["export", str(last), "-o", "branch.safetensors"]) == 0
    assert (
        load_restorer("branch.safetensors", None, CUDA)(
            torch.rand(1, 3, 64, 64), torch.tensor([0])
        )[0]
        .isfinite()
        .all()
    )


def test_training_in_mixed_precision_and_a_restoration_from_the_command_line(tmp_path, monkeypatch):
    losses = fit(tmp_path, monkeypatch, settings(precision="bf16-mixed", log_every_n_steps=1))
    assert all(map(math.isfinite, losses))
    photo = next(Path("data/sample").rglob("*.png"))
    assert (
        cli.main(
            ["restore", str(photo), "-o", "restored.png", "--device", "cuda", "--dtype", "bfloat16"]
        )
        == 0
    )
    assert Path("restored.png").is_file()


@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_deepspeed_on_the_device(strategy, processes, tmp_path):
    pytest.importorskip("deepspeed")
    (tmp_path / "exp.yaml").write_text(
        yaml.safe_dump(settings(log_every_n_steps=1)), encoding="utf-8"
    )
    command = [
        sys.executable,
        "-m",
        "lit_mimdit",
        "fit",
        "-c",
        "exp.yaml",
        "--trainer.strategy",
        strategy,
    ]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = processes.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert (
        load_system(next((tmp_path / "runs").rglob("last.ckpt"))).arguments["branch"]["width"] == 80
    )


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_dry_run_foretells_the_memory_of_the_device(checkpointing):
    """Within 20% of the most that PyTorch allocates in the second step.

    At a size that cuBLAS's workspaces are little beside.
    """
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from memory import settings as model
        from memory import step
    finally:
        sys.path.pop(0)
    from lit_mimdit.systems.mimdit import MiMDiT

    batch, crop, arguments = 128, 64, model(int(checkpointing))
    module = MiMDiT(**arguments)
    module.log = module.log_dict = lambda *args, **options: None
    module.configure_model()
    module.to(CUDA).train()
    optimizer = torch.optim.Adam(module.network.branch.parameters(), lr=1e-3)
    step(module, optimizer, batch, crop, "32-true")
    torch.cuda.reset_peak_memory_stats()
    step(module, optimizer, batch, crop, "32-true")
    measured = torch.cuda.max_memory_allocated()
    found = simulate(MiMDiT, arguments, batch=batch, crop=crop, precision="32-true", gpu=True)
    kept = static(
        sizes_of(meta_system(MiMDiT, arguments)),
        stage=0,
        offload=False,
        world=1,
        precision="32-true",
        average=False,
    )
    assert (kept.total + found.activations) / measured == pytest.approx(1, abs=0.2)


def test_evaluation_on_the_device_gives_the_cpus_numbers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        cli.main(
            [
                "sample-data",
                "data",
                "--train_crops",
                "0",
                "--val_crops",
                "0",
                "--test_crops",
                "2",
                "--types",
                "05Noise",
            ]
        )
        == 0
    )
    pairs = next(Path("data/test").iterdir())
    rows = []
    for device in ("cpu", "cuda"):
        options = [
            "--restored",
            f"{pairs}/LQ",
            "--reference",
            f"{pairs}/GT",
            "--metrics",
            "psnr,ssim_y",
            "--device",
            device,
            "-o",
            device,
        ]
        assert cli.main(["evaluate", *options]) == 0
        with next(Path(device).rglob("*.csv")).open(encoding="utf-8") as file:
            rows.append(list(csv.DictReader(file)))
    assert len(rows[0]) == len(rows[1]) > 0
    for a, b in zip(*rows, strict=True):
        for key in ("psnr", "ssim_y"):
            if a.get(key):
                assert float(a[key]) == pytest.approx(float(b[key]), rel=1e-4)
