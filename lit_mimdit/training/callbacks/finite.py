"""Stop before a NaN reaches the weights."""

from itertools import chain
from typing import Any

import lightning as L
import torch
import torch.distributed as dist

from lit_mimdit.training.strategies import ZeRO

SHOWN = 4  # ranks named in a message


class FiniteGuard(L.Callback):
    """Raises ValueError before the optimizer step if the loss or any gradient is not finite; names
    rank, step, term and samples.

    All processes stop, whichever of them saw it: none is left waiting for the others.
    """

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._ids = list(batch["id"]) if isinstance(batch, dict) and "id" in batch else []

    def _loss_terms(self, pl_module: L.LightningModule) -> tuple[list[str], list[str]]:
        """Names of the terms that are not finite, and ids of the samples with such a loss.

        The module's `terms` tell.
        """
        bad = {
            name: ~torch.isfinite(term) for name, term in getattr(pl_module, "terms", {}).items()
        }
        names = [name for name, where in bad.items() if where.any()]
        rows: set[int] = set()
        for where in bad.values():
            if where.ndim:
                rows |= {*where.nonzero().flatten().tolist()}
        return names, [id for row, id in enumerate(self._ids) if row in rows] or self._ids

    def _stop(self, trainer: L.Trainer, what: str | None, ids: list[str]) -> None:
        """Raise on every process what the first few of them have to say."""
        where = (
            f"rank {trainer.global_rank}, step {trainer.global_step}, samples"
            f" {', '.join(ids) or 'unknown'}"
        )
        said = [what and f"{what} is not finite ({where})"]
        if trainer.world_size > 1:
            mine, said = said[0], [None] * trainer.world_size
            dist.all_gather_object(said, mine)
        said = [one for one in said if one]
        more = [f"and {len(said) - SHOWN} ranks more"] if len(said) > SHOWN else []
        raise ValueError(
            f"{'; '.join(said[:SHOWN] + more)}; the weights are untouched. Look at those images, or"
            " lower optimizer.lr"
        )

    def on_before_backward(
        self, trainer: L.Trainer, pl_module: L.LightningModule, loss: torch.Tensor
    ) -> None:
        finite = bool(torch.isfinite(loss))
        if trainer.strategy.reduce_boolean_decision(finite, all=True):
            return
        names, ids = self._loss_terms(pl_module)
        self._stop(
            trainer,
            None if finite else "the loss" + (f" ({', '.join(names)})" if names else ""),
            ids,
        )

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        zero = trainer.strategy if isinstance(trainer.strategy, ZeRO) else None
        if zero is not None:
            if not zero.engine.is_gradient_accumulation_boundary():
                return
            norm = zero.gradient_norm()
        else:
            trained = chain.from_iterable(group["params"] for group in optimizer.param_groups)
            gradients = [p.grad for p in trained if p.grad is not None]
            norm = (
                torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
                if gradients
                else torch.zeros(())
            )
        if not torch.isfinite(norm) and not self._rescales(trainer):
            named = list(pl_module.named_parameters())
            if zero is not None:
                bad = zero.first_bad_gradient(named)
            else:
                bad = next(
                    (
                        name
                        for name, p in named
                        if p.grad is not None and not torch.isfinite(p.grad).all()
                    ),
                    None,
                )
            self._stop(trainer, f"the gradient of {bad or 'the parameters together'}", self._ids)
        pl_module.log("train/gradient_norm", norm)

    @staticmethod
    def _rescales(trainer: L.Trainer) -> bool:
        """Returns whether the precision is fp16, where such a step is skipped and the loss scaled
        lower.
        """
        plugin = trainer.precision_plugin
        return getattr(plugin, "scaler", None) is not None or str(
            getattr(plugin, "precision", "")
        ).startswith("16")
