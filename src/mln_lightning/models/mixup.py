"""mixup (Zhang, Cissé, Dauphin & Lopez-Paz, ICLR 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mln_lightning.batch import StepOutput, TrainBatch
from mln_lightning.models.base import NoisyLabelModule, OptimizerFactory, SchedulerFactory
from mln_lightning.seeding import beta


class Mixup(NoisyLabelModule):
    """Trains on mixtures of two images, with the same mixture of their observed labels.

    Steps report no predictions: the network does not see the images themselves.

    Args:
        network: see `NoisyLabelModule`.
        num_classes: C.
        optimizer: see `NoisyLabelModule`.
        scheduler: see `NoisyLabelModule`.
        warmup_epochs: see `NoisyLabelModule`.
        mixup_alpha: α, positive: the share of an image is drawn from Beta(α, α); towards 0 images
            stay as they are, large values mix all of them half and half.

    Raises:
        ValueError: an argument is out of range.
    """

    whole_batch = "it mixes each image with another of the whole batch"

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        optimizer: OptimizerFactory,
        *,
        scheduler: SchedulerFactory | None = None,
        warmup_epochs: int = 0,
        mixup_alpha: float = 1.0,
    ) -> None:
        super().__init__(
            network, num_classes, optimizer, scheduler=scheduler, warmup_epochs=warmup_epochs
        )
        if not mixup_alpha > 0:
            raise ValueError(f"mixup_alpha must be positive, got {mixup_alpha}.")
        self.mixup_alpha = mixup_alpha

    def noisy_step(self, batch: TrainBatch) -> StepOutput:
        """θ ← θ − lr · ∂θ [λ CE(o, y) + (1 − λ) CE(o, y')], o = network(λ x + (1 − λ) x')."""
        train = batch["train"]
        share, partners = self.mixture(len(train.labels))
        partners = partners.to(train.labels.device, non_blocking=True)
        logits = self.network(torch.lerp(train.images[partners], train.images, share))
        loss = share * cross_entropy(logits, train.labels)
        loss = loss + (1 - share) * cross_entropy(logits, train.labels[partners])
        self.descend(loss)
        return {"loss": loss.detach()}

    def mixture(self, size: int) -> tuple[float, Tensor]:
        """λ, one for the batch, and the other image of every sample, ``(B,)``."""
        draws = self.draws()
        partners = torch.randperm(size, generator=draws)
        return beta(self.mixup_alpha, draws), partners
