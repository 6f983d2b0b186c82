"""Finding the TensorBoard writer of a run."""

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter


def writer_of(trainer: L.Trainer) -> SummaryWriter | None:
    """Returns the run's TensorBoard writer on the first process, None on others or if the run has
    no TensorBoard logger.
    """
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
            return logger.experiment
    return None
