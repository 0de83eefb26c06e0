"""The directional derivative of the logits as one compiled function."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from mln_lightning.meta import dual
from mln_lightning.meta.compiling import COMPILER, compile_network, compiler_options, say_why
from mln_lightning.meta.randomness import preserved
from mln_lightning.meta.stateless import Params, Stateless, aliases, call


def compile_stateless(
    network: Stateless, images: Tensor, meta_images: Tensor, backend: str = COMPILER
) -> None:
    """Compile a network and the forward-mode derivative of its logits, as far as they can be.

    The derivative computes the training forward once more, since nothing can be remembered inside
    compiled code. Everything is tried once here.

    Args:
        network: its module is compiled in place, see `compile_network`.
        images: ``(B, K, H, W)`` of a training batch.
        meta_images: the same of a meta batch; its size may differ.
        backend: see `torch.compile`.
    """
    module = network.network
    if network.tangent is not None or not compile_network(module, images, backend):
        return
    first = aliases(module)

    def tangent(point: Params, direction: Params, buffers: Params, images: Tensor) -> Tensor:
        def logits(moved: Params) -> Tensor:
            # Copied in here: a function under derivation may change only what it has made.
            copies = {name: buffer.clone() for name, buffer in buffers.items()}
            state = {**point, **moved, **copies}
            state |= {alias: state[name] for alias, name in first.items() if name in state}
            found: Tensor = functional_call(module, state, (images,), tie_weights=False)
            return found

        found: Tensor = jvp(logits, ({name: point[name] for name in direction},), (direction,))[1]
        return found

    compiled = torch.compile(tangent, fullgraph=True, **compiler_options(backend))

    def quietly(point: Params, direction: Params, buffers: Params, images: Tensor) -> Tensor:
        dual.prepare()
        plain = {name: p.detach() for name, p in point.items()}
        # Only the plain formula of attention has a forward derivative.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            found: Tensor = compiled(plain, direction, buffers, images)
        return found

    params = dict(module.named_parameters())
    try:
        with preserved(images.device):
            direction = _gradients(network, params, meta_images)
            quietly(params, direction, network.snapshot(), images)
    except Exception as error:  # the compilers below may fail in any way
        say_why(f"The meta gradient of {type(module).__name__} cannot be compiled", error)
        return
    network.tangent = quietly


def _gradients(network: Stateless, params: Params, images: Tensor) -> dict[str, Tensor]:
    """At parameters that are not the network's own, as those after a virtual step."""
    moved = {name: p.detach().clone().requires_grad_(p.requires_grad) for name, p in params.items()}
    logits = call(network.network, moved, network.snapshot(), images)
    names = [name for name, p in moved.items() if p.requires_grad]
    grads = torch.autograd.grad(logits.sum(), [moved[k] for k in names], materialize_grads=True)
    return dict(zip(names, grads, strict=True))
