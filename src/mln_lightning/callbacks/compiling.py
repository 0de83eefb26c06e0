"""Compiled training steps."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

from mln_lightning.batch import TrainBatch
from mln_lightning.meta import COMPILER
from mln_lightning.models.base import NoisyLabelModule


class CompilePieces(Callback):
    """Compiles the pieces of a `NoisyLabelModule` at the first training batch it sees.

    Args:
        backend: see `torch.compile`.
    """

    def __init__(self, backend: str = COMPILER) -> None:
        self.backend = backend
        self._done = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Whatever was compiled before may have been so on another device."""
        self._done = False

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: TrainBatch, batch_idx: int
    ) -> None:
        """Compile, in the precision of the training steps."""
        if not self._done and isinstance(pl_module, NoisyLabelModule):
            with trainer.precision_plugin.train_step_context():
                pl_module.compile_pieces(batch, self.backend)
            self._done = True
