"""Stop before a NaN reaches the weights."""

from typing import Any

import lightning as L
import torch


class FiniteGuard(L.Callback):
    """Raises ValueError before the optimizer step if the loss or any gradient is not finite; names rank, step, samples and term."""

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        self._ids = list(batch["id"]) if isinstance(batch, dict) and "id" in batch else []

    def _stop(self, trainer: L.Trainer, what: str) -> None:
        where = f"rank {trainer.global_rank}, step {trainer.global_step}, samples {', '.join(self._ids) or 'unknown'}"
        raise ValueError(f"{what} is not finite ({where}); the weights are untouched. Look at those images, or lower optimizer.lr")

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: torch.Tensor) -> None:
        if not torch.isfinite(loss):
            self._stop(trainer, "the loss")

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))) if gradients else torch.zeros(())
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None  # fp16: the scaler skips such a step and lowers its scale
        if not torch.isfinite(norm) and not scaled:
            bad = [name for name, p in pl_module.named_parameters() if p.grad is not None and not torch.isfinite(p.grad).all()]
            self._stop(trainer, f"the gradient of {bad[0] if bad else 'the parameters together'}")
        pl_module.log("train/gradient_norm", norm)
