"""What makes the host wait for a device, noticed on the CPU.

A function mode and no dispatch mode: under the latter some derivatives are rounded otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.overrides import TorchFunctionMode

# The host goes on with the values, or with how many there are.
READ = frozenset(
    {
        *("item", "tolist", "cpu", "numpy", "__array__"),
        *("__bool__", "__float__", "__int__", "__index__"),
        *("nonzero", "masked_select", "unique", "unique_consecutive", "_unique2", "argwhere"),
    }
)
ON_THE_HOST = (  # where numbers are read that never were on a device, by file and function
    ("torch/optim/", ""),  # optimisers count their steps there
    ("mln_lightning/models/base.py", "draws"),
    ("mln_lightning/seeding.py", "beta"),
    ("mln_lightning/data/transfer.py", "view"),  # a check for batches on the CPU
)


class _Watch(TorchFunctionMode):
    def __init__(self, found: set[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in READ and not _on_the_host():
            self.found.add(name)
        # One number for all places of a mask is filled in without asking how many there are.
        taken = name == "__getitem__" or (name == "__setitem__" and isinstance(args[2], Tensor))
        if taken and _has_mask(args[1]):
            self.found.add("a mask")
        if func is torch.where and len(args) == 1:
            self.found.add("where")
        if func is Tensor.to and not kwargs.get("non_blocking") and _names_a_device(args):
            self.found.add("to(device)")
        made = func in (torch.tensor, torch.as_tensor) and not isinstance(args[0], Tensor)
        if made and kwargs.get("device") is not None:
            self.found.add("numbers made on the device")
        return func(*args, **kwargs)


def _has_mask(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, Tensor) and part.dtype == torch.bool for part in parts)


def _names_a_device(args: tuple[Any, ...]) -> bool:
    return any(isinstance(argument, torch.device | str) for argument in args[1:])


def _on_the_host() -> bool:
    frame = sys._getframe()
    while frame is not None:
        code = frame.f_code
        if any(file in code.co_filename and name in code.co_name for file, name in ON_THE_HOST):
            return True
        frame = frame.f_back
    return False


@contextmanager
def waits(found: set[str]) -> Iterator[None]:
    """Adds the name of all that would wait inside."""
    with _Watch(found):
        yield


class Waits(Callback):
    """Notes what would wait in the third step of every epoch, callbacks before this one included.

    The first step of an epoch may look at all the data.
    """

    def __init__(self) -> None:
        self.found: set[str] = set()
        self._step = ExitStack()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 2:
            self._step.enter_context(waits(self.found))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._step.close()
