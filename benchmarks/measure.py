"""FLOPs and memory of a training step."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.live_memory import LiveMemory
from benchmarks.steps import Step
from mln_lightning.batch import TrainBatch


@dataclass(frozen=True)
class Cost:
    """What was counted of a step.

    Attributes:
        flops: multiply-adds, times two, of convolutions and matrix products; a mean where several
            steps were taken.
        live_bytes: most bytes of tensors alive at once: parameters, optimiser state, gradients,
            both batches, and what the step makes.
    """

    flops: float
    live_bytes: int


def count(step: Step, batch: TrainBatch, steps: int = 1) -> Cost:
    """Cost of a step, the same on every device; on the meta device nothing is computed.

    Args:
        step: newly made; it is taken twice.
        batch: for all runs.
        steps: to take in place of one, where not all are alike.
    """
    with FlopCounterMode(display=False) as counter:
        _repeat(step, batch, steps)
    # Optimisers have made their state in the first step.
    gc.collect()
    with live_memory(step, batch) as memory:
        _repeat(step, batch, steps)
    return Cost(counter.get_total_flops() / steps, memory.peak)


def allocated(step: Step, batch: TrainBatch, held: int) -> int:
    """Most bytes that CUDA's allocator has handed out during a step, the batches apart.

    Args:
        step: newly made; it is taken twice.
        batch: on the device.
        held: bytes that were handed out before the step was made.
    """
    device = batch["train"].images.device
    step(batch)  # libraries choose their algorithms, optimisers make their state
    gc.collect()
    torch.cuda.reset_peak_memory_stats(device)
    step(batch)
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - held


def _repeat(step: Step, batch: TrainBatch, steps: int) -> None:
    for _ in range(steps):
        step(batch)


def live_memory(step: Step, batch: TrainBatch) -> LiveMemory:
    """A meter that knows what is alive between two steps."""
    tensors = [leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)]
    return LiveMemory([*tensors, *_owned(step)])


def _owned(step: Step) -> Iterator[Tensor]:
    for module in step.modules:
        for parameter in module.parameters():
            yield parameter
            if parameter.grad is not None:
                yield parameter.grad
        yield from module.buffers()
    for optimizer in step.optimizers:
        for state in optimizer.state.values():
            yield from (value for value in state.values() if isinstance(value, Tensor))
