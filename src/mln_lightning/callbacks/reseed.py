"""Global random state as a function of the step."""

from __future__ import annotations

import random

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mln_lightning.batch import TrainBatch


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
        words = np.random.SeedSequence([self.seed, trainer.global_step, trainer.global_rank])
        state = int(words.generate_state(1)[0])
        torch.manual_seed(state)
        np.random.seed(state)  # noqa: NPY002 - the global state is what a user's code may draw from
        random.seed(state)
