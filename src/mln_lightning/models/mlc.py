"""MLC: a network corrects each label by features and label (Zheng et al., AAAI 2021)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mln_lightning.batch import StepOutput, TrainBatch
from mln_lightning.correctors import LabelCorrector
from mln_lightning.meta import Backend, Buffers
from mln_lightning.models.base import OptimizerFactory, SchedulerFactory
from mln_lightning.models.meta_module import MetaModule
from mln_lightning.networks import find_head, head_of, next_features


class MLC(MetaModule):
    """Meta label correction: φ is a network from features and observed label to a soft label.

    Zheng, Awadallah & Dumais, AAAI 2021, with a look-back of one step (k = 1). The features are
    those of the present network, detached, taken from the forward that the step makes anyway.

    Args:
        network: see `NoisyLabelModule`; its last linear layer is the head.
        num_classes: C.
        optimizer: see `NoisyLabelModule`.
        meta_optimizer: parameters → optimiser of the label corrector.
        scheduler: see `NoisyLabelModule`.
        warmup_epochs: at least 0.
        virtual_lr: size of the virtual step; the published code takes ``current``, with which
            short runs may end at chance.
        skip: whether the label corrector mixes the observed label in; see `LabelCorrector`. Without
            it the first soft labels mean nothing, and a warmed-up network forgets.
        head: dotted name of the network's last linear layer; None finds it.
        meta_backend: see `MetaModule`.
        meta_buffers: see `MetaModule`.
        meta_every: see `MetaModule`.
        lean_memory: see `MetaModule`.

    Raises:
        ValueError: an argument is out of range, or the head is not found.
    """

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        optimizer: OptimizerFactory,
        meta_optimizer: OptimizerFactory,
        *,
        scheduler: SchedulerFactory | None = None,
        warmup_epochs: int = 0,
        virtual_lr: float | Literal["current"] = 1.0,
        skip: bool = True,
        head: str | None = None,
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
        self.head = find_head(network, head)
        self.corrector = LabelCorrector(
            head_of(network, self.head).in_features, num_classes, skip=skip
        )

    def noisy_step(self, batch: TrainBatch) -> StepOutput:
        """Virtual update on corrected labels, meta loss, update of φ, conventional update."""
        train, meta = batch["train"], batch["meta"]
        with next_features(self.network, self.head) as seen:

            def corrected() -> Tensor:
                soft: Tensor = self.corrector(seen[0].detach(), train.labels)
                return soft

            step = self.meta_step(  # θ' = θ − α ∂θ CE(p, ŷ_φ);  φ ← φ − β ∂φ L_meta(θ')
                train.images, lambda logits: cross_entropy(logits, corrected()), meta
            )
        soft = corrected().detach()  # with the updated φ
        loss = cross_entropy(step.logits, soft)
        self.descend(loss)
        return self.report(step, loss, soft)

    def meta_parameters(self) -> Iterable[nn.Parameter]:
        """Those of the label corrector."""
        return self.corrector.parameters()
