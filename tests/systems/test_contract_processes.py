"""Two processes train as one does: for every system, with real processes over gloo."""

from pathlib import Path

import pytest
import torch
from test_contract import (  # noqa: F401  diffir_stage_1 and make are fixtures
    QUIET,
    TRAINABLE,
    Keep,
    diffir_stage_1,
    make,
    samples,
)
from torch.utils.data import DataLoader

from lit_mimdit.data.pairs import collate
from lit_mimdit.inference.system_file import read_checkpoint
from lit_mimdit.training.trainer import Trainer

# a step of these looks at the other samples of its batch: parts of a batch are another step
BATCHWISE = {"airnet.AirNet", "transweather.TransWeather"}


def trained(system, batch: int, keep: Path, **processes) -> dict[str, torch.Tensor]:
    """Weights after two steps of plain SGD, whose result is linear in the gradient."""
    system.configure_optimizers = lambda: torch.optim.SGD(system.trained.parameters(), lr=0.05)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=2,
        max_epochs=-1,
        callbacks=[Keep(keep)],
        enable_checkpointing=False,
        **QUIET,
        **processes,
    )
    trainer.fit(system, DataLoader(samples(4), batch_size=batch, collate_fn=collate))
    return read_checkpoint(keep)["state_dict"]


@pytest.mark.parametrize("name", [name for name in TRAINABLE if name not in BATCHWISE])
def test_two_processes_equal_one(make, name, tmp_path):  # noqa: F811
    one = trained(make(name), 2, tmp_path / "one.ckpt")
    two = trained(make(name), 1, tmp_path / "two.ckpt", devices=2, strategy="ddp_fork")
    assert one.keys() == two.keys()
    torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5)
