"""A warning when soft labels forget classes."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint as AfterModuleHooks
from rich.console import Console
from torch import Tensor

from mln_lightning import processes
from mln_lightning.batch import UNKNOWN, StepOutput, TrainBatch
from mln_lightning.data.datamodule import NoisyLabelDataModule
from mln_lightning.models import MetaLabelNet

SHARE = 0.1  # of a class's expected share; a class that has less is lost
RARE = 0.25  # of 1/C; a class expected more rarely is not looked at
PATIENCE = 3  # epochs in a row: the first ones with soft labels may be wild


class CollapseWarning(AfterModuleHooks):
    """Says once, while there is time to act, that the soft labels no longer name some classes.

    A class is lost if fewer than a tenth of the soft labels one would expect have it as their most
    likely class, three epochs in a row. Expected is its share of the observed labels, or of the
    predictions in the last epoch without soft labels, if that is less: under symmetric noise a rare
    class is observed much more often than it occurs, but not predicted more often. Classes expected
    in less than a quarter of a uniform share are not looked at.

    (Derived from Lightning's ``Checkpoint`` in order to run after the epoch's line was printed.)

    Args:
        num_classes: C, at least 2.
    """

    def __init__(self, num_classes: int) -> None:
        self.console = Console(highlight=False)
        # Counts of the epoch by class; on the device once there was a step.
        self.observed, self.predicted, self.soft = torch.zeros(3, num_classes, dtype=torch.int64)
        self.before: Tensor | None = None  # shares of the predictions before there were soft labels
        self.epochs_lost = torch.zeros(num_classes, dtype=torch.int64)
        self.warned = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count where the batches are."""
        device = pl_module.device
        self.observed, self.predicted, self.soft = (
            counts.to(device) for counts in (self.observed, self.predicted, self.soft)
        )

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: TrainBatch,
        batch_idx: int,
    ) -> None:
        """Count a step's labels, predictions and soft labels."""
        output = cast(StepOutput, outputs)
        if self.warned or "logits" not in output:
            return
        labels = batch["train"].labels
        if "rows" in output:
            labels = labels[output["rows"]]
        _count(self.observed, labels)
        _count(self.predicted, output["logits"].argmax(dim=1))
        if "soft_labels" in output:
            _count(self.soft, output["soft_labels"].argmax(dim=1))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the epoch, and start anew."""
        if self.warned:
            return
        counted = processes.totals([self.observed, self.predicted, self.soft])
        observed, predicted, soft = map(_shares, counted)
        for counts in (self.observed, self.predicted, self.soft):
            counts.zero_()
        if soft is None:
            self.before = predicted if predicted is not None else self.before
            return
        expected = soft.new_zeros(len(soft)) if observed is None else observed
        if self.before is not None:
            expected = torch.minimum(expected, self.before)
        lost = (soft < SHARE * expected) & (expected >= RARE / len(soft))
        self.epochs_lost = torch.where(lost, self.epochs_lost + 1, 0)
        classes = (self.epochs_lost >= PATIENCE).nonzero().flatten().tolist()
        self.warned = bool(classes)
        if classes and trainer.is_global_zero:
            names = class_names(trainer, len(soft))
            lost_names = [names[c] for c in classes]
            text = sentence(trainer.current_epoch + 1, lost_names, len(soft), advice(pl_module))
            self.console.print(textwrap.fill(text, 80), style="yellow", soft_wrap=True)

    def state_dict(self) -> dict[str, Any]:
        """The counts of an unfinished epoch, what came before, and whether it was said."""
        return {
            "counts": processes.total(
                torch.stack([self.observed, self.predicted, self.soft])
            ).cpu(),
            "before": self.before,
            "epochs_lost": self.epochs_lost,
            "warned": self.warned,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the checkpoint was taken."""
        counts = state_dict["counts"].clone()
        # One process goes on with what all had counted; they are added up later.
        self.observed, self.predicted, self.soft = counts if not processes.rank() else 0 * counts
        self.before = state_dict["before"]
        self.epochs_lost = state_dict["epochs_lost"]
        self.warned = state_dict["warned"]


def sentence(epoch: int, lost: list[str], num_classes: int, settings: list[str]) -> str:
    """The warning.

    Args:
        epoch: from 1.
        lost: names of the classes, at least one.
        num_classes: C.
        settings: what helps, at least one.
    """
    shown = ", ".join(lost[:10]) + (", …" if len(lost) > 10 else "")
    return (
        f"Collapse in epoch {epoch}: soft labels hardly name {len(lost)} of {num_classes} classes "
        f"any more ({shown}). What helps: {', '.join(settings)}."
    )


def advice(module: LightningModule) -> list[str]:
    """Settings that keep soft labels from collapsing, those first that matter most here."""
    settings = []
    if isinstance(module, MetaLabelNet):
        if module.generator_start == "random":
            settings.append("model.generator_start=head")
        if module.entropy_weight > 0:
            settings.append("model.entropy_weight=0")
    return [*settings, "a lower model.optimizer.lr", "more model.warmup_epochs"]


def class_names(trainer: Trainer, num_classes: int) -> Sequence[str]:
    """Names of the classes, or their numbers."""
    data = getattr(trainer, "datamodule", None)
    if isinstance(data, NoisyLabelDataModule):
        return data.info.class_names
    return [str(number) for number in range(num_classes)]


def _count(counts: Tensor, classes: Tensor) -> None:
    """Add one for each entry; ``UNKNOWN`` counts nowhere."""
    counts.index_add_(0, classes.clamp(min=0), (classes != UNKNOWN).long())


def _shares(counts: Tensor) -> Tensor | None:
    """``(C,)`` fractions on the CPU, or None if nothing was counted."""
    counts = counts.cpu().double()
    total = counts.sum()
    return counts / total if total > 0 else None
