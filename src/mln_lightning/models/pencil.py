"""PENCIL: label logits learned together with the network (Yi & Wu, CVPR 2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import nll_loss

from mln_lightning.batch import Batch, StepOutput, TrainBatch
from mln_lightning.labels import LabelTable
from mln_lightning.losses import entropy, reverse_kl
from mln_lightning.models.base import NoisyLabelModule, OptimizerFactory, SchedulerFactory


class Pencil(NoisyLabelModule):
    """Probabilistic End-to-end Noise Correction (Yi & Wu, CVPR 2019), in three stages.

    Warm-up is the paper's first stage. In the second, every step moves the network and the label
    logits of the batch down the gradient of one loss; in the third the labels stand still.

    A label can turn to another class only if α < 1/C: where a prediction p stands firm, its label
    comes to rest at (p/C + α · observed) / (1/C + α).

    Args:
        network: see `NoisyLabelModule`.
        num_classes: C.
        optimizer: see `NoisyLabelModule`. Losses after the warm-up are means over the classes too,
            so that the network moves C times slower.
        scheduler: see `NoisyLabelModule`.
        warmup_epochs: length of the first stage, at least 0.
        relabel_epochs: length of the second stage, at least 0; the third lasts to the end.
        compatibility_weight: α, at least 0, of the cross-entropy between label and observed label.
        entropy_weight: β, at least 0, of the prediction's entropy.
        label_lr: λ, at least 0, step size of the label logits. The loss is a mean over the batch,
            so λ/B is what a sample feels.
        sharpness: K, positive: label logits start as K · one-hot of the observed label.

    Raises:
        ValueError: an argument is out of range.
    """

    table: LabelTable

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        optimizer: OptimizerFactory,
        *,
        scheduler: SchedulerFactory | None = None,
        warmup_epochs: int = 8,
        relabel_epochs: int = 20,
        compatibility_weight: float = 0.02,
        entropy_weight: float = 0.8,
        label_lr: float = 1200.0,
        sharpness: float = 10.0,
    ) -> None:
        super().__init__(
            network, num_classes, optimizer, scheduler=scheduler, warmup_epochs=warmup_epochs
        )
        for name, value in (
            ("relabel_epochs", relabel_epochs),
            ("compatibility_weight", compatibility_weight),
            ("entropy_weight", entropy_weight),
            ("label_lr", label_lr),
        ):
            if value < 0:
                raise ValueError(f"{name} must be 0 or more, got {value}.")
        if not sharpness > 0:
            raise ValueError(f"sharpness must be positive, got {sharpness}.")
        self.freeze_epoch = warmup_epochs + relabel_epochs
        self.compatibility_weight = compatibility_weight
        self.entropy_weight = entropy_weight
        self.label_lr = label_lr
        self.sharpness = sharpness

    def prepare(self, labels: Tensor) -> None:
        """Label logits: K · one-hot of the observed label."""
        self.table = LabelTable(labels, self.num_classes, sharpness=self.sharpness)

    def noisy_step(self, batch: TrainBatch) -> StepOutput:
        """The paper's second stage, then its third."""
        train = batch["train"]
        if self.current_epoch < self.freeze_epoch:
            return self._joint_step(train)
        return self._frozen_step(train)

    def _joint_step(self, train: Batch) -> StepOutput:
        """θ ← θ − lr · ∂θ L and ỹ ← ỹ − λ · ∂ỹ L, ŷ = softmax(ỹ).

        L = KL(p ‖ ŷ)/C + α · cross_entropy(ŷ, observed label) + β · H(p)/C
        """
        rows = self.table.rows(train.index)
        log_soft = rows.log_softmax(dim=1)
        logits = self.network(train.images)
        loss = reverse_kl(logits, log_soft, reduction="element")
        loss = loss + self.compatibility_weight * nll_loss(log_soft, train.labels)
        loss = loss + self.entropy_weight * entropy(logits, reduction="element")
        # Not left to `descend`, whose gradients are scaled in half precision.
        (grad,) = torch.autograd.grad(self.part_of_batch(loss), rows, retain_graph=True)
        self.descend(loss)
        self.table.descend(train.index, grad, self.label_lr)
        return _output(loss, logits, log_soft)

    def _frozen_step(self, train: Batch) -> StepOutput:
        """θ ← θ − lr · ∂θ KL(p ‖ ŷ)/C."""
        log_soft = self.table.log_soft(train.index)
        logits = self.network(train.images)
        loss = reverse_kl(logits, log_soft, reduction="element")
        self.descend(loss)
        return _output(loss, logits, log_soft)


def _output(loss: Tensor, logits: Tensor, log_soft: Tensor) -> StepOutput:
    return {
        "loss": loss.detach(),
        "logits": logits.detach(),
        "soft_labels": log_soft.detach().exp(),
    }
