"""The directional derivative of the logits as one compiled function."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from mln_lightning.meta import dual
from mln_lightning.meta.compiling import (
    COMPILER,
    compile_network,
    compiler_options,
    eagerly,
    quietly,
    say_why,
)
from mln_lightning.meta.randomness import preserved, random_state, restore
from mln_lightning.meta.sharing import Recorder
from mln_lightning.meta.stateless import Params, Stateless, aliases, call
from mln_lightning.meta.tangent import forward_mode


def compile_stateless(
    network: Stateless, images: Tensor, meta_images: Tensor, backend: str = COMPILER
) -> None:
    """Compile a network and the forward-mode derivative of its logits, as far as they can be.

    The derivative computes the training forward once more, since nothing can be remembered inside
    compiled code. It is compared once with torch's forward mode, and left out if it is wrong.

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

    def derivative(point: Params, direction: Params, buffers: Params, images: Tensor) -> Tensor:
        dual.prepare()
        plain = {name: p.detach() for name, p in point.items()}
        # Only the plain formula of attention has a forward derivative; and the values must have
        # the precision of the training forward, see `mixed`.
        full = torch.autocast(images.device.type, enabled=False)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), full:
            found: Tensor = compiled(plain, direction, buffers, images)
        return found

    params = dict(module.named_parameters())
    try:
        with quietly(), preserved(images.device):
            # As in a meta step: with its precision, and with tensors that are no parameters.
            _gradients(network, params, images)
            moved = {
                k: p.detach().clone().requires_grad_(p.requires_grad) for k, p in params.items()
            }
            direction = _gradients(network, moved, meta_images)
            draws = random_state(images.device)
            found = derivative(params, direction, network.snapshot(), images)
            restore(draws)
            with eagerly(module):
                right = forward_mode(
                    lambda point: call(module, point, network.snapshot(), images),
                    params,
                    direction,
                    Recorder(),
                )
        # Code of one's own within a network may be derived wrongly without a word (torch 2.15).
        # That is no matter of rounding, which in float32 can reach a few thousandths.
        error = (found - right).norm() / right.norm().clamp(min=torch.finfo(right.dtype).tiny)
        if not error < 0.05:
            raise ArithmeticError(f"its result is wrong by {float(error):.0%}")
    except Exception as problem:  # the compilers below may fail in any way
        say_why(f"The meta gradient of {type(module).__name__} cannot be compiled", problem)
        return
    network.tangent = derivative


def _gradients(network: Stateless, params: Params, images: Tensor) -> dict[str, Tensor]:
    logits = call(network.network, params, network.snapshot(), images)
    names = [name for name, p in params.items() if p.requires_grad]
    grads = torch.autograd.grad(logits.sum(), [params[k] for k in names], materialize_grads=True)
    return dict(zip(names, grads, strict=True))
