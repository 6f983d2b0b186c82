"""Two processes train as one does: for every system, with real processes over gloo."""

import traceback
from pathlib import Path

import pytest
import torch
from test_contract import (  # noqa: F401  diffir_stage_1 and places are fixtures
    QUIET,
    TRAINABLE,
    Keep,
    diffir_stage_1,
    places,
    samples,
    small_system,
)
from torch.utils.data import DataLoader

from lit_mimdit.data.pairs import collate
from lit_mimdit.inference.system_file import read_checkpoint
from lit_mimdit.training.trainer import Trainer

# a step of these looks at the other samples of its batch: parts of a batch are another step
BATCHWISE = {"airnet.AirNet", "transweather.TransWeather"}
# in a step of these some of what is trained has no gradient
IN_TURN = {"few_step.FewStep"}
NAMES = [name for name in TRAINABLE if name not in BATCHWISE]


def train(name: str, places: dict[str, str], batch: int, keep: Path, **processes) -> None:  # noqa: F811
    """Two steps of plain SGD, whose result is linear in the gradient; the checkpoint is `keep`."""
    system = small_system(name, places)
    system.configure_optimizers = lambda: torch.optim.SGD(system.trained.parameters(), lr=0.05)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=2,
        max_epochs=-1,
        callbacks=[Keep({2: keep})],
        enable_checkpointing=False,
        **QUIET,
        **processes,
    )
    trainer.fit(system, DataLoader(samples(4), batch_size=batch, collate_fn=collate))


def train_all(folder: Path, places: dict[str, str]) -> dict[str, str]:  # noqa: F811
    """Train every system in two processes, then in one; the tracebacks of those that fail.

    The runs in two processes come first: the gradients of the others forbid forks.
    """
    failed = {}
    for label, batch in (("two", 1), ("one", 2)):
        for name in NAMES:
            strategy = f"ddp_fork{'_find_unused_parameters_true' if name in IN_TURN else ''}"
            processes = {"devices": 2, "strategy": strategy} if label == "two" else {}
            try:
                train(name, places, batch, folder / f"{name}.{label}.ckpt", **processes)
            except Exception:
                failed[name] = traceback.format_exc()
    return failed


@pytest.fixture(scope="module")
def runs(places, in_fresh_process, tmp_path_factory) -> tuple[Path, dict[str, str]]:  # noqa: F811
    folder = tmp_path_factory.mktemp("processes")
    return folder, in_fresh_process(train_all, folder, places)


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_equal_one(runs, name):
    folder, failed = runs
    assert name not in failed, failed[name]
    two, one = (
        read_checkpoint(folder / f"{name}.{label}.ckpt")["state_dict"] for label in ("two", "one")
    )
    assert one.keys() == two.keys()
    torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5)
