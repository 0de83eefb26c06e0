"""Let the forward-mode pass reuse the expensive results of the training forward.

Forward mode computes every value together with its derivative, but at the same parameters and
images the values are those of the training forward. Convolutions and linear layers are bilinear in
(input, weight), so with their values remembered only two products remain for the derivative.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mln_lightning.meta import dual
from mln_lightning.meta.mixed import BILINEAR


class _Call(NamedTuple):
    """One remembered result; ``version`` tells whether it was overwritten since."""

    function: Callable[..., Any]
    weight: int
    output: Tensor
    version: int


class Recorder(TorchFunctionMode):
    """Remembers what the bilinear layers return, in order, while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: deque[_Call] = deque()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run the function and remember its result if it is a bilinear layer."""
        output = func(*args, **(kwargs or {}))
        if func in BILINEAR and len(args) >= 2:
            value = output.detach()
            self.calls.append(_Call(func, args[1].data_ptr(), value, value._version))
        return output


class Replayer(TorchFunctionMode):
    """Gives bilinear layers of a forward-mode pass their remembered results.

    A result is used only for the same layer in the same place and only if nothing overwrote it (an
    in-place activation may have); otherwise the layer is simply computed again. Remembered tensors
    are let go one by one as they are used.

    Args:
        calls: of a `Recorder` that saw the same forward pass.
        half: autocast's type, in which the products of derivatives are taken; None = no autocast.
    """

    def __init__(self, calls: deque[_Call], half: torch.dtype | None) -> None:
        super().__init__()
        self.calls = calls
        self.half = half

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run the function, with a remembered value and a fresh derivative where possible."""
        kwargs = kwargs or {}
        if func not in BILINEAR or len(args) < 2:
            return func(*args, **kwargs)
        value, value_tangent = dual.split(args[0])
        weight, weight_tangent = dual.split(args[1])
        output = self._remembered(func, weight)
        if weight_tangent is None or (output is None and self.half is None):
            return func(*args, **kwargs)
        given = args[2] if len(args) > 2 else kwargs.get("bias")
        bias, bias_tangent = (None, None) if given is None else dual.split(given)
        rest = args[3:]
        options = {name: option for name, option in kwargs.items() if name != "bias"}
        if output is None:
            output = func(value, weight, bias, *rest, **options)
        # Autocast may be off here for the sake of the values, whose type a dual tensor wants for
        # its tangent too. That also keeps batch-norm's forward derivative from seeing two types,
        # at which torch failed on a CPU; by themselves 2.6.0 and 2.15.0 do not mix them.
        kind = value.device.type
        with torch.autocast(kind, dtype=self.half, enabled=self.half is not None):
            tangent = func(value, weight_tangent, bias_tangent, *rest, **options)
            tangent = tangent.to(output.dtype)
            if value_tangent is not None:
                tangent += func(value_tangent, weight, None, *rest, **options)
        return dual.join(output, tangent)

    def _remembered(self, function: Callable[..., Any], weight: Tensor) -> Tensor | None:
        """The next remembered result, if it is that of this layer and nothing overwrote it."""
        if not self.calls:
            return None
        seen = self.calls.popleft()
        same = seen.function is function and seen.weight == weight.data_ptr()
        return seen.output.detach() if same and seen.version == seen.output._version else None
