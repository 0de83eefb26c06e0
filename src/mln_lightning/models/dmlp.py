"""DMLP: labels purified once, through a closed form on frozen features (Tu et al., CVPR 2023)."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, one_hot

from mln_lightning.batch import StepOutput, TrainBatch
from mln_lightning.data.parts import Part
from mln_lightning.labels import LabelGenerator
from mln_lightning.models.base import NoisyLabelModule, OptimizerFactory, SchedulerFactory
from mln_lightning.networks import features, find_head, head_of
from mln_lightning.ridge import ridge


class DMLP(NoisyLabelModule):
    """Decoupled Meta Label Purifier (Tu et al., CVPR 2023), with a linear purifier.

    After the warm-up the network is frozen as the encoder, and a linear layer φ on its features is
    trained so that a ridge regression on φ's soft labels is right about the meta set. The inner
    problem has a closed form, so the meta gradient is an ordinary one. Then the network goes on
    with the purified labels, a row for each sample.

    Args:
        network: see `NoisyLabelModule`; its last linear layer is the head.
        num_classes: C.
        optimizer: see `NoisyLabelModule`.
        meta_optimizer: parameters → optimiser of φ.
        scheduler: see `NoisyLabelModule`.
        warmup_epochs: at least 0; the features are as good as the warm-up makes them.
        purify_steps: steps of ``meta_optimizer``, at least 0.
        purify_batch: training samples in each of these steps, at least 1; all of them if there are
            no more.
        ridge_penalty: λ, positive, for each sample; against overfitting the meta set.
        head: dotted name of the network's last linear layer; None finds it.

    Raises:
        ValueError: an argument is out of range, or the head is not found.
    """

    uses_unlabelled = True  # observed labels are in no loss after the warm-up

    purified: Tensor

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        optimizer: OptimizerFactory,
        meta_optimizer: OptimizerFactory,
        *,
        scheduler: SchedulerFactory | None = None,
        warmup_epochs: int = 8,
        purify_steps: int = 100,
        purify_batch: int = 7000,
        ridge_penalty: float = 1.0,
        head: str | None = None,
    ) -> None:
        super().__init__(
            network, num_classes, optimizer, scheduler=scheduler, warmup_epochs=warmup_epochs
        )
        if purify_steps < 0:
            raise ValueError(f"purify_steps must be 0 or more, got {purify_steps}.")
        if purify_batch < 1:
            raise ValueError(f"purify_batch must be at least 1, got {purify_batch}.")
        if not ridge_penalty > 0:
            raise ValueError(f"ridge_penalty must be positive, got {ridge_penalty}.")
        self.purify_steps = purify_steps
        self.purify_batch = purify_batch
        self.ridge_penalty = ridge_penalty
        self.head = find_head(network, head)
        self._meta_optimizer = meta_optimizer
        # Present from the start, so that checkpoints have the same keys in every epoch.
        self.encoder = copy.deepcopy(network).requires_grad_(False).eval()
        self.generator = LabelGenerator(head_of(network, self.head).in_features, num_classes)

    def prepare(self, labels: Tensor) -> None:
        """Table of purified labels, zeros until the warm-up ends."""
        self.register_buffer("purified", torch.zeros(len(labels), self.num_classes))

    def on_warmup_end(self) -> None:
        """The box: encode once, train φ through the closed form, write down its labels."""
        self.encoder.load_state_dict(self.network.state_dict())
        self.generator.start_from(head_of(self.network, self.head))
        parts = self.data.parts
        train, meta = self._encoded(parts.train), self._encoded(parts.meta)
        labels = one_hot(parts.meta.labels, self.num_classes).to(meta)
        optimizer = self._meta_optimizer(self.generator.parameters())
        with torch.autocast(self.device.type, enabled=False):  # a closed form needs all its digits
            for rows in self._purify_batches(len(train)):
                optimizer.zero_grad()
                torch.autograd.backward(self.meta_loss(train[rows], meta, labels))
                optimizer.step()
            soft = self.generator(train).detach().exp()
        self.purified[parts.train.index.to(self.device)] = soft.to(self.purified)

    def meta_loss(self, train: Tensor, meta: Tensor, labels: Tensor) -> Tensor:
        """L(φ) = mean (F_meta W*(φ) − label)², W*(φ) = (FᵀF/n + λI)⁻¹ FᵀY(φ)/n.

        Args:
            train: F, ``(n, F)`` features of training samples.
            meta: F_meta, ``(m, F)`` features of the meta set.
            labels: ``(m, C)`` one-hot trusted labels.
        """
        weights = ridge(train, self.generator(train).exp(), self.ridge_penalty)
        return mse_loss(meta @ weights, labels)

    def noisy_step(self, batch: TrainBatch) -> StepOutput:
        """θ ← θ − lr · ∂θ cross_entropy(network(x), purified label)."""
        train = batch["train"]
        soft = self.purified[train.index]
        logits = self.network(train.images)
        loss = cross_entropy(logits, soft)
        self.descend(loss)
        return {"loss": loss.detach(), "logits": logits.detach(), "soft_labels": soft}

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """``(B, K, H, W)`` → frozen features ``(B, F)``, the input of the encoder's head."""
        return features(self.encoder, self.head, images)

    @torch.no_grad()
    def soft_labels(self, images: Tensor) -> Tensor:
        """``(B, K, H, W)`` → soft labels ``(B, C)`` of the purifier, probabilities."""
        soft: Tensor = self.generator(self.encode(images)).exp()
        return soft

    def _encoded(self, part: Part) -> Tensor:
        """Features ``(n, F)`` of a set in the order of its rows."""
        images = self.data.images_of(part, self.device)
        return torch.cat([self.encode(x).to(self.dtype) for x in images])

    def _purify_batches(self, size: int) -> Iterator[Tensor]:
        """Rows of every step: the training part in random order, over and over in equal parts."""
        order = torch.randperm(size, generator=self.draws())
        parts = order.tensor_split(math.ceil(size / self.purify_batch))
        return (parts[step % len(parts)] for step in range(self.purify_steps))
