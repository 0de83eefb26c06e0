"""A module as a function of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mln_lightning.meta.mixed import full_values

Params: TypeAlias = Mapping[str, Tensor]
"""Parameters by dotted name, as in ``dict(network.named_parameters())``."""

Buffers = Literal["copy", "share"]
"""What a call does to the module's buffers. ``copy``: nothing, it works on copies. ``share``: what
the module itself does, so batch-norm in train mode updates its running statistics (and its count
of batches) once per call."""


class Stateless:
    """``(parameters, images (B, K, H, W)) → logits (B, C)`` for an unmodified module.

    The module keeps its mode (train or eval) and its own parameters. Build it once per network and
    keep it: it remembers which back ends of the meta gradient the network cannot use, and in
    ``tangent`` the compiled one, see `compile_stateless`: parameters, direction (by name, for the
    parameters that move), buffers, images ↦ directional derivative ``(B, C)`` of the logits.

    Args:
        network: any module that maps images to logits.
        buffers: see `Buffers`.

    Raises:
        ValueError: ``buffers`` is neither.
    """

    def __init__(self, network: nn.Module, buffers: Buffers = "copy") -> None:
        if buffers not in ("copy", "share"):
            raise ValueError(f"buffers must be 'copy' or 'share', got {buffers!r}.")
        self.network = network
        self.buffers: Buffers = buffers
        self.unsupported: set[str] = set()
        self.tangent: Callable[[Params, Params, Params, Tensor], Tensor] | None = None

    def __call__(self, params: Params, images: Tensor) -> Tensor:
        """Logits ``(B, C)`` of ``images`` at ``params``."""
        buffers = {} if self.buffers == "share" else self.snapshot()
        return call(self.network, params, buffers, images)

    def snapshot(self) -> dict[str, Tensor]:
        """Copies of the buffers as they are now, by dotted name."""
        return copies(dict(self.network.named_buffers()))


def call(network: nn.Module, params: Params, buffers: Params, images: Tensor) -> Tensor:
    """Run ``network`` with the given parameters and buffers in place of its own."""
    state = {**params, **buffers}
    state |= {alias: state[name] for alias, name in aliases(network).items() if name in state}
    with full_values(images.device):
        logits = functional_call(network, state, (images,), tie_weights=False)
    if not isinstance(logits, Tensor):
        raise ValueError(
            f"{type(network).__name__} returned a {type(logits).__name__}; a classifier must "
            "return one tensor of logits (some torchvision networks need aux_logits=False)."
        )
    return logits


def aliases(network: nn.Module) -> dict[str, str]:
    """Other names of tensors that several layers share, each with the name in `Params`.

    torch's own handling of shared tensors leaves the replacement behind in a layer that is used
    twice, so it is switched off and done here, once per distinct layer.
    """
    first: dict[int, str] = {}
    aliases = {}
    for path, module in network.named_modules():
        for leaf, tensor in [
            *module.named_parameters(recurse=False),
            *module.named_buffers(recurse=False),
        ]:
            name = f"{path}.{leaf}" if path else leaf
            known = first.setdefault(id(tensor), name)
            if known != name:
                aliases[name] = known
    return aliases


def stateless(network: nn.Module, *, buffers: Buffers = "copy") -> Stateless:
    """See `Stateless`.

    The training forward of a step is the module's own forward, so it wants ``share``. For the
    forward on the meta batch ``copy`` keeps meta statistics out of the evaluated network; ``share``
    reproduces the published code, which lets them in (there the count of batches stays behind; it
    matters only to batch-norm without momentum).
    """
    return Stateless(network, buffers)


def copies(tensors: Params) -> dict[str, Tensor]:
    """Detached copies by the same names, in one kernel per data type instead of one per tensor."""
    made = {name: torch.empty_like(tensor.detach()) for name, tensor in tensors.items()}
    for dtype in {tensor.dtype for tensor in tensors.values()}:
        names = [name for name, tensor in tensors.items() if tensor.dtype == dtype]
        torch._foreach_copy_([made[k] for k in names], [tensors[k].detach() for k in names])
    return made


def virtual_update(params: Params, grads: Params, lr: float) -> dict[str, Tensor]:
    """θ − lr · gradient, differentiable in all its tensors; parameters without gradient stay.

    Args:
        params: θ by name.
        grads: gradients by name, a subset of the names in ``params``.
        lr: virtual learning rate, no momentum or weight decay.
    """
    moved = torch._foreach_sub([params[name] for name in grads], list(grads.values()), alpha=lr)
    return {**params, **dict(zip(grads, moved, strict=True))}


def along(params: Params, grads: Params) -> Tensor:
    """A loss ``()`` of value 0 whose gradient in θ is v: adds a gradient that is already known.

    Args:
        params: θ by name.
        grads: v by name, a subset of the names in ``params``; at least one. They are used up: the
            backward pass, of which there can be only one, scales them in place.
    """
    found: Tensor = _Along.apply(tuple(grads.values()), *(params[name] for name in grads))
    return found


class _Along(torch.autograd.Function):
    """One kernel for all tensors, where a sum of inner products would take three for each."""

    @staticmethod
    def forward(ctx: Any, grads: tuple[Tensor, ...], *params: Tensor) -> Tensor:
        ctx.grads = grads
        return params[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        grads, ctx.grads = ctx.grads, ()
        torch._foreach_mul_(grads, factor)
        return None, *grads
