"""MSLC: observed, earlier and present label, mixed by two meta-learned weights (AAAI 2021)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from mln_lightning.batch import UNKNOWN, StepOutput, TrainBatch
from mln_lightning.correctors import MixingShares, mixed
from mln_lightning.meta import Backend, Buffers
from mln_lightning.models.base import OptimizerFactory, SchedulerFactory
from mln_lightning.models.meta_module import MetaModule


class MSLC(MetaModule):
    """Meta soft label corrector: φ are two small nets that weigh three guesses at a label.

    Wu et al., AAAI 2021. The guesses are the observed label, the label that the sample was given
    an epoch ago (during warm-up: the prediction), and the present prediction. The share of the
    observed label depends on the loss of the observed label, the earlier label's share of the rest
    on the loss of the earlier label.

    Args:
        network: see `NoisyLabelModule`.
        num_classes: C.
        optimizer: see `NoisyLabelModule`.
        meta_optimizer: parameters → optimiser of both nets.
        scheduler: see `NoisyLabelModule`.
        warmup_epochs: at least 0. Without any, the earlier label starts as the observed one.
        virtual_lr: size of the virtual step.
        meta_backend: see `MetaModule`.
        meta_buffers: see `MetaModule`.
        meta_every: see `MetaModule`.
        lean_memory: see `MetaModule`.

    Raises:
        ValueError: an argument is out of range.
    """

    earlier: Tensor  # (N, C), the label every sample was given when it was last seen

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        optimizer: OptimizerFactory,
        meta_optimizer: OptimizerFactory,
        *,
        scheduler: SchedulerFactory | None = None,
        warmup_epochs: int = 1,
        virtual_lr: float | Literal["current"] = "current",
        meta_backend: Backend = "jvp",
        meta_buffers: Buffers = "copy",
        meta_every: int = 1,
        lean_memory: bool = False,
    ) -> None:
        super().__init__(
            network,
            num_classes,
            optimizer,
            meta_optimizer,
            scheduler=scheduler,
            warmup_epochs=warmup_epochs,
            virtual_lr=virtual_lr,
            meta_backend=meta_backend,
            meta_buffers=meta_buffers,
            meta_every=meta_every,
            lean_memory=lean_memory,
        )
        self.shares = MixingShares()

    def prepare(self, labels: Tensor) -> None:
        """Start the table of earlier labels with the observed ones; zeros where there is none."""
        known = (labels != UNKNOWN)[:, None]
        start = one_hot(labels.clamp(min=0), self.num_classes) * known
        self.register_buffer("earlier", start.to(torch.float32))

    def noisy_step(self, batch: TrainBatch) -> StepOutput:
        """Virtual update, meta loss, update of the two nets, conventional update, new labels."""
        train, meta = batch["train"], batch["meta"]
        observed = one_hot(train.labels, self.num_classes)
        earlier = self.earlier[train.index]

        def corrected(logits: Tensor) -> Tensor:
            present = logits.detach()
            shares = self.shares(present, train.labels, earlier)
            return mixed(shares, observed, self._class_of(earlier), self._class_of(present))

        step = self.meta_step(  # θ' = θ − α ∂θ CE(p, ŷ_φ);  φ ← φ − β ∂φ L_meta(θ')
            train.images, lambda logits: cross_entropy(logits, corrected(logits)), meta
        )
        soft = corrected(step.logits).detach()  # with the updated φ
        loss = cross_entropy(step.logits, soft)
        with torch.no_grad():
            shares = self.shares(step.logits, train.labels, earlier)
            self._remember(
                train.index, mixed(shares, observed, earlier, step.logits.softmax(dim=1))
            )
        self.descend(loss)
        return self.report(step, loss, soft)

    def _class_of(self, scores: Tensor) -> Tensor:
        return one_hot(scores.argmax(dim=1), self.num_classes)

    def _warmup_step(self, batch: TrainBatch) -> StepOutput:
        output = super()._warmup_step(batch)
        self._remember(batch["train"].index, output["logits"].softmax(dim=1))
        return output

    def _remember(self, index: Tensor, labels: Tensor) -> None:
        self.earlier[index] = labels.to(self.earlier.dtype)

    def meta_parameters(self) -> Iterable[nn.Parameter]:
        """Those of the two nets."""
        return self.shares.parameters()
