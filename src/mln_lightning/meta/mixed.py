"""Mixed precision within a meta step: values in full precision, products of derivatives in half.

In bfloat16 the output of a layer is off by up to 0.4 %. That carries some outputs over the kink of
a ReLU, or to another place in a max-pool, and there the derivative is not off by 0.4 % but another
one. Products of derivatives have no kinks, and what they are off by stays small. So the forward
passes keep float32; the rest, four fifths of a meta step, is done in half precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

BILINEAR: frozenset[Callable[..., Any]] = frozenset(
    {torch.conv1d, torch.conv2d, torch.conv3d, linear}
)
"""Functions of (input, weight, bias, …), linear in the input and in the weight."""


def half_type(device: torch.device) -> torch.dtype | None:
    """What autocast casts to on that kind of device; None where it is off."""
    if not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)


@contextmanager
def full_values(device: torch.device) -> Iterator[None]:
    """Under autocast, networks called inside compute their values in the parameters' precision.

    Convolutions and linear layers still pull gradients back in autocast's type, and
    `sharing.Replayer` pushes tangents forward in it. What is inside ``nn.MultiheadAttention`` is
    out of reach: it keeps full precision throughout. Without autocast nothing changes.
    """
    half = half_type(device)
    if half is None:
        yield
        return
    with torch.autocast(device.type, enabled=False), _FullValues(half):
        yield


class _FullValues(TorchFunctionMode):
    def __init__(self, half: torch.dtype) -> None:
        super().__init__()
        self.half = half

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run the function; a bilinear layer with a backward pass in half precision."""
        simple = func in BILINEAR and not kwargs and not any(isinstance(a, str) for a in args)
        if not simple or not torch.is_grad_enabled():
            return func(*args, **(kwargs or {}))
        value, weight, *rest = args
        bias = rest[0] if rest else None
        return _Layer.apply(func, self.half, value, weight, bias, *rest[1:])


class _Layer(torch.autograd.Function):
    """A bilinear layer whose backward pass is one of half precision; differentiable twice."""

    @staticmethod
    def forward(
        ctx: Any,
        function: Callable[..., Tensor],
        half: torch.dtype,
        value: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        *options: Any,
    ) -> Tensor:
        # As they are, not in half precision: the activation before keeps the same tensor.
        ctx.save_for_backward(value, weight)
        ctx.function, ctx.half, ctx.options = function, half, options
        return function(value, weight, bias, *options)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        value, weight = ctx.saved_tensors
        operands = grad.to(ctx.half), value.to(ctx.half), weight.to(ctx.half)
        needed = ctx.needs_input_grad[2:5]
        back = _linear_back if ctx.function is linear else _convolution_back
        to_value, to_weight = back(*operands, needed, *ctx.options)
        to_bias = None
        if needed[2]:
            channels = grad.dim() - 1 if ctx.function is linear else 1
            to_bias = grad.sum([d for d in range(grad.dim()) if d != channels])
        return (
            None,
            None,
            None if to_value is None else to_value.to(value.dtype),
            None if to_weight is None else to_weight.to(weight.dtype),
            to_bias,
            *[None] * len(ctx.options),
        )


def _linear_back(
    grad: Tensor, value: Tensor, weight: Tensor, needed: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None]:
    rows = grad.reshape(-1, grad.shape[-1])
    return (
        grad @ weight if needed[0] else None,
        rows.T @ value.reshape(-1, value.shape[-1]) if needed[1] else None,
    )


def _convolution_back(
    grad: Tensor,
    value: Tensor,
    weight: Tensor,
    needed: tuple[bool, ...],
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> tuple[Tensor | None, Tensor | None]:
    axes = weight.dim() - 2

    def by_axis(option: Any) -> list[int]:
        return [option] * axes if isinstance(option, int) else list(option)

    to_value, to_weight, _ = torch.ops.aten.convolution_backward(
        grad,
        value,
        weight,
        None,
        by_axis(stride),
        by_axis(padding),
        by_axis(dilation),
        False,
        [0] * axes,
        groups,
        [needed[0], needed[1], False],
    )
    return to_value, to_weight
