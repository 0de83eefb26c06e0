"""Three ways to the directional derivative of the logits, and which of them a network can use."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from mln_lightning.meta import dual
from mln_lightning.meta.missing import missing_operator, refuse_once_differentiable
from mln_lightning.meta.mixed import half_type
from mln_lightning.meta.sharing import Recorder, Replayer
from mln_lightning.meta.stateless import Params

Backend = Literal["jvp", "autograd", "finite_difference"]
"""How the directional derivative is taken. ``jvp``: one forward-mode pass, exact. ``autograd``: two
backward passes, exact, slower and larger. ``finite_difference``: two forward passes, approximate,
always in at least float32."""

BACKENDS: tuple[Backend, ...] = ("jvp", "autograd", "finite_difference")
"""In the order in which they are tried."""

Forward = Callable[[Params], Tensor]
"""Parameters → logits ``(B, C)`` of the training batch, the same random draws at every call."""


def forward_mode(forward: Forward, params: Params, direction: Params, recorder: Recorder) -> Tensor:
    """J · direction by one forward-mode pass that reuses the recorded training forward."""
    half = half_type(next(iter(params.values())).device)
    # Only the plain formula of attention has a forward derivative.
    with (
        torch.no_grad(),
        dual.level(),
        sdpa_kernel(SDPBackend.MATH),
        Replayer(recorder.calls, half),
    ):
        point = {name: dual.join(p, direction.get(name)) for name, p in params.items()}
        value, tangent = dual.split(forward(point))
        return torch.zeros_like(value) if tangent is None else tangent


def double_backward(forward: Forward, params: Params, direction: Params) -> Tensor:
    """J · direction as the derivative of u ↦ ⟨Jᵀu, direction⟩, which is linear in u."""
    # Only the plain formula of attention has a second derivative.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        logits = forward(params)
        refuse_once_differentiable(logits)
        u = torch.zeros_like(logits, requires_grad=True)
        pulled = torch.autograd.grad(
            logits,
            [params[name] for name in direction],
            grad_outputs=u,
            create_graph=True,
            materialize_grads=True,
        )
        used = [(p, d) for p, d in zip(pulled, direction.values(), strict=True) if p.requires_grad]
        return torch.autograd.grad([p for p, _ in used], u, [d for _, d in used])[0]


def central_difference(forward: Forward, params: Params, direction: Params) -> Tensor:
    """J · direction by two forward passes at parameters shifted both ways.

    Autocast is off inside, so that the parameters' own precision counts.

    Args:
        forward: see `Forward`.
        params: float32 or float64.
        direction: of length 1 over all its tensors.

    Raises:
        ValueError: the parameters are of half precision, where a difference means nothing.
    """
    moved = [params[name].detach() for name in direction]
    if any(p.dtype in (torch.float16, torch.bfloat16) for p in moved):
        raise ValueError(
            f"The back end 'finite_difference' needs parameters of float32 or float64, got "
            f"{moved[0].dtype}; use mixed precision instead of half-precision parameters."
        )
    size = torch.stack([p.norm() for p in moved]).norm()
    # Rounding error falls and truncation error grows with the step; they meet near eps^(1/3).
    step = torch.finfo(size.dtype).eps ** (1 / 3) * size.clamp(min=1e-3)

    def shifted(by: Tensor) -> Tensor:
        return forward(
            {
                name: p + by * direction[name] if name in direction else p
                for name, p in params.items()
            }
        )

    with torch.no_grad(), torch.autocast(size.device.type, enabled=False):
        difference: Tensor = (shifted(step) - shifted(-step)) / (2 * step)
    return difference


def logit_tangent(
    backend: Backend,
    unsupported: set[str],
    forward: Forward,
    params: Params,
    direction: Params,
    recorder: Recorder,
) -> Tensor:
    """J · direction ``(B, C)``, by ``backend`` or by the first of its successors that works.

    Args:
        backend: the one asked for.
        unsupported: back ends that this network is known not to support; a newly found one is
            added, with one warning that names the operator.
        forward: see `Forward`.
        params: θ by name.
        direction: by name, for the parameters that move; of length 1.
        recorder: of the training forward, for ``jvp``.
    """
    chain = [b for b in BACKENDS[BACKENDS.index(backend) :] if b not in unsupported]
    for current, successor in pairwise(chain):
        try:
            if current == "jvp":
                return forward_mode(forward, params, direction, recorder)
            return double_backward(forward, params, direction)
        except RuntimeError as error:  # NotImplementedError is one
            operator = missing_operator(error)
            if operator is None:
                raise
            unsupported.add(current)
            warnings.warn(
                f"The meta gradient's back end '{current}' cannot pass {operator}; "
                f"using '{successor}' for this network from now on.",
                stacklevel=3,
            )
    return central_difference(forward, params, direction)
