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
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

from mln_lightning.meta import dual

_BILINEAR: frozenset[Callable[..., Any]] = frozenset(
    {torch.conv1d, torch.conv2d, torch.conv3d, linear}
)


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
        if func in _BILINEAR and len(args) >= 2:
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
    """

    def __init__(self, calls: deque[_Call]) -> None:
        super().__init__()
        self.calls = calls

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run the function, with a remembered value and a fresh derivative where possible."""
        kwargs = kwargs or {}
        if func not in _BILINEAR or len(args) < 2 or not self.calls:
            return func(*args, **kwargs)
        seen = self.calls.popleft()
        value, value_tangent = dual.split(args[0])
        weight, weight_tangent = dual.split(args[1])
        if (
            seen.function is not func
            or seen.weight != weight.data_ptr()
            or seen.version != seen.output._version
            or weight_tangent is None
        ):
            return func(*args, **kwargs)
        bias, rest = args[2] if len(args) > 2 else kwargs.get("bias"), args[3:]
        options = {name: option for name, option in kwargs.items() if name != "bias"}
        bias_tangent = None if bias is None else dual.split(bias)[1]
        tangent = func(value, weight_tangent, bias_tangent, *rest, **options)
        if value_tangent is not None:
            tangent += func(value_tangent, weight, None, *rest, **options)
        return dual.join(seen.output.detach(), tangent)
