"""Sparse over-parameterisation (Liu, Zhu, Qu & You, ICML 2022)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from mln_lightning.batch import StepOutput, TrainBatch
from mln_lightning.models.base import NoisyLabelModule, OptimizerFactory, SchedulerFactory

_FLOOR = 1e-4  # of a corrected probability, before they are made to sum to one


class SOP(NoisyLabelModule):
    """Every sample has its own label noise s, learnt beside the network.

    s = u² ⊙ y − v² ⊙ (1 − y) with y the one-hot observed label. From a tiny start, gradient
    descent on such squares keeps s sparse, so that it takes up wrong labels and little else. The
    network and u minimise the cross-entropy of p + s, v the squared error of the predicted class
    plus s. This is SOP; SOP+ adds consistency and class-balance terms.

    Args:
        network: see `NoisyLabelModule`.
        num_classes: C.
        optimizer: see `NoisyLabelModule`; of the network alone.
        scheduler: see `NoisyLabelModule`.
        warmup_epochs: see `NoisyLabelModule`; u and v rest meanwhile.
        u_lr: constant learning rate of u, at least 0; the losses are means over the batch.
        v_lr: constant learning rate of v, at least 0.
        start: standard deviation of u and v at the start, positive: at zero they would never move.

    Raises:
        ValueError: an argument is out of range.
    """

    u: Tensor
    v: Tensor

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        optimizer: OptimizerFactory,
        *,
        scheduler: SchedulerFactory | None = None,
        warmup_epochs: int = 0,
        u_lr: float = 10.0,
        v_lr: float = 100.0,
        start: float = 1e-8,
    ) -> None:
        super().__init__(
            network, num_classes, optimizer, scheduler=scheduler, warmup_epochs=warmup_epochs
        )
        for name, value in (("u_lr", u_lr), ("v_lr", v_lr)):
            if value < 0:
                raise ValueError(f"{name} must be 0 or more, got {value}.")
        if not start > 0:
            raise ValueError(f"start must be positive, got {start}.")
        self.u_lr = u_lr
        self.v_lr = v_lr
        self.start = start

    def prepare(self, labels: Tensor) -> None:
        """U ``(N, 1)`` and v ``(N, C)``, normal with standard deviation ``start``."""
        draws, rows = self.draws(), len(labels)
        self.register_buffer("u", self.start * torch.randn(rows, 1, generator=draws))
        self.register_buffer("v", self.start * torch.randn(rows, self.num_classes, generator=draws))

    def noisy_step(self, batch: TrainBatch) -> StepOutput:
        """θ and u descend on the cross-entropy of p + s, v on the squared error."""
        train = batch["train"]
        u, v = self.u[train.index].requires_grad_(), self.v[train.index].requires_grad_()
        logits = self.network(train.images)
        label = one_hot(train.labels, self.num_classes).to(u.dtype)
        missing, surplus = u.square() * label, v.square() * (1 - label)  # s = missing − surplus
        p = logits.softmax(dim=1, dtype=u.dtype)
        corrected = (p + missing - surplus.detach()).clamp(min=_FLOOR)
        corrected = corrected / corrected.sum(dim=1, keepdim=True)
        fit = -(label * corrected.log()).sum(dim=1).mean()
        predicted = one_hot(logits.argmax(dim=1), self.num_classes)
        error = (predicted + missing.detach() - surplus - label).square().sum(dim=1).mean()
        # Apart from the network's, which may be scaled for half precision.
        whole = self.part_of_batch(fit + error)
        grad_u, grad_v = torch.autograd.grad(whole, (u, v), retain_graph=True)
        self.descend(fit)
        self._move(self.u, train.index, -self.u_lr * grad_u)
        self._move(self.v, train.index, -self.v_lr * grad_v)
        return {"loss": fit.detach(), "logits": logits.detach()}

    @torch.no_grad()
    def _move(self, table: Tensor, index: Tensor, by: Tensor) -> None:
        """Rows ← rows + ``by``, kept within −1…1: no noise is larger than a whole label."""
        table[index] = (table[index] + by).clamp(-1, 1)
