"""The epoch metrics of a run, kept in its checkpoints."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint as AfterModuleHooks

from mln_lightning.files import write_atomically


class History(AfterModuleHooks):
    """Collects every epoch's metrics and writes ``metrics.csv`` into the run folder.

    The rows are part of the callback's state: the file is a function of the checkpoint, so a
    resumed run ends with the rows of an uninterrupted one. (Lightning calls callbacks derived from
    its ``Checkpoint`` after the module's own end-of-epoch hook, where the last metrics appear.)
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the metrics of the epoch before: one that is not logged again is not repeated."""
        trainer.callback_metrics.clear()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Append the epoch's row and rewrite the file."""
        row: dict[str, float] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        row |= {
            name: float(value)
            for name, value in sorted(trainer.callback_metrics.items())
            if isinstance(value, torch.Tensor) and value.numel() == 1
        }
        self.rows.append(row)
        if trainer.is_global_zero:
            write_atomically(Path(trainer.default_root_dir) / "metrics.csv", self.as_csv())

    def as_csv(self) -> str:
        """All rows, with the union of their columns in order of first appearance."""
        columns = dict.fromkeys(name for row in self.rows for name in row)
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the rows of a checkpoint."""
        self.rows = list(state_dict["rows"])
