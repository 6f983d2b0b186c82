"""What tests of several processes compare, and how torchrun makes one host of them."""

from pathlib import Path

import torch
from kit.checkpoints import tensors
from kit.watch import seen

HERE = Path(__file__).parent
CHECKPOINTS = Path("runs/quickstart/checkpoints")
SINGLE_HOST = [
    "--nproc-per-node",
    "2",
    "--rdzv-backend",
    "c10d",
    "--rdzv-endpoint",
    "localhost:0",
    "--rdzv-id",
    "test",
]  # --standalone


def assert_same_run(folder: Path, expected: Path, atol: float = 2e-6) -> None:
    """The last checkpoints agree, bit by bit if the tolerance is 0.

    Every step had the same samples: none lost, none twice.
    """
    ours, theirs = (
        tensors(folder / CHECKPOINTS / "last.ckpt"),
        tensors(expected / CHECKPOINTS / "last.ckpt"),
    )
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(
            ours[name],
            tensor,
            rtol=0,
            atol=atol,
            msg=lambda text, n=name: f"{folder.name}: {n}: {text}",
        )
    ours, theirs = seen(folder), seen(expected)
    assert {step: sorted(samples) for step, samples in ours.items()} == {
        step: sorted(samples) for step, samples in theirs.items()
    }
