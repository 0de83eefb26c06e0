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


def count(step: Step, data: Data) -> tuple[int, int]:
    """FLOPs and peak bytes alive of a training step, which runs twice.

    FLOPs are multiply-adds, times two, of convolutions and matrix products. Bytes include
    parameters, optimiser state, gradients and data.
    """
    with FlopCounterMode(display=False) as counter:
        step(data)
    # Optimisers have made their state in the first step.
    gc.collect()
    with LiveMemory([*data.tensors(), *_owned(step)]) as memory:
        step(data)
    return counter.get_total_flops(), memory.peak


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
