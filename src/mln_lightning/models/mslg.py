"""MSLG: label logits of every sample, moved by the meta gradient (Algan & Ulusoy, ICPR 2020)."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn

from mln_lightning.batch import StepOutput, TrainBatch
from mln_lightning.labels import LabelTable
from mln_lightning.losses import Reduction, entropy, reverse_kl
from mln_lightning.meta import Backend, Buffers
from mln_lightning.models.base import OptimizerFactory, SchedulerFactory
from mln_lightning.models.meta_module import MetaModule


class MSLG(MetaModule):
    """Meta soft label generation: φ are the label logits of the batch, rows of a label table.

    Algan & Ulusoy, ICPR 2020. The paper's α is ``virtual_lr``, its β ``label_lr``, its γ
    ``entropy_weight``, its K ``sharpness``. Each sample's row moves once an epoch.

    Args:
        network: see `NoisyLabelModule`.
        num_classes: C.
        optimizer: see `NoisyLabelModule`.
        scheduler: see `NoisyLabelModule`.
        warmup_epochs: at least 0.
        virtual_lr: size of the virtual step; acts together with ``reduction``.
        label_lr: step size of the label logits, at least 0. The gradient of a row is
            proportional to virtual_lr / B, and so is what this rate is worth.
        sharpness: the rows start as this number times one-hot of the observed label; positive.
        entropy_weight: weight, at least 0, of the prediction's entropy in the conventional loss.
        reduction: ``batch`` or ``element`` (published code; C times smaller), for both losses.
        meta_backend: see `MetaModule`.
        meta_buffers: see `MetaModule`.
        lean_memory: see `MetaModule`.

    Raises:
        ValueError: an argument is out of range.
    """

    uses_unlabelled = True  # a row that starts uniform is learned like any other

    table: LabelTable

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        optimizer: OptimizerFactory,
        *,
        scheduler: SchedulerFactory | None = None,
        warmup_epochs: int = 1,
        virtual_lr: float | Literal["current"] = 0.5,
        label_lr: float = 400.0,
        sharpness: float = 10.0,
        entropy_weight: float = 1.0,
        reduction: Reduction = "batch",
        meta_backend: Backend = "jvp",
        meta_buffers: Buffers = "copy",
        lean_memory: bool = False,
    ) -> None:
        super().__init__(
            network,
            num_classes,
            optimizer,
            scheduler=scheduler,
            warmup_epochs=warmup_epochs,
            virtual_lr=virtual_lr,
            meta_backend=meta_backend,
            meta_buffers=meta_buffers,
            lean_memory=lean_memory,
        )
        for name, value in (("label_lr", label_lr), ("entropy_weight", entropy_weight)):
            if value < 0:
                raise ValueError(f"{name} must be 0 or more, got {value}.")
        if not sharpness > 0:
            raise ValueError(f"sharpness must be positive, got {sharpness}.")
        if reduction not in get_args(Reduction):
            raise ValueError(
                f"reduction must be one of {', '.join(get_args(Reduction))}, got {reduction!r}."
            )
        self.label_lr = label_lr
        self.sharpness = sharpness
        self.entropy_weight = entropy_weight
        self.reduction: Reduction = reduction

    def prepare(self, labels: Tensor) -> None:
        """Start the label table: K · one-hot of the observed label."""
        self.table = LabelTable(labels, self.num_classes, sharpness=self.sharpness)

    def noisy_step(self, batch: TrainBatch) -> StepOutput:
        """The paper's iteration: virtual update, meta loss, label update, conventional update."""
        train, meta = batch["train"], batch["meta"]
        rows = self.table.rows(train.index)
        step = self.meta_gradient(  # θ' = θ − α ∂θ KL(p ‖ softmax(rows))
            train.images, lambda logits: self._fit(logits, rows.log_softmax(dim=1)), meta, (rows,)
        )
        self.table.descend(train.index, step.grads[0], self.label_lr)  # rows −= β ∂L_meta(θ')
        log_soft = self.table.log_soft(train.index)  # of the updated rows
        loss = self._fit(step.logits, log_soft)
        loss = loss + self.entropy_weight * entropy(step.logits, reduction=self.reduction)
        self.descend(loss)
        return self.report(step, loss, log_soft.exp())

    def _fit(self, logits: Tensor, log_soft: Tensor) -> Tensor:
        return reverse_kl(logits, log_soft, reduction=self.reduction)
