"""What training processes tell each other; on one process nothing is said.

The batch of a step is shared out: each process has some of its samples. A mean over the batch is
the sum of the processes' parts of it, and so are its gradients; every function here therefore sums.
All processes must call each function in the same order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch import distributed as dist


def count() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if count() > 1 else 0


def total(tensor: Tensor) -> Tensor:
    """Sum over the processes, of the tensor's shape; with derivatives of every kind and order.

    The derivative of what *all* processes do with the sum arrives at each process's own part.
    """
    return tensor if count() == 1 else cast(Tensor, _Total.apply(tensor))


class _Total(torch.autograd.Function):
    """Linear and its own transpose, so forward, forward derivative and gradient are one sum."""

    @staticmethod
    def forward(tensor: Tensor) -> Tensor:
        summed = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return total(grad)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return total(tangent)


def totals(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Sum of each tensor over the processes, without derivative; one message for each dtype."""
    if count() == 1:
        return tensors
    summed: list[Tensor] = list(tensors)
    for places in _by_dtype(tensors):
        flat = torch.cat([tensors[place].detach().flatten() for place in places])
        dist.all_reduce(flat)
        parts = torch.split(flat, [tensors[place].numel() for place in places])
        for place, part in zip(places, parts, strict=True):
            tensor, whole = tensors[place], part.view_as(tensors[place])
            # Gradients of convolutions may lie in memory channels last, and stay so.
            same = tensor.is_contiguous()
            summed[place] = whole if same else torch.empty_like(tensor).copy_(whole)
    return summed


def largest(tensor: Tensor) -> Tensor:
    """``()`` largest entry ``>= 0`` of any process; 0 where no process has an entry."""
    here = torch.cat([tensor.detach().flatten(), tensor.new_zeros(1)]).max()
    if count() > 1:
        dist.all_reduce(here, op=dist.ReduceOp.MAX)
    return here


def follow_first(tensors: Iterable[Tensor]) -> None:
    """Overwrite the tensors by those of the first process, in place."""
    if count() == 1:
        return
    states = [tensor.detach() for tensor in tensors if tensor.numel()]
    for places in _by_dtype(states):
        flat = torch.cat([states[place].flatten() for place in places])
        # Also before a model is moved to its GPU and after, where NCCL would not carry it.
        flat = flat.cuda() if dist.get_backend() == "nccl" else flat
        dist.broadcast(flat, 0)
        parts = torch.split(flat, [states[place].numel() for place in places])
        for place, part in zip(places, parts, strict=True):
            states[place].copy_(part.view_as(states[place]))


def _by_dtype(tensors: Sequence[Tensor]) -> Iterable[list[int]]:
    """Places of the tensors of each dtype."""
    places: dict[torch.dtype, list[int]] = defaultdict(list)
    for place, tensor in enumerate(tensors):
        places[tensor.dtype].append(place)
    return places.values()
