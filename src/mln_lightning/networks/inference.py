"""A network in eval mode for a while, and one that follows another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from mln_lightning.meta import eagerly


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients inside; every submodule gets its own mode back afterwards."""
    training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad(), eagerly(network):
            yield
    finally:
        for module, mode in training.items():
            module.training = mode


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Average ← decay · average + (1 − decay) · network; buffers of integers are copied.

    Args:
        average: of the same structure as ``network``; changed in place.
        network: followed.
        decay: 0…1; 0 copies.
    """
    target = network.state_dict()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(target[name], 1 - decay)
        else:
            value.copy_(target[name])
