"""FLOPs and live memory of a training step."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.live_memory import LiveMemory
from benchmarks.steps import Data

Step = Callable[[Data], Any]


def count_flops(step: Step, data: Data) -> int:
    """Multiply-adds, times two, of convolutions and matrix products in one step."""
    with FlopCounterMode(display=False) as counter:
        step(data)
    return counter.get_total_flops()


def count_memory(step: Step, data: Data) -> int:
    """Peak bytes alive in one step; parameters, optimiser state, gradients and data included."""
    step(data)  # optimisers make their state in the first step
    gc.collect()
    with LiveMemory([*data.tensors(), *_owned(step)]) as memory:
        step(data)
    return memory.peak


def _owned(step: Step) -> Iterator[Tensor]:
    for part in vars(step).values():
        if isinstance(part, nn.Module):
            for parameter in part.parameters():
                yield parameter
                if parameter.grad is not None:
                    yield parameter.grad
            yield from part.buffers()
        elif isinstance(part, torch.optim.Optimizer):
            for state in part.state.values():
                yield from (value for value in state.values() if isinstance(value, Tensor))
