"""What a run prints while it trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint as AfterModuleHooks
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from torch import Tensor

from mln_lightning.batch import StepOutput, TrainBatch
from mln_lightning.models.base import NoisyLabelModule

HEADER = (
    f"{'epoch':>9}  {'':<8} {'loss':>9} {'meta loss':>10} {'validation':>11} {'labels right':>13}"
)


class EpochProgress(AfterModuleHooks):
    """A bar per epoch on a terminal, and a line per finished epoch everywhere.

    Without a terminal there are only the lines, free of control codes. (Derived from Lightning's
    ``Checkpoint`` because those callbacks run after the module's own end-of-epoch hook.)
    """

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the column names."""
        if trainer.is_global_zero:
            self.console.print(HEADER, style="bold", no_wrap=True)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show an empty bar."""
        if trainer.is_global_zero and self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[loss]}"),
                TimeElapsedColumn(),
                console=self.console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(
                f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}",
                total=int(trainer.num_training_batches),
                loss="",
            )

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: TrainBatch,
        batch_idx: int,
    ) -> None:
        """Advance the bar; reading the loss waits for the device, so only every tenth step does."""
        if self._bar is not None and self._task is not None:
            output = cast(StepOutput, outputs)
            if batch_idx % 10 == 0 and "loss" in output:
                self._bar.update(self._task, loss=f"loss {float(output['loss']):.4f}")
            self._bar.update(self._task, completed=batch_idx + 1)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace the bar by the epoch's line."""
        self._close()
        if trainer.is_global_zero:
            warmup = pl_module.warmup_epochs if isinstance(pl_module, NoisyLabelModule) else 0
            self.console.print(
                epoch_line(
                    trainer.current_epoch,
                    int(trainer.max_epochs or 0),
                    warming_up=trainer.current_epoch < warmup,
                    metrics=trainer.callback_metrics,
                ),
                no_wrap=True,
            )

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Remove the bar before anything else is printed."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None


def epoch_line(
    epoch: int, max_epochs: int, *, warming_up: bool, metrics: Mapping[str, Tensor]
) -> str:
    """One finished epoch in 66 columns.

    Args:
        epoch: from 0.
        max_epochs: of the whole run.
        warming_up: whether this was a warm-up epoch.
        metrics: epoch metrics by name; absent ones show as a dash.
    """

    def shown(name: str, form: str, scale: float = 1.0) -> str:
        return format(float(metrics[name]) * scale, form) if name in metrics else "-"

    def percent(name: str) -> str:
        text = shown(name, ".1f", 100)
        return text if text == "-" else f"{text} %"

    counter = f"{epoch + 1}/{max_epochs}"
    stage = "warm-up" if warming_up else ""
    return (
        f"{counter:>9}  {stage:<8} {shown('train/loss', '.4f'):>9} {shown('meta/loss', '.4f'):>10} "
        f"{percent('val/accuracy'):>11} {percent('labels/accuracy'):>13}"
    )
