"""Early-learning regularisation (Liu, Niles-Weed, Razavian & Fernandez-Granda, NeurIPS 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mln_lightning.batch import StepOutput, TrainBatch
from mln_lightning.models.base import NoisyLabelModule, OptimizerFactory, SchedulerFactory

_SURE = 1 - 1e-4  # agreement beyond which the regulariser stops pulling; log(1 - 1) is infinite


class ELR(NoisyLabelModule):
    """Predictions are kept close to what they were before wrong labels were learnt.

    Every sample has a target, the running mean of its predictions; the loss is
    cross-entropy plus λ log(1 − ⟨p, target⟩).

    Args:
        network: see `NoisyLabelModule`.
        num_classes: C.
        optimizer: see `NoisyLabelModule`.
        scheduler: see `NoisyLabelModule`.
        warmup_epochs: see `NoisyLabelModule`; the targets stay at zero meanwhile.
        elr_weight: λ, at least 0.
        target_momentum: β, at least 0 and below 1: how much of the old target stays at each visit.

    Raises:
        ValueError: an argument is out of range.
    """

    targets: Tensor

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        optimizer: OptimizerFactory,
        *,
        scheduler: SchedulerFactory | None = None,
        warmup_epochs: int = 0,
        elr_weight: float = 3.0,
        target_momentum: float = 0.7,
    ) -> None:
        super().__init__(
            network, num_classes, optimizer, scheduler=scheduler, warmup_epochs=warmup_epochs
        )
        if elr_weight < 0:
            raise ValueError(f"elr_weight must be 0 or more, got {elr_weight}.")
        if not 0 <= target_momentum < 1:
            raise ValueError(
                f"target_momentum must be at least 0 and below 1, got {target_momentum}."
            )
        self.elr_weight = elr_weight
        self.target_momentum = target_momentum

    def prepare(self, labels: Tensor) -> None:
        """Targets ``(N, C)``, zero at first: a sample not seen yet is not held back."""
        self.register_buffer("targets", torch.zeros(len(labels), self.num_classes))

    def noisy_step(self, batch: TrainBatch) -> StepOutput:
        """Targets follow the predictions, then θ ← θ − lr · ∂θ (CE + λ log(1 − ⟨p, target⟩))."""
        train = batch["train"]
        logits = self.network(train.images)
        p = logits.softmax(dim=1, dtype=self.targets.dtype)
        targets = self.targets[train.index].lerp(p.detach(), 1 - self.target_momentum)
        self.targets[train.index] = targets
        agreement = (p * targets).sum(dim=1).clamp(max=_SURE)
        regulariser = torch.log1p(-agreement).mean()
        loss = cross_entropy(logits, train.labels) + self.elr_weight * regulariser
        self.descend(loss)
        return {
            "loss": loss.detach(),
            "logits": logits.detach(),
            "soft_labels": targets / targets.sum(dim=1, keepdim=True),
        }
