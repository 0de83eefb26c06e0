"""What all learning methods share: warm-up and stepping."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mln_lightning import processes
from mln_lightning.batch import UNKNOWN, Batch, StepOutput, TrainBatch
from mln_lightning.data.datamodule import NoisyLabelDataModule
from mln_lightning.meta import COMPILER, compile_network
from mln_lightning.models.epoch_means import EpochMeans
from mln_lightning.models.evaluated import EvaluatedModule
from mln_lightning.models.loss_scale import attempt, stepped, unscaled
from mln_lightning.models.shared_training import SharedTraining

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
SchedulerFactory = Callable[[Optimizer], LRScheduler]


class NonFiniteLossError(ValueError):
    """A loss was NaN or infinite; the message names the step and what to do."""


class NoisyLabelModule(EvaluatedModule, ABC):
    """Warm-up, manual optimisation and epoch means, shared by all methods.

    A method implements `noisy_step`; until ``warmup_epochs`` have passed, every step is a
    cross-entropy step on the observed labels instead. ``global_step`` counts batches.

    What a method may also say: `prepare` makes its tables, `on_warmup_end` and `on_noisy_epoch`
    prepare a stage or an epoch, `trained_parameters` and `classifier` tell of a second network.
    All state belongs into parameters and buffers: then a checkpoint in mid-epoch has it.

    Args:
        network: any classifier, images ``(B, K, H, W)`` → logits ``(B, C)``.
        num_classes: C, at least 2.
        optimizer: parameters → optimiser of the network.
        scheduler: optimiser → learning-rate schedule, stepped once per epoch; None = constant.
        warmup_epochs: number of initial epochs on the observed labels, at least 0.

    Raises:
        ValueError: an argument is out of range.
    """

    uses_unlabelled: ClassVar[bool] = False
    """Whether `noisy_step` learns from samples without a label; else it does not see them."""

    whole_batch = ""
    """Why one process must see the whole batch, a clause; empty if processes may share it."""

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        optimizer: OptimizerFactory,
        *,
        scheduler: SchedulerFactory | None = None,
        warmup_epochs: int = 0,
    ) -> None:
        if warmup_epochs < 0:
            raise ValueError(f"warmup_epochs must be 0 or more, got {warmup_epochs}.")
        super().__init__(network, num_classes)
        self.automatic_optimization = False
        self.warmup_epochs = warmup_epochs
        self.warmed_up = False
        self._some_unlabelled = True  # as far as is known
        self._optimizer = optimizer
        self._scheduler = scheduler
        self.epoch_means = EpochMeans()
        self.shared = SharedTraining()
        self._prepared = False

    def setup(self, stage: str) -> None:
        """Refuse what cannot work, and `prepare`, before a checkpoint is loaded.

        Raises:
            ValueError: data of which nothing is known in advance for a method that must know its
                samples, or several processes where that cannot be exact.
        """
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, NoisyLabelDataModule):
            self.prepare_once(data.train_labels)
        elif type(self).prepare is not NoisyLabelModule.prepare:
            raise ValueError(
                f"{type(self).__name__} keeps something for every training sample; train it with a "
                "NoisyLabelDataModule, which knows them in advance."
            )
        if self.trainer.world_size > 1:
            self.shared.start(self)

    def prepare_once(self, labels: Tensor) -> None:
        """`prepare`, if that was not done yet."""
        if not self._prepared:
            before = {name for name, _ in self.named_buffers()}
            self.prepare(labels)
            self._prepared = True
            made = [name for name, _ in self.named_buffers() if name not in before]
            rows = len(labels)
            self.shared.keep_rows([n for n in made if len(self.get_buffer(n)) == rows], rows)

    def prepare(self, labels: Tensor) -> None:
        """Make tables with a row for every sample, before the first step.

        Args:
            labels: ``(N,)`` int64 observed labels by `Batch.index`; ``UNKNOWN`` where there is
                none, or where the sample is not one of the training part.
        """

    @property
    def data(self) -> NoisyLabelDataModule:
        """The data being trained on.

        Raises:
            ValueError: they are not those of a `NoisyLabelDataModule`.
        """
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, NoisyLabelDataModule):
            raise ValueError(
                f"{type(self).__name__} looks at whole parts of the data; train it with a "
                "NoisyLabelDataModule."
            )
        return data

    # -- training -----------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Ask once whether there are unlabelled samples: a look at every batch would cost time."""
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, NoisyLabelDataModule):
            self._some_unlabelled = bool((data.parts.train.labels == UNKNOWN).any())

    def training_step(self, batch: TrainBatch, batch_idx: int) -> StepOutput:
        """One warm-up step or one step of the method; see `noisy_step`."""
        warming_up = self.current_epoch < self.warmup_epochs
        if not warming_up:
            if not self.warmed_up:
                self.on_warmup_end()
                self.warmed_up = True
            if batch_idx == 0:
                self.on_noisy_epoch()
                self.shared.follow_first(self)
        step = self._warmup_step if warming_up else self.noisy_step
        labelled = batch["train"].labels != UNKNOWN
        if not self._some_unlabelled or (self.uses_unlabelled and not warming_up):
            output = self._shared_step(step, batch)
        elif processes.total(labelled.sum()) > 0:
            train = Batch(*(column[labelled] for column in batch["train"]))
            output = self._shared_step(step, TrainBatch(train=train, meta=batch["meta"]))
            output["rows"] = labelled
        else:
            output = self._no_step()
        self.epoch_means.record(self.shared.losses(output), self.global_step - 1)
        return output

    def _shared_step(
        self, step: Callable[[TrainBatch], StepOutput], batch: TrainBatch
    ) -> StepOutput:
        train, meta = batch["train"], batch["meta"]
        self.shared.weigh(len(train.index), len(meta.index), train.images.device)
        self.shared.mark(train.index)
        return attempt(self, step, batch)

    def compile_pieces(self, batch: TrainBatch, backend: str = COMPILER) -> None:
        """Compile in place what a training step runs; where that fails, a warning says why.

        Args:
            batch: of the sizes of the batches to come; see `compile_network`.
            backend: see `torch.compile`.
        """
        compile_network(self.network, batch["train"].images, backend)

    @abstractmethod
    def noisy_step(self, batch: TrainBatch) -> StepOutput:
        """One step of the method after warm-up: computes its loss and calls `descend`."""

    def on_warmup_end(self) -> None:
        """Called once, before the first step after warm-up."""

    def on_noisy_epoch(self) -> None:
        """Called before the first step of every epoch after warm-up; not when one is resumed."""

    def _warmup_step(self, batch: TrainBatch) -> StepOutput:
        return self.supervised_step(batch["train"])

    def descend(self, loss: Tensor) -> None:
        """One optimiser step of the network, with AMP and DDP by Lightning.

        Args:
            loss: ``()`` mean over the present samples.
        """
        optimizer = self._network_optimizer()
        optimizer.zero_grad()
        # DDP takes the mean over the processes, and they are parts of a sum.
        self.manual_backward(self.part_of_batch(loss) * processes.count())
        stepped(self, optimizer.step)

    def part_of_batch(self, loss: Tensor) -> Tensor:
        """What the mean over this process's samples ``()`` adds to that over the whole batch.

        Gradients in something that belongs to a sample are right only if taken of this.
        """
        return loss * self.shared.train_share

    def supervised_step(self, train: Batch) -> StepOutput:
        """θ ← θ − lr · ∂θ cross_entropy(network(x), observed label)."""
        logits = self.network(train.images)
        loss = cross_entropy(logits, train.labels)
        self.descend(loss)
        return {"loss": loss.detach(), "logits": logits.detach()}

    def draws(self) -> torch.Generator:
        """A CPU generator for what a step draws: a function of the seed and the step.

        It is the same in all processes, which all must ask for it, or none.
        """
        state = torch.randint(2**62, ())  # the global generator is seeded anew for every step
        if processes.count() > 1:
            state = state.to(self.device)
            processes.follow_first([state])
        return torch.Generator().manual_seed(int(state))

    def _no_step(self) -> StepOutput:
        """Advance ``global_step``, from which the samplers know where they are."""
        optimizer = self._network_optimizer()
        optimizer.zero_grad(set_to_none=True)  # what has no gradient is left alone, decay included
        with unscaled(self):
            optimizer.step()
        return {}

    def _network_optimizer(self) -> LightningOptimizer:
        optimizers = self.optimizers()
        first = optimizers[0] if isinstance(optimizers, list) else optimizers
        assert isinstance(first, LightningOptimizer)
        return first

    def trained_parameters(self) -> Iterable[nn.Parameter]:
        """What the main optimiser updates: the network, or all networks of a method."""
        return self.network.parameters()

    def configure_optimizers(self) -> tuple[list[Optimizer], list[LRScheduler]]:
        """The network's optimiser first, so that it alone advances ``global_step``."""
        optimizer = self._optimizer(self.trained_parameters())
        return [optimizer], [self._scheduler(optimizer)] if self._scheduler else []

    def check_finite(self) -> None:
        """Raise if any loss since the start was NaN or infinite; waits for the device.

        Raises:
            NonFiniteLossError: names the step, the epoch and the batch, counted from 1.
        """
        if (step := self.epoch_means.bad_step()) is not None:
            epoch, batch = divmod(step, int(self.trainer.num_training_batches))
            raise NonFiniteLossError(
                f"The loss was not finite at step {step + 1} (epoch {epoch + 1}, batch "
                f"{batch + 1}); lower a learning rate, or look at that batch."
            )

    def complete_tables(self) -> None:
        """Exchange the rows of tables that other processes have changed; before any checkpoint."""
        self.shared.exchange_rows(self)

    def on_train_epoch_end(self) -> None:
        """Complete the tables, log the epoch means and step the schedule: nobody else does."""
        self.complete_tables()
        self.log_dict(self.epoch_means.compute())
        schedule = self.lr_schedulers()
        if isinstance(schedule, LRScheduler):
            schedule.step()

    # -- checkpoints ------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Remember whether the warm-up has ended."""
        checkpoint["warmed_up"] = self.warmed_up

    def on_load_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Restore whether the warm-up has ended."""
        self.warmed_up = bool(checkpoint["warmed_up"])
