"""A callback for runs in processes of their own.

Writes down what each rank trained on, and halts or kills a run where the outside wants it.
"""

import hashlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch

PATIENCE = 300  # seconds until a halted run gives up


class Watch(L.Callback):
    """One line a step in `given-RANK.txt`: step, epoch, ids, seeds, hash of the tensors. One line a
    finished step in `seen-RANK.txt`: step, and `id=loss` of every sample.

    $HALT=RANK:STEP: when that rank begins that step for the first time, it writes its process id to
    `halted` and waits for a file `go`. $NAN=RANK:STEP: the first image that this rank gets in that
    step is NaN. $KILL_AT=STEP: all are killed in that step. $BALLAST=N: checkpoints are N MiB
    larger, so that writing one takes a while.
    """

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        tensors = [batch[name] for name in ("lq", "gt", "z_lq", "z_gt") if name in batch]
        content = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors))
        words = [
            str(trainer.global_step),
            str(trainer.current_epoch),
            ",".join(batch["id"]),
            ",".join(map(str, batch["seed"].tolist())),
            content.hexdigest()[:12],
        ]
        with open(f"given-{trainer.global_rank}.txt", "a", encoding="utf-8") as file:
            file.write(" ".join(words) + "\n")
        if os.environ.get("KILL_AT") == words[0] and trainer.is_global_zero:
            os.killpg(0, signal.SIGKILL)
        here = f"{trainer.global_rank}:{trainer.global_step}"
        if os.environ.get("NAN") == here:
            batch["gt"] = batch["gt"].float()
            batch["gt"][0] = float("nan")
        halted = Path("halted")
        if os.environ.get("HALT") == here and not halted.exists():
            Path("halted.part").write_text(str(os.getpid()))
            Path("halted.part").rename(halted)
            limit = time.monotonic() + PATIENCE
            while not Path("go").exists() and time.monotonic() < limit:
                time.sleep(0.01)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        losses = outputs["per_sample"].tolist()
        samples = " ".join(f"{id}={loss!r}" for id, loss in zip(batch["id"], losses, strict=True))
        with open(f"seen-{trainer.global_rank}.txt", "a", encoding="utf-8") as file:
            file.write(f"{trainer.global_step} {samples}\n")

    def state_dict(self) -> dict[str, Any]:
        size = int(os.environ.get("BALLAST", 0))
        return {"ballast": torch.zeros(size * 2**18)} if size else {}


def seen(folder: Path) -> dict[int, dict[str, float]]:
    """Loss of every sample by step, over all ranks; what a fault made run again counts once."""
    steps: dict[int, dict[str, float]] = {}
    for path in sorted(folder.glob("seen-*.txt")):
        own: dict[int, dict[str, float]] = {}
        for line in path.read_text().splitlines():
            step, *samples = line.split(" ")
            own[int(step)] = {
                id: float(loss) for id, loss in (sample.rsplit("=", 1) for sample in samples)
            }
        for step, samples in own.items():
            steps[step] = steps.get(step, {}) | samples
    return steps
