"""What makes the host wait for a device, noticed on the CPU."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.functional import one_hot
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
READ = {  # the size of the result, or what the host does next, depends on the values
    aten._local_scalar_dense.default: "a number read",
    aten.nonzero.default: "nonzero",
    aten.masked_select.default: "masked_select",
    aten._unique2.default: "unique",
    aten.unique_dim.default: "unique",
    aten.repeat_interleave.Tensor: "repeat_interleave",
}
MASKED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)
TO_THE_HOST = (Tensor.cpu, Tensor.tolist, Tensor.numpy)
ON_THE_HOST = (  # where numbers are read that never were on a device, by file and function
    ("torch/optim/", ""),  # optimisers count their steps there
    ("mln_lightning/models/base.py", "draws"),
    ("mln_lightning/seeding.py", "beta"),
    ("mln_lightning/data/transfer.py", "view"),  # a check for batches on the CPU
)


class _Operators(TorchDispatchMode):
    def __init__(self, found: set[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in READ and not _on_the_host():
            self.found.add(READ[func])
        if func in MASKED:
            masked = any(i is not None and i.dtype == torch.bool for i in args[1])
            # One number for all places of a mask is filled in without asking how many there are.
            if masked and (len(args) < 3 or args[2].ndim > 0):
                self.found.add("a selection by a mask")
        return func(*args, **(kwargs or {}))


class _Functions(TorchFunctionMode):
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
        if func in TO_THE_HOST:
            self.found.add(f"{func.__name__}()")
        if func is Tensor.to and not kwargs.get("non_blocking") and _names_a_device(args):
            self.found.add("to(device) that waits")
        made = func in (torch.tensor, torch.as_tensor) and not isinstance(args[0], Tensor)
        if made and kwargs.get("device") is not None:
            self.found.add("numbers made on the device")
        if func is one_hot:  # reads its argument on the CPU only
            with torch._C._DisableTorchDispatch():
                return func(*args, **kwargs)
        return func(*args, **kwargs)


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
    """Adds a word on all that would wait inside."""
    with _Operators(found), _Functions(found):
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
