"""Truncated generalised cross-entropy (Zhang & Sabuncu, NeurIPS 2018, section 3.3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mln_lightning import processes
from mln_lightning.batch import StepOutput, TrainBatch
from mln_lightning.losses import box_cox, log_likelihood
from mln_lightning.models.base import NoisyLabelModule, OptimizerFactory, SchedulerFactory
from mln_lightning.networks import evaluating


class TruncatedGCE(NoisyLabelModule):
    """L_q, with samples pruned whose label is less likely than k: they cost the constant L_q(k).

    Alternates as the paper does: the weights w ∈ {0, 1} of all samples are found anew every few
    epochs, between them the network learns from those that are kept.

    Args:
        network: see `NoisyLabelModule`.
        num_classes: C.
        optimizer: see `NoisyLabelModule`.
        scheduler: see `NoisyLabelModule`.
        warmup_epochs: see `NoisyLabelModule`; with cross-entropy.
        unpruned_epochs: epochs after those in which every sample is kept, at least 0.
        pruning_interval: epochs from one pruning to the next, at least 1.
        q: of `mln_lightning.losses.gce`, above 0, at most 1.
        threshold: k, above 0 and below 1: a sample is kept while p_y > k.

    Raises:
        ValueError: an argument is out of range.
    """

    kept: Tensor

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        optimizer: OptimizerFactory,
        *,
        scheduler: SchedulerFactory | None = None,
        warmup_epochs: int = 0,
        unpruned_epochs: int = 8,
        pruning_interval: int = 1,
        q: float = 0.7,
        threshold: float = 0.5,
    ) -> None:
        super().__init__(
            network, num_classes, optimizer, scheduler=scheduler, warmup_epochs=warmup_epochs
        )
        if unpruned_epochs < 0:
            raise ValueError(f"unpruned_epochs must be 0 or more, got {unpruned_epochs}.")
        if pruning_interval < 1:
            raise ValueError(f"pruning_interval must be at least 1, got {pruning_interval}.")
        if not 0 < q <= 1:
            raise ValueError(f"q must be above 0 and at most 1, got {q}.")
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must be above 0 and below 1, got {threshold}.")
        self.unpruned_epochs = unpruned_epochs
        self.pruning_interval = pruning_interval
        self.q = q
        self.log_threshold = math.log(threshold)
        self.pruned_loss = -math.expm1(q * self.log_threshold) / q  # L_q(k)

    def prepare(self, labels: Tensor) -> None:
        """W ``(N,)``, all kept at first."""
        self.register_buffer("kept", torch.ones(len(labels), dtype=torch.bool))

    def on_noisy_epoch(self) -> None:
        """Prune, in the epochs in which it is due."""
        since = self.current_epoch - self.warmup_epochs - self.unpruned_epochs
        if since >= 0 and since % self.pruning_interval == 0:
            self.prune()

    def prune(self) -> None:
        """W ← [p_y > k], with the network as it is, on images as they are."""
        part = self.data.parts.train
        with evaluating(self.network):
            logits = torch.cat([self.network(x) for x in self.data.images_of(part, self.device)])
        # Samples without a label get some number; no step ever sees them.
        likelihood = log_likelihood(logits, part.labels.to(self.device).clamp(min=0))
        self.kept[part.index.to(self.device)] = likelihood > self.log_threshold

    def noisy_step(self, batch: TrainBatch) -> StepOutput:
        """θ ← θ − lr · ∂θ mean of [w L_q(p_y) + (1 − w) L_q(k)]."""
        train = batch["train"]
        kept = self.kept[train.index]
        if not processes.total(kept.sum()):
            return self._no_step()
        logits = self.network(train.images)
        terms = box_cox(log_likelihood(logits, train.labels), self.q)
        loss = torch.where(kept, terms, self.pruned_loss).mean()
        self.descend(loss)
        return {"loss": loss.detach(), "logits": logits.detach()}
