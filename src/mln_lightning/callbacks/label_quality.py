"""Label quality, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from mln_lightning import processes
from mln_lightning.batch import Batch, StepOutput, TrainBatch
from mln_lightning.metrics.label_quality import LabelQuality


class LabelQualityCurve(Callback):
    """Logs `LabelQuality` of every epoch's training batches under ``labels/`` and ``memorized/``.

    Args:
        num_classes: C, at least 2.
    """

    def __init__(self, num_classes: int) -> None:
        self.quality = LabelQuality(num_classes)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count where the batches are."""
        self.quality.to(pl_module.device)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: TrainBatch,
        batch_idx: int,
    ) -> None:
        """Add a step's soft labels and predictions."""
        train, output = batch["train"], cast(StepOutput, outputs)
        if "logits" in output:
            if "rows" in output:
                train = Batch(*(column[output["rows"]] for column in train))
            self.quality.update(
                output["logits"], train.labels, train.clean, output.get("soft_labels")
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the epoch and start anew."""
        if self.quality.update_called:
            pl_module.log_dict(self.quality.compute())
        self.quality.reset()

    def state_dict(self) -> dict[str, Any]:
        """The counts of an unfinished epoch, over all processes."""
        return {name: processes.total(n) for name, n in self.quality.state_dict().items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the counts of an unfinished epoch, in one process; they are added up later."""
        if processes.rank() == 0:
            self.quality.load_state_dict(state_dict)
