"""What all meta-learning methods share: meta parameters and the meta step."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mln_lightning import processes
from mln_lightning.batch import Batch, StepOutput, TrainBatch
from mln_lightning.meta import (
    COMPILER,
    Backend,
    Buffers,
    MetaStep,
    Params,
    along,
    compile_stateless,
    copies,
    meta_step,
    plain_step,
    stateless,
)
from mln_lightning.models.base import NoisyLabelModule, OptimizerFactory, SchedulerFactory
from mln_lightning.models.loss_scale import loss_scale, refuse_overflow, unscaled


class MetaModule(NoisyLabelModule, ABC):
    """Adds meta parameters φ and their gradient from the clean meta batch.

    Args:
        network: see `NoisyLabelModule`.
        num_classes: see `NoisyLabelModule`.
        optimizer: see `NoisyLabelModule`.
        meta_optimizer: parameters → optimiser of φ (the paper's step size β is its rate); None for
            a method that has its own way of using the meta gradient.
        scheduler: see `NoisyLabelModule`.
        warmup_epochs: see `NoisyLabelModule`.
        virtual_lr: size of the virtual step (the paper's α), at least 0, or ``current``, the
            present learning rate of the network. The size of the meta gradient is proportional
            to it.
        meta_backend: how the meta gradient is computed; see `mln_lightning.meta.meta_step`.
        meta_buffers: ``copy`` keeps the meta batch out of the network's batch-norm statistics,
            ``share`` lets it in, as the published code does.
        meta_every: k, at least 1: φ moves only in those steps whose ``global_step`` is a multiple
            of k; the others use it as it is.
        lean_memory: let the training batch's graph go before the meta loss and make it anew after
            it; see ``lean`` of `mln_lightning.meta.meta_step`.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        optimizer: OptimizerFactory,
        meta_optimizer: OptimizerFactory | None = None,
        *,
        scheduler: SchedulerFactory | None = None,
        warmup_epochs: int = 0,
        virtual_lr: float | Literal["current"] = 1.0,
        meta_backend: Backend = "jvp",
        meta_buffers: Buffers = "copy",
        meta_every: int = 1,
        lean_memory: bool = False,
    ) -> None:
        super().__init__(
            network, num_classes, optimizer, scheduler=scheduler, warmup_epochs=warmup_epochs
        )
        if virtual_lr != "current" and not (
            isinstance(virtual_lr, int | float) and virtual_lr >= 0
        ):
            raise ValueError(f"virtual_lr must be 0 or more, or 'current', got {virtual_lr!r}.")
        if meta_backend not in get_args(Backend):
            raise ValueError(
                f"meta_backend must be one of {', '.join(get_args(Backend))}, got {meta_backend!r}."
            )
        if meta_every < 1:
            raise ValueError(f"meta_every must be at least 1, got {meta_every}.")
        self.virtual_lr = virtual_lr
        self.meta_every = meta_every
        self.lean_memory = lean_memory
        self.meta_backend: Backend = meta_backend
        # Kept, because they remember what the network cannot do.
        self._at_theta = stateless(network, buffers="share")
        self._at_virtual = stateless(network, buffers=meta_buffers)
        self._meta_optimizer = meta_optimizer

    def compile_pieces(self, batch: TrainBatch, backend: str = COMPILER) -> None:
        """The network, and the derivative of its logits for ``meta_backend="jvp"``."""
        if self.meta_backend == "jvp":
            images, meta_images = batch["train"].images, batch["meta"].images
            compile_stateless(self._at_theta, images, meta_images, backend)
        else:
            super().compile_pieces(batch, backend)

    def meta_parameters(self) -> Iterable[nn.Parameter]:
        """The parameters φ that the meta optimiser updates; none by default."""
        return ()

    def configure_optimizers(self) -> tuple[list[Optimizer], list[LRScheduler]]:
        """The network's optimiser and schedule, then the meta optimiser if there is one."""
        optimizers, schedules = super().configure_optimizers()
        if self._meta_optimizer is not None:
            optimizers.append(self._meta_optimizer(self.meta_parameters()))
        return optimizers, schedules

    def meta_step(
        self,
        images: Tensor,
        head_loss: Callable[[Tensor], Tensor],
        meta: Batch,
        *,
        direct: Tensor | None = None,
        student_first: bool = False,
    ) -> MetaStep:
        """One step of the meta optimiser on `meta_parameters`; see `meta_gradient`.

        Where ``meta_every`` leaves it out, the training forward alone: a `plain_step`.

        Args:
            images: ``(B, K, H, W)`` of the training batch.
            head_loss: logits ``(B, C)`` ↦ training loss ``()``, closing over φ.
            meta: clean batch; its size may differ.
            direct: ``()`` term of the meta objective that depends on φ itself, not through θ'.
            student_first: see `meta_gradient`.

        Returns:
            The step; ``grads`` are those of the meta loss alone.
        """
        if self.global_step % self.meta_every:
            return plain_step(self._at_theta, dict(self.network.named_parameters()), images)
        wrt = tuple(self.meta_parameters())
        # First, because the meta gradient frees the graph that both may share.
        own = None
        if direct is not None:
            own = torch.autograd.grad(self.part_of_batch(direct), wrt, retain_graph=True)
        step = self._meta_gradient(images, head_loss, meta, wrt, student_first)
        grads = step.grads if own is None else torch._foreach_add(step.grads, own)
        found = processes.totals([*grads, *(() if own is None else step.grads)])
        step = step._replace(grads=tuple(found[-len(wrt) :]))
        self._record_norm(step.grads)
        for parameter, grad in zip(wrt, found[: len(wrt)], strict=True):
            parameter.grad = grad
        # The raw optimiser: a step of Lightning's wrapper would count as a batch.
        self.trainer.optimizers[1].step()
        return step

    def meta_gradient(
        self,
        images: Tensor,
        head_loss: Callable[[Tensor], Tensor],
        meta: Batch,
        wrt: Sequence[Tensor],
        *,
        student_first: bool = False,
    ) -> MetaStep:
        """How the meta loss after the virtual step changes with φ; see `mln_lightning.meta`.

        Args:
            images: ``(B, K, H, W)`` of the training batch.
            head_loss: logits ``(B, C)`` ↦ training loss ``()``, closing over φ.
            meta: clean batch; its size may differ.
            wrt: φ, tensors that require grad and belong to this process's samples; one that all
                processes share is for `meta_step`.
            student_first: the virtual step is the main optimiser's real step on ``head_loss``,
                taken here; θ' then is the network. Needs ``virtual_lr="current"`` and SGD without
                Nesterov momentum or dampening, whose step moves by −lr times the gradient.

        Returns:
            The step, whose ``logits`` the conventional loss reuses; without their graph if the
            network has moved.
        """
        step = self._meta_gradient(images, head_loss, meta, wrt, student_first)
        self._record_norm(
            [processes.total(torch.stack([g.square().sum() for g in step.grads])).sum().sqrt()]
        )
        return step

    def _meta_gradient(
        self,
        images: Tensor,
        head_loss: Callable[[Tensor], Tensor],
        meta: Batch,
        wrt: Sequence[Tensor],
        student_first: bool,
    ) -> MetaStep:
        self._network_optimizer().zero_grad()  # memory: the last step's gradients have been used
        params: Params = dict(self.network.named_parameters())
        update = None
        if student_first:
            # Copies: the tangent is taken at θ, which the real step overwrites.
            moving = {name: p.requires_grad for name, p in params.items()}
            params = {name: p.requires_grad_(moving[name]) for name, p in copies(params).items()}
            update = self._student_step
        mean: list[Tensor] = []

        def clean_loss(params: Params) -> Tensor:
            loss = cross_entropy(self._at_virtual(params, meta.images), meta.labels)
            mean.append(loss.detach())  # with its graph it would keep θ' in memory
            return loss * self.shared.meta_share

        step = meta_step(
            self._at_theta,
            params,
            images,
            lambda logits: self.part_of_batch(head_loss(logits)),
            clean_loss,
            wrt,
            lr=self.virtual_step_size(),
            backend=self.meta_backend,
            update=update,
            reduce=processes.totals,
            graph=not student_first,
            lean=self.lean_memory,
            scale=loss_scale(self),
        )
        refuse_overflow(self, step.grads)
        return step._replace(meta_loss=mean[0])

    def _record_norm(self, grads: Sequence[Tensor]) -> None:
        norm = torch.stack(torch._foreach_norm(list(grads))).norm()
        self.epoch_means.update("meta/grad_norm", norm)

    def _student_step(self, grads: Mapping[str, Tensor]) -> Params:
        """The main optimiser's step with these gradients by name; all parameters after it."""
        parameters = dict(self.network.named_parameters())
        optimizer = self._network_optimizer()
        optimizer.zero_grad()
        for name, grad in grads.items():
            parameters[name].grad = grad
        refuse_overflow(self, grads.values())
        with unscaled(self):
            optimizer.step()
        optimizer.zero_grad()  # memory for the meta loss
        return {name: p.detach() for name, p in parameters.items()}

    def virtual_step_size(self) -> float:
        """α as a number."""
        if self.virtual_lr == "current":
            return float(self._network_optimizer().param_groups[0]["lr"])
        return float(self.virtual_lr)

    def along(self, grads: Mapping[str, Tensor]) -> Tensor:
        """A loss ``()`` of value 0 with gradient v: lets `descend` add a gradient that is known.

        Args:
            grads: v by the parameters' names, such as `MetaStep.virtual_grads`; used up.
        """
        return along(dict(self.network.named_parameters()), grads)

    @staticmethod
    def report(
        step: MetaStep, loss: Tensor | None, soft_labels: Tensor | None = None
    ) -> StepOutput:
        """What a training step reports.

        Args:
            step: its `meta_step`.
            loss: ``()`` conventional loss; None = there was nothing to learn from.
            soft_labels: ``(B, C)`` probabilities it trained on; None = the observed labels.
        """
        output: StepOutput = {"logits": step.logits.detach()}
        if loss is not None:
            output["loss"] = loss.detach()
        if soft_labels is not None:
            output["soft_labels"] = soft_labels.detach()
        if step.meta_loss is not None:
            output["meta_loss"] = step.meta_loss
        return output


def moves_by_lr(optimizer: Optimizer) -> bool:
    """Whether the derivative of a step in the gradient is −lr, as ``student_first`` needs it."""
    return isinstance(optimizer, SGD) and not any(
        group[option]
        for group in optimizer.param_groups
        for option in ("nesterov", "dampening", "maximize")
    )
