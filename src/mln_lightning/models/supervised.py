"""Training on the observed labels with a loss of your choice."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mln_lightning.batch import StepOutput, TrainBatch
from mln_lightning.models.base import NoisyLabelModule, OptimizerFactory, SchedulerFactory


class Supervised(NoisyLabelModule):
    """A loss on the observed labels throughout; the meta set is ignored.

    Args:
        network: see `NoisyLabelModule`.
        num_classes: see `NoisyLabelModule`.
        optimizer: see `NoisyLabelModule`.
        loss: logits ``(B, C)`` and observed labels ``(B,)`` ↦ ``()``; `mln_lightning.losses` has
            robust ones.
        scheduler: see `NoisyLabelModule`.
        warmup_epochs: initial epochs with cross-entropy in place of ``loss``, at least 0.

    Raises:
        ValueError: an argument is out of range, the options of ``loss`` included.
    """

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        optimizer: OptimizerFactory,
        loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
        *,
        scheduler: SchedulerFactory | None = None,
        warmup_epochs: int = 0,
    ) -> None:
        super().__init__(
            network, num_classes, optimizer, scheduler=scheduler, warmup_epochs=warmup_epochs
        )
        # Once on nothing in particular: a wrong option is refused before the data are read.
        loss(torch.zeros(1, num_classes), torch.zeros(1, dtype=torch.int64))
        self.loss = loss

    def noisy_step(self, batch: TrainBatch) -> StepOutput:
        """θ ← θ − lr · ∂θ loss(network(x), observed label)."""
        train = batch["train"]
        logits = self.network(train.images)
        loss = self.loss(logits, train.labels)
        self.descend(loss)
        return {"loss": loss.detach(), "logits": logits.detach()}
