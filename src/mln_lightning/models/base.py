"""What all learning methods share: warm-up, stepping and evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from mln_lightning.batch import UNKNOWN, Batch, StepOutput, TrainBatch
from mln_lightning.data.datamodule import NoisyLabelDataModule

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
SchedulerFactory = Callable[[Optimizer], LRScheduler]


class NonFiniteLossError(ValueError):
    """A loss was NaN or infinite; the message names the step and what to do."""


class NoisyLabelModule(LightningModule, ABC):
    """Warm-up, manual optimisation, evaluation and epoch means, shared by all methods.

    A method implements `noisy_step`; until ``warmup_epochs`` have passed, every step is a
    cross-entropy step on the observed labels instead. ``global_step`` counts batches.

    Args:
        network: any classifier, images ``(B, K, H, W)`` → logits ``(B, C)``.
        num_classes: C, at least 2.
        optimizer: parameters → optimiser of the network.
        scheduler: optimiser → learning-rate schedule, stepped once per epoch; None = constant.
        warmup_epochs: number of initial epochs on the observed labels, at least 0.

    Raises:
        ValueError: an argument is out of range.
    """

    first_bad_step: Tensor

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        optimizer: OptimizerFactory,
        *,
        scheduler: SchedulerFactory | None = None,
        warmup_epochs: int = 0,
    ) -> None:
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}.")
        if warmup_epochs < 0:
            raise ValueError(f"warmup_epochs must be 0 or more, got {warmup_epochs}.")
        super().__init__()
        self.automatic_optimization = False
        self.network = network
        self.num_classes = num_classes
        self.warmup_epochs = warmup_epochs
        self.warmed_up = False
        self._some_unlabelled = True  # as far as is known
        self._optimizer = optimizer
        self._scheduler = scheduler
        # Persistent, so that a checkpoint in mid-epoch carries the sums of the epoch so far.
        self.epoch_means = nn.ModuleDict()
        for name in ("train/loss", "meta/loss", "meta/grad_norm"):
            # Looking for NaN would wait for the device; `check_finite` names it later.
            self.epoch_means[name] = MeanMetric(nan_strategy="disable")
            self._epoch_mean(name).persistent(True)
        self.val_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.test_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.test_confusion = MulticlassConfusionMatrix(num_classes)
        self.confusion: Tensor | None = None  # of the last test, (C, C) counts, rows = clean class
        self.register_buffer("first_bad_step", torch.tensor(-1), persistent=False)

    def setup(self, stage: str) -> None:
        """Refuse what cannot work, before the first batch.

        Raises:
            ValueError: more than one process.
        """
        if self.trainer.world_size > 1:
            raise ValueError(
                f"Training on {self.trainer.world_size} processes is not supported yet: batches "
                "and meta gradient are those of one process; set trainer.devices=1."
            )

    # -- training -----------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Ask once whether there are unlabelled samples: a look at every batch would cost time."""
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, NoisyLabelDataModule):
            self._some_unlabelled = bool((data.parts.train.labels == UNKNOWN).any())

    def training_step(self, batch: TrainBatch, batch_idx: int) -> StepOutput:
        """One warm-up step or one step of the method; see `noisy_step`."""
        if self.current_epoch < self.warmup_epochs:
            output = self.supervised_step(batch["train"])
        else:
            if not self.warmed_up:
                self.on_warmup_end()
                self.warmed_up = True
            output = self.noisy_step(batch)
        self._record(output)
        return output

    @abstractmethod
    def noisy_step(self, batch: TrainBatch) -> StepOutput:
        """One step of the method after warm-up: computes its loss and calls `descend`."""

    def on_warmup_end(self) -> None:
        """Called once, before the first step after warm-up."""

    def descend(self, loss: Tensor) -> None:
        """One optimiser step of the network on ``loss`` ``()``, with AMP and DDP by Lightning."""
        optimizer = self._network_optimizer()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def supervised_step(self, train: Batch) -> StepOutput:
        """θ ← θ − lr · ∂θ cross_entropy(network(x), observed label), over the labelled samples.

        A batch without any label changes nothing, and counts as a step.
        """
        if self._some_unlabelled and bool((train.labels == UNKNOWN).all()):
            return self._no_step()
        logits = self.network(train.images)
        loss = cross_entropy(logits, train.labels, ignore_index=UNKNOWN)
        self.descend(loss)
        return {"loss": loss.detach(), "logits": logits.detach()}

    def _no_step(self) -> StepOutput:
        """Advance ``global_step``, from which the samplers know where they are."""
        optimizer = self._network_optimizer()
        optimizer.zero_grad(set_to_none=True)  # what has no gradient is left alone, decay included
        optimizer.step()
        return {}

    def _network_optimizer(self) -> LightningOptimizer:
        optimizers = self.optimizers()
        first = optimizers[0] if isinstance(optimizers, list) else optimizers
        assert isinstance(first, LightningOptimizer)
        return first

    def configure_optimizers(self) -> tuple[list[Optimizer], list[LRScheduler]]:
        """The network's optimiser first, so that it alone advances ``global_step``."""
        optimizer = self._optimizer(self.network.parameters())
        return [optimizer], [self._scheduler(optimizer)] if self._scheduler else []

    # -- epoch means, and losses that are not finite --------------------------------------------

    def _epoch_mean(self, name: str) -> MeanMetric:
        metric = self.epoch_means[name]
        assert isinstance(metric, MeanMetric)
        return metric

    def _record(self, output: StepOutput) -> None:
        if "loss" not in output:
            return
        self._epoch_mean("train/loss").update(output["loss"])
        bad = ~torch.isfinite(output["loss"])
        if "meta_loss" in output:
            self._epoch_mean("meta/loss").update(output["meta_loss"])
            bad = bad | ~torch.isfinite(output["meta_loss"])
        # Latched on the device: reading it here would make the host wait for every step.
        step = torch.where(bad, self.global_step - 1, -1)
        self.first_bad_step = torch.where(self.first_bad_step < 0, step, self.first_bad_step)

    def check_finite(self) -> None:
        """Raise if any loss since the start was NaN or infinite; waits for the device.

        Raises:
            NonFiniteLossError: names the step, the epoch and the batch, counted from 1.
        """
        if (step := int(self.first_bad_step)) >= 0:
            epoch, batch = divmod(step, int(self.trainer.num_training_batches))
            raise NonFiniteLossError(
                f"The loss was not finite at step {step + 1} (epoch {epoch + 1}, batch "
                f"{batch + 1}); lower a learning rate, or look at that batch."
            )

    def on_train_epoch_end(self) -> None:
        """Log the epoch means and step the schedule, which manual optimisation leaves to us."""
        for name in self.epoch_means:
            metric = self._epoch_mean(name)
            if metric.update_called:
                self.log(name, metric.compute())
            metric.reset()
        schedule = self.lr_schedulers()
        if isinstance(schedule, LRScheduler):
            schedule.step()

    # -- evaluation -----------------------------------------------------------------------------

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, C)`` of the network for normalised images ``(B, K, H, W)``."""
        logits: Tensor = self.network(images)
        return logits

    @torch.no_grad()
    def soft_labels(self, images: Tensor) -> Tensor:
        """``(B, K, H, W)`` → the soft labels ``(B, C)`` this method would train on, probabilities.

        A method without soft labels answers with its classifier's probabilities.
        """
        probabilities: Tensor = self(images).softmax(dim=1)
        return probabilities

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Accuracy against the *observed* labels of the validation part."""
        self.val_accuracy.update(self(batch.images), batch.labels)

    def on_validation_epoch_end(self) -> None:
        """Log ``val/accuracy``."""
        self.log("val/accuracy", self.val_accuracy.compute())
        self.val_accuracy.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Accuracy and confusions on the clean test set."""
        logits = self(batch.images)
        self.test_accuracy.update(logits, batch.labels)
        self.test_confusion.update(logits, batch.labels)

    def on_test_epoch_end(self) -> None:
        """Log ``test/accuracy``, and keep the confusion matrix."""
        self.log("test/accuracy", self.test_accuracy.compute(), logger=False)
        self.confusion = self.test_confusion.compute().cpu()
        self.test_accuracy.reset()
        self.test_confusion.reset()

    # -- checkpoints ------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Remember whether the warm-up has ended."""
        checkpoint["warmed_up"] = self.warmed_up

    def on_load_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Restore whether the warm-up has ended."""
        self.warmed_up = bool(checkpoint["warmed_up"])
