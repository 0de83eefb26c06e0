"""What all meta-learning methods share: meta parameters and the meta step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mln_lightning.batch import Batch
from mln_lightning.meta import Backend, Buffers, MetaStep, meta_step, stateless
from mln_lightning.models.base import NoisyLabelModule, OptimizerFactory, SchedulerFactory


class MetaModule(NoisyLabelModule, ABC):
    """Adds meta parameters φ and their update from the clean meta batch.

    Args:
        network: see `NoisyLabelModule`.
        num_classes: see `NoisyLabelModule`.
        optimizer: see `NoisyLabelModule`.
        meta_optimizer: parameters → optimiser of φ (the paper's step size β is its rate).
        scheduler: see `NoisyLabelModule`.
        warmup_epochs: see `NoisyLabelModule`.
        virtual_lr: size of the virtual step (the paper's α), at least 0. The size of the meta
            gradient is proportional to it.
        meta_backend: how the meta gradient is computed; see `mln_lightning.meta.meta_step`.
        meta_buffers: ``copy`` keeps the meta batch out of the network's batch-norm statistics,
            ``share`` lets it in, as the published code does.

    Raises:
        ValueError: an argument is out of range.
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
        virtual_lr: float = 1.0,
        meta_backend: Backend = "jvp",
        meta_buffers: Buffers = "copy",
    ) -> None:
        super().__init__(
            network, num_classes, optimizer, scheduler=scheduler, warmup_epochs=warmup_epochs
        )
        if virtual_lr < 0:
            raise ValueError(f"virtual_lr must be 0 or more, got {virtual_lr}.")
        if meta_backend not in get_args(Backend):
            raise ValueError(
                f"meta_backend must be one of {', '.join(get_args(Backend))}, got {meta_backend!r}."
            )
        self.virtual_lr = virtual_lr
        self.meta_backend: Backend = meta_backend
        # Kept, because they remember what the network cannot do.
        self._at_theta = stateless(network, buffers="share")
        self._at_virtual = stateless(network, buffers=meta_buffers)
        self._meta_optimizer = meta_optimizer

    @abstractmethod
    def meta_parameters(self) -> Iterable[nn.Parameter]:
        """The parameters φ that the meta gradient updates."""

    def configure_optimizers(self) -> tuple[list[Optimizer], list[LRScheduler]]:
        """The network's optimiser and schedule, then the meta optimiser."""
        optimizers, schedules = super().configure_optimizers()
        return [*optimizers, self._meta_optimizer(self.meta_parameters())], schedules

    def meta_step(
        self, images: Tensor, head_loss: Callable[[Tensor], Tensor], meta: Batch
    ) -> MetaStep:
        """One step of the meta optimiser on φ; see `mln_lightning.meta.meta_step`.

        Args:
            images: ``(B, K, H, W)`` of the training batch.
            head_loss: logits ``(B, C)`` ↦ training loss ``()``, closing over φ.
            meta: clean batch; its size may differ.

        Returns:
            The step, whose ``logits`` the conventional loss reuses.
        """
        wrt = tuple(self.meta_parameters())
        step = meta_step(
            self._at_theta,
            dict(self.network.named_parameters()),
            images,
            head_loss,
            lambda params: cross_entropy(self._at_virtual(params, meta.images), meta.labels),
            wrt,
            lr=self.virtual_lr,
            backend=self.meta_backend,
        )
        for parameter, grad in zip(wrt, step.grads, strict=True):
            parameter.grad = grad
        # The raw optimiser: a step of Lightning's wrapper would count as a batch.
        self.trainer.optimizers[1].step()
        self._epoch_mean("meta/grad_norm").update(
            torch.stack([g.norm() for g in step.grads]).norm()
        )
        return step
