"""float16: losses are scaled while they are differentiated, and overflowing steps skipped whole.

Small gradients would vanish in float16, and scaled ones may overflow. Lightning's gradient scaler
scales the loss of `descend`, skips a step of the main optimiser whose gradient overflowed, and then
halves its scale. Here the same happens to what else a step does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from mln_lightning import processes
from mln_lightning.batch import StepOutput, TrainBatch

if TYPE_CHECKING:
    from mln_lightning.models.base import NoisyLabelModule


_SMALLEST = 2.0**-10  # of a scale; whatever overflows there is infinite in float32 too


class GradientOverflowError(ArithmeticError):
    """A gradient of this step is not finite in float16, and the step is to be skipped."""


def scaler_of(module: NoisyLabelModule) -> GradScaler | None:
    """Lightning's gradient scaler; None in other precisions and without a trainer."""
    trainer = module._trainer
    plugin = None if trainer is None else trainer.precision_plugin
    return plugin.scaler if isinstance(plugin, MixedPrecision) else None


def loss_scale(module: NoisyLabelModule) -> float:
    """Factor on a loss that is differentiated apart from `descend`; to be divided out again."""
    scaler = scaler_of(module)
    return 1.0 if scaler is None else scaler.get_scale()


def refuse_overflow(module: NoisyLabelModule, grads: Iterable[Tensor]) -> None:
    """Skip the step if one of the gradients is not finite; looks only where there is a scaler.

    Raises:
        GradientOverflowError: in all processes, if in one of them.
    """
    if scaler_of(module) is None:
        return
    length = torch.stack(torch._foreach_norm(list(grads))).sum()
    if processes.largest((~torch.isfinite(length)).float()) > 0:
        raise GradientOverflowError


def stepped(module: NoisyLabelModule, step: Callable[[], object]) -> None:
    """Let the main optimiser step on gradients that Lightning scaled.

    Raises:
        GradientOverflowError: the scaler has skipped the step, and lowered the scale.
    """
    before = loss_scale(module)
    step()
    if loss_scale(module) < before:
        raise GradientOverflowError


@contextmanager
def unscaled(module: NoisyLabelModule) -> Iterator[None]:
    """The main optimiser steps on the gradients as they are, even if there are none."""
    scaler = scaler_of(module)
    if scaler is None:
        yield
        return
    plugin = module.trainer.precision_plugin
    assert isinstance(plugin, MixedPrecision)
    plugin.scaler = None
    try:
        yield
    finally:
        plugin.scaler = scaler


def attempt(
    module: NoisyLabelModule, step: Callable[[TrainBatch], StepOutput], batch: TrainBatch
) -> StepOutput:
    """A step, or nothing at all if a gradient overflows: the step is counted and leaves no trace.

    The output then is empty, the scale is halved, and ``train/skipped_steps`` counts it.

    Raises:
        ValueError: steps overflow at any scale.
    """
    scaler = scaler_of(module)
    if scaler is None:
        return step(batch)
    before, scale, counted = _State(module, batch), scaler.get_scale(), module.global_step
    skipped = torch.zeros((), device=module.device)
    try:
        output = step(batch)
    except GradientOverflowError:
        if scale < _SMALLEST:
            raise ValueError(
                f"Gradients overflow float16 even with a loss scale of {scale}: the loss is not "
                "finite; lower a learning rate, or use precision=bf16-mixed."
            ) from None
        output = StepOutput()
        before.restore()
        skipped += 1
        if scaler.get_scale() == scale:
            scaler.scale(skipped)  # it may not have started yet
            scaler.update(scale * scaler.get_backoff_factor())
        if module.global_step == counted:
            module._no_step()
    module.epoch_means.update("train/skipped_steps", skipped)
    return output


class _State:
    """What a step may change before its last gradient is known."""

    def __init__(self, module: NoisyLabelModule, batch: TrainBatch) -> None:
        self.index = batch["train"].index
        tables = module.shared.tables
        self.rows = [(t, t[self.index].clone()) for t in map(module.get_buffer, tables)]
        self.tensors = [(b, b.clone()) for name, b in module.named_buffers() if name not in tables]
        self.optimizers = [
            (o, copy.deepcopy(o.state_dict())) for o in module.trainer.optimizers[1:]
        ]
        for optimizer, _ in self.optimizers:
            for group in optimizer.param_groups:
                self.tensors += [(p, p.detach().clone()) for p in group["params"]]

    @torch.no_grad()
    def restore(self) -> None:
        for table, rows in self.rows:
            table[self.index] = rows
        for tensor, value in self.tensors:
            tensor.copy_(value)
        for optimizer, state in self.optimizers:
            optimizer.load_state_dict(state)
