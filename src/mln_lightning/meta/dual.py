"""Typed access to torch's dual numbers: a value and its derivative in one tensor."""

from __future__ import annotations

from torch import Tensor
from torch.autograd import forward_ad


def join(value: Tensor, tangent: Tensor | None) -> Tensor:
    """A dual tensor, or the plain value where there is no tangent."""
    if tangent is None:
        return value
    joined: Tensor = forward_ad.make_dual(value, tangent)  # type: ignore[no-untyped-call]
    return joined


def split(tensor: Tensor) -> tuple[Tensor, Tensor | None]:
    """Value and tangent; None for a tensor that does not depend on what is moved."""
    value, tangent = forward_ad.unpack_dual(tensor)  # type: ignore[no-untyped-call]
    return value, tangent
