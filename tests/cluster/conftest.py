"""Runs that are watched, and the one that nothing disturbs."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from kit.watch import Watch, seen


@pytest.fixture(autouse=True)
def real(processes) -> None:
    """All that is here is about real processes, some of them DeepSpeed's."""
    if find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed")


@pytest.fixture(scope="session")
def watched(tiny_settings, write_settings) -> Callable[..., str]:
    """Writes a YAML of `tiny_settings` without pictures and validation, with a checkpoint every 2
    of 6 steps, `resume: auto`, `Watch`.
    """

    def write(folder: Path, **changes) -> str:
        base = {
            "resume": "auto",
            "trainer.limit_val_batches": 0,
            "trainer.enable_progress_bar": False,
        }
        folder.mkdir(parents=True, exist_ok=True)
        path = Path(write_settings(folder / "tiny.yaml", tiny_settings, **base | changes))
        settings = yaml.safe_load(path.read_text())
        kept = {"ModelCheckpoint", "EMA", "FiniteGuard", "GracefulStop", "RunRecord"}
        callbacks = [
            c
            for c in settings["trainer"]["callbacks"]
            if c["class_path"].rsplit(".", 1)[-1] in kept
        ]
        callbacks[0]["init_args"]["every_n_train_steps"] = 2
        settings["trainer"]["callbacks"] = [
            {"class_path": f"kit.watch.{Watch.__name__}"},
            *callbacks,
        ]
        path.write_text(yaml.safe_dump(settings))
        return str(path)

    return write


@pytest.fixture(scope="session")
def undisturbed(starter, watched, tmp_path_factory) -> Path:
    """The folder of a run of one process that nothing happens to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    starter.run(folder, ["fit", "-c", watched(folder)])
    assert set(seen(folder)) == set(range(1, 7))
    return folder
