"""Labels replaced by the network's mean prediction, then a fresh start (Tanaka et al., 2018)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, one_hot

from mln_lightning.batch import Batch, StepOutput, TrainBatch
from mln_lightning.losses import entropy, prior_kl
from mln_lightning.models.base import NoisyLabelModule, OptimizerFactory, SchedulerFactory


class JointOptimization(NoisyLabelModule):
    """Joint Optimization Framework (Tanaka, Ikami, Yamasaki & Aizawa, CVPR 2018), soft labels.

    First step: θ is trained on a table of labels with two regularisers, and after the warm-up every
    epoch begins by replacing the table by the mean of each sample's last predictions. Second step:
    the network starts again from its initial weights and learns the last labels.

    Args:
        network: see `NoisyLabelModule`; its present weights are those of both steps' starts.
        num_classes: C.
        optimizer: see `NoisyLabelModule`.
        scheduler: see `NoisyLabelModule`. The first step needs a high rate throughout: that is
            what keeps the network from memorising wrong labels.
        warmup_epochs: epochs before the first relabelling, at least 0.
        relabel_epochs: epochs with relabelling, at least 0; then the second step lasts to the end.
        prior_weight: α, at least 0, of KL(uniform ‖ mean prediction of the batch).
        entropy_weight: β, at least 0, of the prediction's entropy.
        window: how many predictions of each sample are averaged, at least 1. As many tables of
            ``(N, C)`` are kept.

    Raises:
        ValueError: an argument is out of range.
    """

    whole_batch = "its prior is on the mean prediction of the whole batch"

    labels: Tensor
    past: Tensor
    seen: Tensor

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        optimizer: OptimizerFactory,
        *,
        scheduler: SchedulerFactory | None = None,
        warmup_epochs: int = 8,
        relabel_epochs: int = 12,
        prior_weight: float = 1.2,
        entropy_weight: float = 0.8,
        window: int = 10,
    ) -> None:
        super().__init__(
            network, num_classes, optimizer, scheduler=scheduler, warmup_epochs=warmup_epochs
        )
        for name, value in (
            ("relabel_epochs", relabel_epochs),
            ("prior_weight", prior_weight),
            ("entropy_weight", entropy_weight),
        ):
            if value < 0:
                raise ValueError(f"{name} must be 0 or more, got {value}.")
        if window < 1:
            raise ValueError(f"window must be at least 1, got {window}.")
        self.restart_epoch = warmup_epochs + relabel_epochs
        self.prior_weight = prior_weight
        self.entropy_weight = entropy_weight
        self.window = window
        # In checkpoints, since a resumed run may have built other weights.
        self.initial = copy.deepcopy(network).requires_grad_(False)

    def prepare(self, labels: Tensor) -> None:
        """Label table: one-hot of the observed label, a row of zeros where there is none."""
        rows = torch.zeros(len(labels), self.num_classes)
        known = labels >= 0
        rows[known] = one_hot(labels[known], self.num_classes).to(rows.dtype)
        self.register_buffer("labels", rows)
        self.register_buffer("past", torch.zeros(len(labels), self.window, self.num_classes))
        self.register_buffer("seen", torch.zeros(len(labels), dtype=torch.int64))

    def noisy_step(self, batch: TrainBatch) -> StepOutput:
        """A step on the present labels; the first step of the paper, then the second."""
        train = batch["train"]
        if self.current_epoch < self.restart_epoch:
            output = self._first_step(train)
        else:
            output = self._second_step(train)
        output["soft_labels"] = self._soft(train)
        return output

    def _first_step(self, train: Batch) -> StepOutput:
        """θ ← θ − lr · ∂θ [KL(ŷ ‖ p) + α KL(uniform ‖ mean p) + β H(p)]."""
        logits = self.network(train.images)
        log_p = logits.log_softmax(dim=1)
        loss = kl_div(log_p, self._soft(train), reduction="batchmean")
        loss = loss + self.prior_weight * prior_kl(logits)
        loss = loss + self.entropy_weight * entropy(logits)
        self.descend(loss)
        self._remember(train.index, log_p.detach().exp())
        return {"loss": loss.detach(), "logits": logits.detach()}

    def _second_step(self, train: Batch) -> StepOutput:
        """θ ← θ − lr · ∂θ cross_entropy(p, ŷ)."""
        logits = self.network(train.images)
        loss = cross_entropy(logits, self._soft(train))
        self.descend(loss)
        return {"loss": loss.detach(), "logits": logits.detach()}

    def _warmup_step(self, batch: TrainBatch) -> StepOutput:
        # The paper's loss from the beginning, with labels that are still the observed ones.
        return self._first_step(batch["train"])

    def on_noisy_epoch(self) -> None:
        """Relabel, up to the end of the first step; there also start again."""
        if self.current_epoch <= self.restart_epoch:
            self._relabel()
        if self.current_epoch == self.restart_epoch:
            self.network.load_state_dict(self.initial.state_dict())
            self.trainer.optimizers[0].state.clear()  # momentum belongs to the old weights

    def _remember(self, index: Tensor, probabilities: Tensor) -> None:
        """Put predictions ``(B, C)`` into the place of each sample's oldest one."""
        self.past[index, self.seen[index] % self.window] = probabilities.to(self.past.dtype)
        self.seen[index] += 1

    def _relabel(self) -> None:
        """ŷ ← mean of the last predictions, for samples that have any."""
        counts = self.seen.clamp(max=self.window)[:, None]
        mean = self.past.sum(dim=1) / counts.clamp(min=1)
        self.labels.copy_(torch.where(counts > 0, mean, self.labels))

    def _soft(self, train: Batch) -> Tensor:
        return self.labels[train.index]
