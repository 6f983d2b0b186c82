"""What tests of nano's trainings share."""

import lightning as L
import pytest


@pytest.fixture(scope="session")
def two_epochs():
    """A function that trains a module on data for two epochs, and returns its trainer."""

    def train(module, data):
        trainer = L.Trainer(
            max_epochs=2,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1,
        )
        trainer.fit(module, data)
        return trainer

    return train
