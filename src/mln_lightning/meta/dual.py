"""Typed access to torch's dual numbers: a value and its derivative in one tensor."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor
from torch.autograd import forward_ad


@contextmanager
def level() -> Iterator[None]:
    """The scope in which dual tensors may exist."""
    prepare()
    with forward_ad.dual_level():
        yield


@cache
def prepare() -> None:
    """Make a first dual tensor quietly: torch then scripts some rules with a deprecated function.

    Once only, because changing the warning filters makes other warnings appear again.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.script", category=Warning)
        with forward_ad.dual_level():
            join(torch.zeros(()), torch.zeros(()))


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
