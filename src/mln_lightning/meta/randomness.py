"""The random state of a forward pass, so that a second pass draws the same dropout masks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor


class RandomState(NamedTuple):
    """State of torch's default generators: the CPU's and, if there is one, the device's."""

    device: torch.device
    cpu: Tensor
    accelerator: Tensor | None


def random_state(device: torch.device) -> RandomState:
    """The state now, for computations on ``device``."""
    accelerator = None
    if device.type not in ("cpu", "meta"):  # nothing is drawn where nothing is computed
        accelerator = torch.get_device_module(device).get_rng_state(device)
    return RandomState(device, torch.get_rng_state(), accelerator)


def restore(state: RandomState) -> None:
    """Put a state back."""
    torch.set_rng_state(state.cpu)
    if state.accelerator is not None:
        torch.get_device_module(state.device).set_rng_state(state.accelerator, state.device)


@contextmanager
def preserved(device: torch.device) -> Iterator[None]:
    """Leave the generators as they were, whatever is drawn inside."""
    before = random_state(device)
    try:
        yield
    finally:
        restore(before)
