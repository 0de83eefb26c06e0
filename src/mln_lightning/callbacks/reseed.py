"""Global random state as a function of the step."""

from __future__ import annotations

import random

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mln_lightning.batch import TrainBatch
from mln_lightning.seeding import derive_seed


class Reseed(Callback):
    """Seeds the global generators before every training step from (seed, step, rank).

    Dropout and whatever else a network draws then depend on nothing that happened before, so a
    resumed run draws what an uninterrupted one would.

    Args:
        seed: 0 or more.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: TrainBatch, batch_idx: int
    ) -> None:
        """Seed torch (all devices), NumPy and Python."""
        state = derive_seed(self.seed, trainer.global_step, trainer.global_rank)
        torch.manual_seed(state)
        # The global state is what a user's code may draw from; NumPy's takes 32 bits.
        np.random.seed(state % 2**32)  # noqa: NPY002
        random.seed(state)
